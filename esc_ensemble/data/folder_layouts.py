"""Data sets whose folders say the classes, also below parts of a split or folds."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from esc_ensemble.data.audio_index import same_text
from esc_ensemble.data.rows import NO_FOLD, Listing, ReadOptions, Row, fold_of_name, split_of_name
from esc_ensemble.data.table_layouts import ESC50_CSV, URBANSOUND_CSV, find_tables
from esc_ensemble.data.tables import number_in_name, plural
from esc_ensemble.data.walk import AUDIO_SUFFIXES, describe_passed_over, folders_in, is_audio, walk
from esc_ensemble.errors import DataError

SPEECH_LISTS = {"validation_list.txt": "validation", "testing_list.txt": "test"}
LABEL_FOLDERS = ("_silence_", "_unknown_")
"""Speech Commands' classes whose names look like those of folders that are no classes."""
CONTAINERS = frozenset(
    ("audio", "audios", "wav", "wavs", "flac", "ogg", "mp3", "clips", "data", "dataset", "sounds", "samples", "files")
)
RATES = frozenset(("8000", "11025", "16000", "22050", "24000", "32000", "44100", "48000", "96000"))
COPY_NAME = re.compile(r"(?:.*[-_ ])?(\d{1,3})k(?:hz)?", re.IGNORECASE)
NUMBER_OF_FOLD = re.compile(r"\d{1,2}")


def list_folders(root: Path, name: str, options: ReadOptions) -> Listing:
    """Reads folders of classes, and of recordings below them.

    Raises:
        DataError: there are no such folders, or they could be something else.
    """
    found = walk(root)
    files = [path for path in (*found.files, *found.dead_links) if is_audio(path) and path not in options.leave_out]
    _refuse_no_classes(root, files, options)
    bad = [
        f"{path} is a link to {path.readlink()}, which does not exist" for path in found.dead_links if not path.suffix
    ]
    bad += [f"{path} is a folder that may not be read" for path in found.unreadable]
    notes = [text for text in [describe_passed_over(found, root)] if text]
    parts = _without_containers({path: path.relative_to(root).parts for path in files})
    base = files[0].parents[len(parts[files[0]]) - 1]
    loose = [path for path in parts if len(parts[path]) == 1]
    if loose:
        notes.append(f"{plural(len(loose), 'audio file')} in no class folder: passed over, such as {loose[0].name}.")
    inside = {path: each for path, each in parts.items() if len(each) > 1}
    kind, tops = _kind_of_folders(base, inside, options)
    lists: dict[str, str] = {}
    if kind == "classes":
        tops, aside = _without_underscores(tops, options)
        lists, list_notes = _speech_lists(root, base)
        notes += [*aside, *list_notes]
    inside = {path: each for path, each in sorted(inside.items()) if each[0] in tops}
    rows, unlabelled = _rows(root, base, inside, kind, lists)
    if not rows:
        what = "folds" if kind == "folds" else "parts of a split"
        raise DataError(
            f"{root} has folders called {', '.join(sorted(tops)[:5])}, and no class folders in them: they are {what}, "
            "and the table that says the classes is missing. Put it there and give --table NAME, or give --folders "
            "classes if these are the classes."
        )
    problems = []
    for top, n_files in unlabelled.items():
        without = f"{plural(n_files, 'audio file')} in {top}/ without a class folder"
        if split_of_name(top) == "test":
            notes.append(f"{without}: left out, since nothing says what they are.")
        else:
            problems.append(f"{without}: put each into a folder of its class, or name a table with --table NAME")
    if kind == "classes" and base == root:
        names = {row.class_name for row in rows}
        empty = [each for each in folders_in(root) if each.name not in names and not each.name.startswith("_")]
        bad += [f'class folder "{each.name}" holds no audio file' for each in empty if not any(walk(each).files)]
    return Listing(name, root, root, tuple(rows), tuple(problems), tuple(bad), tuple(notes))


def _rows(
    root: Path, base: Path, inside: dict[Path, tuple[str, ...]], kind: str, lists: dict[str, str]
) -> tuple[list[Row], Counter[str]]:
    """Returns a row for each file in a class folder, and how many files of each part are in none."""
    rows, unlabelled = [], Counter[str]()
    for path, each in inside.items():
        if kind != "classes" and len(each) == 2:
            unlabelled[each[0]] += 1
            continue
        part, rest = ("", each) if kind == "classes" else (each[0], each[1:])
        in_list = lists.get(same_text(path.relative_to(base).as_posix()), "train") if lists else ""
        rows.append(
            Row(
                clip_id=path.relative_to(root).as_posix(),
                path=path,
                class_name=rest[0],
                class_number=number_in_name(rest[0]),
                fold=_fold_number(part) if kind == "folds" else NO_FOLD,
                source="",
                split=split_of_name(part) if kind == "splits" else in_list,
                below="/".join(rest[1:]),
            )
        )
    if any(row.class_number is None for row in rows):  # numbers order the classes only where all are numbers
        rows = [replace(row, class_number=None) for row in rows]
    return rows, unlabelled


