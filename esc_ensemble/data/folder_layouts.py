"""Data sets whose folders say the classes, also below parts of a split or folds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

from esc_ensemble.data.audio_index import same_text
from esc_ensemble.data.rows import NO_FOLD, SPLIT_FOLDS, Listing, ReadOptions, Row, fold_of_name, split_of_name
from esc_ensemble.data.table_layouts import ESC50_CSV, OFFICIAL, URBANSOUND_CSV
from esc_ensemble.data.tables import number_in_name, plural
from esc_ensemble.data.walk import AUDIO_SUFFIXES, describe_passed_over, folders_in, is_audio, walk
from esc_ensemble.errors import DataError

SPEECH_LISTS = {"validation_list.txt": "validation", "testing_list.txt": "test"}
LABEL_FOLDERS = ("_silence_", "_unknown_")
"""Speech Commands' classes whose names look like those of folders that are no classes."""
CONTAINERS = ("audio", "audios", "wav", "wavs", "clips", "data", "dataset", "sounds", "samples")


def list_folders(root: Path, name: str, options: ReadOptions) -> Listing:
    """Reads folders of classes, and of recordings below them.

    Raises:
        DataError: there are no such folders, or they could be something else.
    """
    found = walk(root)
    files = [path for path in (*found.files, *found.dead_links) if is_audio(path) and path not in options.leave_out]
    _refuse_no_classes(root, files)
    notes = [text for text in [describe_passed_over(found, root)] if text]
    parts = _without_containers({path: path.relative_to(root).parts for path in files})
    loose = [path for path in parts if len(parts[path]) == 1]
    if loose:
        notes.append(f"{plural(len(loose), 'audio file')} in no class folder: passed over, such as {loose[0].name}.")
    inside = {path: each for path, each in parts.items() if len(each) > 1}
    tops = {each[0] for each in inside.values()}
    kind = _kind_of_folders(root, tops, options)
    lists: dict[str, str] = {}
    if kind == "classes":
        tops, aside = _without_underscores(tops, options)
        notes += aside
        lists = _speech_lists(root, notes)
    rows, unlabelled = [], Counter[str]()
    for path, each in sorted(inside.items()):
        if each[0] not in tops:
            continue
        if kind != "classes" and len(each) == 2:
            unlabelled[each[0]] += 1
            continue
        part, rest = ("", each) if kind == "classes" else (each[0], each[1:])
        clip_id = path.relative_to(root).as_posix()
        in_list = lists.get(same_text(clip_id), "train") if lists else ""
        rows.append(
            Row(
                clip_id=clip_id,
                path=path,
                class_name=rest[0],
                class_number=number_in_name(rest[0]),
                fold=fold_of_name(part) if kind == "folds" else NO_FOLD,
                source="",
                split=split_of_name(part) if kind == "splits" else in_list,
                below="/".join(rest[1:]),
            )
        )
    if not rows:
        raise DataError(
            f"{root} has folders called {', '.join(sorted(tops)[:5])}, and no class folders in them: they are "
            f"{'folds' if kind == 'folds' else 'parts of a split'}, and the table that says the classes is missing. "
            "Put it there, or give --folders classes if these are the classes."
        )
    if any(row.class_number is None for row in rows):  # numbers order the classes only where all are numbers
        rows = [replace(row, class_number=None) for row in rows]
    problems = []
    for top, n_files in unlabelled.items():
        without = f"{plural(n_files, 'audio file')} in {top}/ without a class folder"
        if split_of_name(top) == "test":
            notes.append(f"{without}: left out, since nothing says what they are.")
        else:
            problems.append(f"{without}: put each into a folder of its class, or name a table with --table NAME")
    if kind == "classes" and set(parts.values()) == {path.relative_to(root).parts for path in files}:
        names = {row.class_name for row in rows}
        empty = [each.name for each in folders_in(root) if each.name not in names and not each.name.startswith("_")]
        problems += [f'class folder "{each}" holds no audio file' for each in empty]
    return Listing(name, root, root, tuple(rows), tuple(problems), (), tuple(notes))


