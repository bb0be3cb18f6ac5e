"""Data sets whose folders say the classes, also below parts of a split or folds."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from esc_ensemble.data.audio_index import same_text
from esc_ensemble.data.rows import NO_FOLD, Listing, ReadOptions, Row, fold_of_name, split_in_name, split_of_name
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
ALIKE = 0.8
"""Share of the names of all folders that each folder must hold for all to be called alike."""
NUMBER_OF_FOLD = re.compile(r"\d{1,2}")


def list_folders(root: Path, name: str, options: ReadOptions) -> Listing:
    """Reads folders of classes, and of recordings below them.

    Raises:
        DataError: there are no such folders, or they could be something else.
    """
    found = walk(root)
    files = [path for path in (*found.files, *found.dead_links) if is_audio(path) and path not in options.leave_out]
    inner = _refuse_no_classes(root, files, options)
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
    tops = _kind_of_folders(base, inside, options)
    kind, names = tops.kind, tops.names
    notes += tops.notes
    lists: dict[str, str] = {}
    if kind == "classes":
        few = sorted({path.relative_to(inner).parts[0] for path in files if path.parent != inner})[:3]
        if len(names) == 1 and inner != base and len(few) > 1 and not options.folders:
            raise DataError(
                f"{root} has one class, {min(names)}. If {', '.join(few)} in {inner} are the classes, give that folder."
            )
        names, aside = _without_underscores(names, options)
        lists, list_notes = _speech_lists(root, base)
        notes += [*aside, *list_notes, *_numbered_classes(names)]
    inside = {path: each for path, each in sorted(inside.items()) if each[0] in names}
    rows, unlabelled = _rows(root, base, inside, tops, lists)
    if not rows:
        what = "folds" if kind == "folds" else "parts of a split"
        raise DataError(
            f"{root} has folders called {', '.join(sorted(names)[:5])}, and no class folders in them: they are {what}, "
            "and the table that says the classes is missing. Put it there and give --table NAME, or give --folders "
            "classes if these are the classes."
        )
    problems = []
    for top, n_files in unlabelled.items():
        without = f"{plural(n_files, 'audio file')} in {top}/ without a class folder"
        if tops.splits.get(top) == "test":
            notes.append(f"{without}: left out, since nothing says what they are.")
        else:
            problems.append(f"{without}: put each into a folder of its class, or name a table with --table NAME")
    if kind == "classes" and base == root:
        with_audio = {row.class_name for row in rows}
        empty = [each for each in folders_in(root) if each.name not in with_audio and not each.name.startswith("_")]
        bad += [f'class folder "{each.name}" holds no audio file' for each in empty if not any(walk(each).files)]
    return Listing(name, root, root, tuple(rows), tuple(problems), tuple(bad), tuple(notes))


def _rows(
    root: Path, base: Path, inside: dict[Path, tuple[str, ...]], tops: _Tops, lists: dict[str, str]
) -> tuple[list[Row], Counter[str]]:
    """Returns a row for each file in a class folder, and how many files of each part are in none."""
    rows, unlabelled = [], Counter[str]()
    for path, each in inside.items():
        if tops.kind != "classes" and len(each) == 2:
            unlabelled[each[0]] += 1
            continue
        part, rest = ("", each) if tops.kind == "classes" else (each[0], each[1:])
        in_list = lists.get(same_text(path.relative_to(base).as_posix()), "train") if lists else ""
        rows.append(
            Row(
                clip_id=path.relative_to(root).as_posix(),
                path=path,
                class_name=rest[0],
                class_number=number_in_name(rest[0]),
                fold=tops.folds.get(part, NO_FOLD),
                source="",
                split=tops.splits.get(part, in_list),
                below="/".join(rest[1:]),
            )
        )
    if any(row.class_number is None for row in rows):  # numbers order the classes only where all are numbers
        rows = [replace(row, class_number=None) for row in rows]
    return rows, unlabelled


def _refuse_no_classes(root: Path, files: list[Path], options: ReadOptions) -> Path:
    """Refuses a folder without class folders; returns the first folder below it that holds more than one folder."""
    if options.audio:
        raise DataError(
            f"--audio {options.audio} is for the clips of a table, and {root} has none: give that folder itself."
        )
    inner = root
    while True:  # a folder around the data set, or two
        holding = {path.relative_to(inner).parts[0] for path in files if path.parent != inner}
        for folder in folders_in(inner) if len(holding) < 2 else []:
            if find_tables(folder, replace(options, table=""), doubts=False)[0]:
                raise DataError(f"{root} is not a dataset, but {folder} is. Give that folder.")
        if len(holding) != 1 or any(path.parent == inner for path in files):
            break
        inner /= holding.pop()
    if all(path.parent == root for path in files):
        raise DataError(
            f"{root} is not a dataset: it has no {ESC50_CSV}, no {URBANSOUND_CSV}, no table of clips and no "
            f"sub-folders of audio ({' '.join(AUDIO_SUFFIXES[:6])} ...), one a class."
        )
    return inner


def _without_containers(parts: dict[Path, tuple[str, ...]]) -> dict[Path, tuple[str, ...]]:
    """Goes down through a folder such as `audio/` that holds everything and is no class."""
    while len({each[0] for each in parts.values()}) == 1 and next(iter(parts.values()))[0].lower() in CONTAINERS:
        deeper = {path: each[1:] for path, each in parts.items()}
        if any(len(each) == 1 for each in deeper.values()):
            break
        parts = deeper
    return parts


@dataclass(frozen=True)
class _Tops:
    """What the uppermost folders are."""

    kind: Literal["classes", "splits", "folds"]
    names: set[str]
    folds: dict[str, int] = field(default_factory=dict)
    """Fold by name, of folds."""
    splits: dict[str, str] = field(default_factory=dict)
    """Part by name, of the parts of a split."""
    notes: tuple[str, ...] = ()


def _kind_of_folders(base: Path, inside: dict[Path, tuple[str, ...]], options: ReadOptions) -> _Tops:
    """Says what the uppermost folders are.

    Raises:
        DataError: they could be two things.
    """
    tops = {each[0] for each in inside.values()}
    if options.folders:
        return _as_told(base, tops, options.folders)
    folds = {top: fold_of_name(top) for top in tops if fold_of_name(top) != NO_FOLD}
    splits = {top: split_of_name(top) for top in tops if split_of_name(top)}
    if splits.keys() != tops and all(map(split_in_name, tops)) and len(set(map(split_in_name, tops))) > 1:
        raise DataError(
            f"The folders {', '.join(sorted(tops)[:3])} of {base} may be the parts of a split: give --folders splits "
            "if they are, --folders classes if each is a class."
        )
    found = _Tops("classes", tops)
    if splits:
        found = _Tops("splits", tops, splits=splits)
        if splits.keys() != tops:
            _refuse(base, set(splits), tops - splits.keys(), "parts of a split")
    elif folds:
        found = _Tops("folds", tops, folds)
        if folds.keys() != tops:
            _refuse(base, set(folds), tops - folds.keys(), "folds")
    seconds: defaultdict[str, set[str]] = defaultdict(set)
    for each in inside.values():
        if len(each) > 2:
            seconds[each[0]].add(each[1])
    copies = {top for top in tops if top in RATES or COPY_NAME.fullmatch(top) or top.lower() in CONTAINERS}
    if copies == tops and len(tops) == 1 and not seconds:
        raise DataError(
            f"{base} has audio in {min(tops)}/, no folders of classes and no table that says the classes: bring a "
            "table with a line of column names, such as filename,category, or put each clip into a folder of its class."
        )
    if copies:
        _refuse(base, copies, tops - copies, "copies at another rate, or a folder that holds all clips")
    if found.kind == "classes":
        _refuse_no_kind(base, tops, seconds)
    below = set().union(*seconds.values()) if seconds else set()
    if (
        found.kind != "classes"
        and below
        and all(split_of_name(name) or fold_of_name(name) != NO_FOLD for name in below)
    ):
        raise DataError(
            f"{base} has folders of {', '.join(sorted(below)[:3])} in {', '.join(sorted(tops)[:3])}: give one of "
            f"these, such as {base / min(tops)}, or --folders classes if they are classes."
        )
    return found


def _as_told(base: Path, tops: set[str], kind: Literal["classes", "splits", "folds"]) -> _Tops:
    """Reads the uppermost folders as `--folders` says.

    Raises:
        DataError: a name says no part of a split.
    """
    if kind == "splits":
        splits = {top: split_in_name(top) for top in tops}
        odd = sorted(top for top in tops if not splits[top])
        if odd:
            raise DataError(
                f"--folders splits: {odd[0]} in {base} says no part of a split; such a name has the word train, val, "
                "dev, test or eval in it. Rename it, or take it out."
            )
        return _Tops(kind, tops, splits=splits)
    if kind == "folds":
        folds = {top: number for top in tops if (number := _fold_number(top)) != NO_FOLD}
        if len(set(folds.values())) < len(folds):  # fold1 and 1
            folds = {}
        others = sorted(tops - folds.keys())
        if not others:
            return _Tops(kind, tops, folds)
        numbers = (_numbered(others) if not folds else []) or range(max(folds.values(), default=0) + 1, 1 << 30)
        folds |= dict(zip(others, numbers, strict=False))
        shown = ", ".join(f"{fold} is {top}" for top, fold in sorted(folds.items(), key=lambda item: item[1])[:10])
        return _Tops(kind, tops, folds, notes=(f"Folds: {shown}.",))
    return _Tops(kind, tops)


def _refuse_no_kind(base: Path, tops: set[str], seconds: Mapping[str, set[str]]) -> None:
    """Refuses folders that are read as classes, and are more likely something around or above them.

    Args:
        base: the folder that holds them.
        tops: their names.
        seconds: names of the folders in each.

    Raises:
        DataError: they are.
    """
    first = min(tops)
    names = set().union(*(seconds[top] for top in tops))
    n_pairs = sum(len(seconds[top]) for top in tops)
    alike = len(tops) > 1 and len(names) > 1 and n_pairs >= ALIKE * len(tops) * len(names)
    if alike and (_numbered(tops) or not any(map(str.isdigit, "".join(names)))):
        raise DataError(
            f"The folders {', '.join(sorted(tops)[:3])} of {base} hold folders of the same names, such as "
            f"{min(names)}: give --folders folds if they are folds, --folders classes if they are the classes, or one "
            f"of them alone, such as {base / first}."
        )
    for top in sorted(tops):
        if len(tops) > 2 and len(seconds[top] & tops) >= ALIKE * (len(tops) - 1):
            raise DataError(
                f"{base / top} holds folders called like the classes beside it, {', '.join(sorted(seconds[top])[:3])}: "
                "a copy of the data set? Take it out, or give --folders classes if it is a class."
            )


def _numbered(tops: Iterable[str]) -> list[int]:
    """Returns the numbers of names that differ in a number at their end alone, as `cv1` and `cv2`; or none."""
    found = [re.fullmatch(r"(\D*)(\d+)", top) for top in tops]
    numbers = [int(match[2]) for match in found if match]
    one_name = len({match[1] for match in found if match}) == 1
    return numbers if one_name and len(set(numbers)) == len(found) else []


def _refuse(base: Path, doubtful: set[str], others: set[str], what: str) -> None:
    beside = f", beside others ({', '.join(sorted(others)[:3])})" if others else ""
    raise DataError(
        f"{base} has folders called {', '.join(sorted(doubtful)[:3])}, which may be {what}{beside}. Give --folders "
        f"classes if each is a class, or the folder that holds the classes, such as {base / min(doubtful)}."
    )


def _fold_number(name: str) -> int:
    """Returns the number of a fold's folder, `fold3` or `3`."""
    return int(name) if NUMBER_OF_FOLD.fullmatch(name) else fold_of_name(name)


def _numbered_classes(names: set[str]) -> list[str]:
    """Notes that folders differ in a number alone, as those of speakers do; `0` to `9` are taken as they are."""
    if len(names) < 2 or not _numbered(names) or all(name.isdecimal() and name == str(int(name)) for name in names):
        return []
    shown = ", ".join(sorted(names)[:3])
    return [
        f"The {len(names)} classes are called {shown}: if these are speakers or recordings, say the classes in a table."
    ]


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