def _refuse_no_classes(root: Path, files: list[Path], options: ReadOptions) -> None:
    if options.audio:
        raise DataError(
            f"--audio {options.audio} is for the clips of a table, and {root} has none: give that folder itself."
        )
    holding = {path.relative_to(root).parts[0] for path in files if path.parent != root}
    for folder in folders_in(root):
        if len(holding) < 2 and find_tables(folder, replace(options, table=""), doubts=False)[0]:
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


Kind = Literal["classes", "splits", "folds"]


def _kind_of_folders(base: Path, inside: dict[Path, tuple[str, ...]], options: ReadOptions) -> tuple[Kind, set[str]]:
    """Says what the uppermost folders are, and returns their names.

    Raises:
        DataError: they could be two things.
    """
    tops = {each[0] for each in inside.values()}
    checks: dict[str, Callable[[str], bool]] = {
        "splits": lambda top: bool(split_of_name(top)),
        "folds": lambda top: _fold_number(top) != NO_FOLD,
        "classes": lambda _: True,
    }
    if options.folders:
        odd = sorted(top for top in tops if not checks[options.folders](top))
        if odd:
            raise DataError(f"--folders {options.folders}: {odd[0]} in {base} is no name of one, as val or fold1 is.")
        return options.folders, tops
    kind: Kind = "classes"
    for name in ("splits", "folds"):
        of_kind = {top for top in tops if checks[name](top) and not NUMBER_OF_FOLD.fullmatch(top)}
        if of_kind == tops:
            kind = name  # type: ignore[assignment]
        elif of_kind:
            _refuse(base, of_kind, tops - of_kind, "parts of a split" if name == "splits" else "folds")
    copies = {top for top in tops if top in RATES or COPY_NAME.fullmatch(top) or top.lower() in CONTAINERS}
    if copies:
        _refuse(base, copies, tops - copies, "copies at another rate, or a folder that holds all clips")
    seconds: defaultdict[str, set[str]] = defaultdict(set)
    for each in inside.values():
        if len(each) > 2:
            seconds[each[0]].add(each[1])
    if kind == "classes" and all(map(NUMBER_OF_FOLD.fullmatch, tops)) and _alike(seconds, tops):
        raise DataError(
            f"The folders {', '.join(sorted(tops)[:3])} of {base} all hold folders of the same names, such as "
            f"{min(seconds[min(tops)])}: give --folders folds if the numbers are folds, --folders classes if classes."
        )
    below = set().union(*seconds.values()) if seconds else set()
    if kind != "classes" and below and all(split_of_name(name) or fold_of_name(name) != NO_FOLD for name in below):
        raise DataError(
            f"{base} has folders of {', '.join(sorted(below)[:3])} in {', '.join(sorted(tops)[:3])}: give one of "
            f"these, such as {base / min(tops)}, or --folders classes if they are classes."
        )
    return kind, tops


def _alike(seconds: Mapping[str, set[str]], tops: set[str]) -> bool:
    """Whether all folders hold folders of the same names, two or more."""
    names = [seconds[top] for top in tops]
    return len(names) > 1 and len(names[0]) > 1 and all(each == names[0] for each in names)


def _refuse(base: Path, doubtful: set[str], others: set[str], what: str) -> None:
    beside = f", beside others ({', '.join(sorted(others)[:3])})" if others else ""
    raise DataError(
        f"{base} has folders called {', '.join(sorted(doubtful)[:3])}, which may be {what}{beside}. Give --folders "
        f"classes if each is a class, or the folder that holds the classes, such as {base / min(doubtful)}."
    )


def _fold_number(name: str) -> int:
    """Returns the number of a fold's folder, `fold3` or `3`."""
    return int(name) if NUMBER_OF_FOLD.fullmatch(name) else fold_of_name(name)


def _without_underscores(tops: set[str], options: ReadOptions) -> tuple[set[str], list[str]]:
    """Leaves out folders such as `_background_noise_`, which are no classes."""
    aside = {top for top in tops if top.startswith("_") and top not in LABEL_FOLDERS}
    if not aside or options.folders == "classes" or len(tops - aside) < 2:
        return tops, []
    note = f"Left out: {', '.join(sorted(aside))}, no class by the underscore; --folders classes takes it."
    return tops - aside, [note]


def _speech_lists(root: Path, base: Path) -> tuple[dict[str, str], list[str]]:
    """Reads Speech Commands' lists of validation and test clips: path below the classes' folder -> part."""
    splits: dict[str, str] = {}
    notes = []
    for file_name, split in SPEECH_LISTS.items():
        file = next((folder / file_name for folder in (base, root) if (folder / file_name).is_file()), None)
        if file is None:
            continue
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        listed = [same_text(line.strip().replace("\\", "/")) for line in lines if line.strip()]
        splits |= dict.fromkeys(listed, split)
        absent = [line for line in listed if not (base / line).exists()]
        if absent:
            notes.append(f"{file_name} lists {len(absent)} clips that are not there, such as {absent[0]}.")
    return splits, notes