def _refuse_no_classes(root: Path, files: list[Path]) -> None:
    for folder in folders_in(root):
        for official in OFFICIAL:
            if (folder / official).is_file():
                raise DataError(f"{root} is not a dataset, but {folder} is. Give that folder.")
    if all(path.parent == root for path in files):
        raise DataError(
            f"{root} is not a dataset: it has no {ESC50_CSV}, no {URBANSOUND_CSV}, no table of clips and no "
            f"sub-folders of audio ({' '.join(AUDIO_SUFFIXES[:6])} ...), one a class."
        )


def _without_containers(parts: dict[Path, tuple[str, ...]]) -> dict[Path, tuple[str, ...]]:
    """Goes down through a folder such as `audio/` that holds everything and is no class."""
    while len({each[0] for each in parts.values()}) == 1 and next(iter(parts.values()))[0].lower() in CONTAINERS:
        deeper = {path: each[1:] for path, each in parts.items()}
        if any(len(each) == 1 for each in deeper.values()):
            break
        parts = deeper
    return parts


def _kind_of_folders(root: Path, tops: set[str], options: ReadOptions) -> Literal["classes", "splits", "folds"]:
    """Says what the uppermost folders are.

    Raises:
        DataError: they could be two things.
    """
    if options.folders:
        if options.folders == "splits" and not all(map(split_of_name, tops)):
            odd = sorted(top for top in tops if not split_of_name(top))
            raise DataError(f"--folders splits: {odd[0]} is no name of a part ({', '.join(SPLIT_FOLDS)}).")
        if options.folders == "folds" and not all(fold_of_name(top) != NO_FOLD for top in tops):
            odd = sorted(top for top in tops if fold_of_name(top) == NO_FOLD)
            raise DataError(f"--folders folds: {odd[0]} is no name of a fold such as fold1.")
        return options.folders
    splits = sorted(top for top in tops if split_of_name(top))
    folds = sorted(top for top in tops if fold_of_name(top) != NO_FOLD)
    if len(splits) == len(tops):
        return "splits"
    if len(folds) == len(tops):
        return "folds"
    if splits or folds:
        named = ", ".join([*splits, *folds][:3])
        others = ", ".join(sorted(tops - {*splits, *folds})[:3])
        raise DataError(
            f"{root} has folders called {named}, which may be {'parts of a split' if splits else 'folds'}, beside "
            f"others ({others}). Give --folders classes if each is a class, or the folder that holds the classes."
        )
    return "classes"


def _without_underscores(tops: set[str], options: ReadOptions) -> tuple[set[str], list[str]]:
    """Leaves out folders such as `_background_noise_`, which are no classes."""
    aside = {top for top in tops if top.startswith("_") and top not in LABEL_FOLDERS}
    if not aside or options.folders == "classes" or len(tops - aside) < 2:
        return tops, []
    return tops - aside, [
        f"Left out: {', '.join(sorted(aside))}, no class by the underscore; --folders classes takes it."
    ]


def _speech_lists(root: Path, notes: list[str]) -> dict[str, str]:
    """Reads Speech Commands' lists of validation and test clips: path below the folder -> part."""
    splits: dict[str, str] = {}
    for file_name, split in SPEECH_LISTS.items():
        if (root / file_name).is_file():
            lines = (root / file_name).read_text(encoding="utf-8", errors="replace").splitlines()
            listed = [same_text(line.strip().replace("\\", "/")) for line in lines if line.strip()]
            splits |= dict.fromkeys(listed, split)
            absent = [line for line in listed if not (root / line).exists()]
            if absent:
                notes.append(f"{file_name} lists {len(absent)} clips that are not there, such as {absent[0]}.")
    return splits
