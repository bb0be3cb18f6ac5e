"""A dataset on disk as labelled clips with folds and sources, audited before anything is decoded."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from esc_ensemble.data.layouts import Row, has_table, read_files, read_table, recording
from esc_ensemble.data.tables import plural
from esc_ensemble.errors import DataError, list_problems
from esc_ensemble.progress import say


@dataclass(frozen=True)
class Clip:
    """One labelled audio file."""

    clip_id: str
    """Its name in the metadata."""
    path: Path
    label: int
    """Index into the catalog's `class_names`, -1 where unknown."""
    fold: int
    source: str
    """The recording it was cut from."""


@dataclass(frozen=True)
class Catalog:
    """All clips of a dataset, in the order of its metadata. The arrays are (N,), in the order of `clips`."""

    name: str
    root: Path
    clips: tuple[Clip, ...]
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    """One message for each clip left out because it could not be used."""
    whole: bool = False
    """Whether all of it is trained on: folds and labels are then no matter of audits."""
    class_numbers: tuple[int, ...] = ()
    """The data set's own number of each class, as ESC-10 keeps ESC-50's 0, 1, 10 ...; empty where it has none."""

    @property
    def clip_ids(self) -> npt.NDArray[np.str_]:
        """Names."""
        return np.array([clip.clip_id for clip in self.clips], dtype=np.str_)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Indices into `class_names`, -1 where unknown."""
        return np.array([clip.label for clip in self.clips], dtype=np.int64)

    @property
    def folds(self) -> npt.NDArray[np.int64]:
        """Fold numbers."""
        return np.array([clip.fold for clip in self.clips], dtype=np.int64)

    @property
    def sources(self) -> npt.NDArray[np.str_]:
        """Names of the recordings that the clips were cut from."""
        return np.array([clip.source for clip in self.clips], dtype=np.str_)

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """The folds there are, ascending."""
        return tuple(sorted({clip.fold for clip in self.clips}))

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits that change with a clip's name, size, class, fold or source, not with their order."""
        lines = sorted(
            json.dumps([clip.clip_id, clip.path.stat().st_size, self.class_name(clip), clip.fold, clip.source])
            for clip in self.clips
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

    def class_name(self, clip: Clip) -> str:
        """Gives the name of a clip's class, empty where unknown."""
        return self.class_names[clip.label] if clip.label >= 0 else ""


def load_catalog(path: Path, *, esc10: bool = False, n_folds: int = 0, whole: bool = False) -> Catalog:
    """Reads and audits a dataset: ESC-50 folder, UrbanSound8K folder, folder of class folders, or CSV.

    `esc_ensemble.data.layouts` documents the four. Labels are re-indexed 0..C-1 in the order of the original
    class numbers where there are any, else of the names. Folds that come with the data are never changed.

    Args:
        path: the folder or CSV file.
        esc10: keep only ESC-50's ten classes marked `esc10`.
        n_folds: folds to make, by source, where the data has none; 0 makes five for a folder of class folders
            and refuses a CSV without folds.
        whole: all of it is to be trained on: folds are neither needed nor audited.

    Raises:
        DataError: everything in the metadata that breaks a rule, listed together.
    """
    table = read_table(path.expanduser(), esc10=esc10, n_folds=n_folds, folds=not whole)
    names, numbers, name_problems = _classes(table.rows)
    index = {name: label for label, name in enumerate(names)}
    clips = tuple(
        Clip(clip_id=row.clip_id, path=row.path, label=index[row.class_name], fold=row.fold, source=row.source)
        for row in table.rows
    )
    problems = [*table.problems, *name_problems, *_file_problems(clips)]
    if clips and whole:
        problems += [] if len(names) > 1 else [f"it has {plural(len(names), 'class')}, at least 2 are needed"]
    elif clips:
        problems += audit_folds(clips, names)
    elif not problems:
        problems = ["it lists no clip"]
    if problems:
        raise DataError(list_problems(f"{table.origin} cannot be used ({plural(len(problems), 'problem')}):", problems))
    return Catalog(name=table.name, root=table.root, clips=clips, class_names=names, whole=whole, class_numbers=numbers)


def load_recordings(path: Path) -> Catalog:
    """Reads recordings without labels: a data set, whose classes and folds are forgotten, or any folder of audio.

    The source of a file in a folder is read off its name where that tells it, as ESC-50's and UrbanSound8K's do.

    Raises:
        DataError: there is no audio, or a data set's metadata breaks a rule.
    """
    path = path.expanduser()
    table = read_table(path, folds=False, classes=False) if has_table(path) else read_files(path)
    clips = tuple(Clip(clip_id=row.clip_id, path=row.path, label=-1, fold=0, source=row.source) for row in table.rows)
    problems = [*table.problems, *_file_problems(clips)] if clips else ["it lists no clip"]
    if problems:
        raise DataError(list_problems(f"{table.origin} cannot be used ({plural(len(problems), 'problem')}):", problems))
    return Catalog(name=table.name, root=table.root, clips=clips, class_names=(), whole=True)


def load_unlabelled(paths: Sequence[Path]) -> Catalog:
    """Reads the clips of a test set: audio files, and all those below folders, of which nothing more is known.

    A clip's id is its path below the folder, or the name of a file that was named itself. Whether files hold sound is
    left to decoding, which finds all that do not together.

    Raises:
        DataError: a path does not exist, a folder holds no audio, two clips have one id, or one cannot be printed.
    """
    rows: list[Row] = []
    problems = [] if paths else ["no audio is named"]
    for path in (path.expanduser() for path in paths):
        try:
            found = read_files(path, every_kind=True).rows if not path.is_file() else [recording(path.name, path)]
        except DataError as error:
            problems.append(str(error))
        else:
            rows += found
    clips = tuple(Clip(clip_id=row.clip_id, path=row.path, label=-1, fold=0, source=row.source) for row in rows)
    problems += _name_problems(clips)
    if problems:
        raise DataError(list_problems("These test clips cannot be used:", problems))
    root = paths[0].expanduser()
    root = root if root.is_dir() else root.parent
    return Catalog(name=root.resolve().name, root=root, clips=clips, class_names=(), whole=True)


def audit_folds(clips: Sequence[Clip], class_names: Sequence[str]) -> list[str]:
    """Lists what stands in the way of honest cross-validation.

    That is: fewer than two folds or classes, a source in two folds, and a class that would have no clip to
    train on while one of the folds is held out.
    """
    folds_of_source: defaultdict[str, set[int]] = defaultdict(set)
    folds_of_class: dict[int, set[int]] = {label: set() for label in range(len(class_names))}
    for clip in clips:
        folds_of_source[clip.source].add(clip.fold)
        if clip.label >= 0:
            folds_of_class[clip.label].add(clip.fold)
    problems: list[str] = []
    if len(class_names) < 2:
        problems.append(f"it has {plural(len(class_names), 'class')}, at least 2 are needed")
    if len({clip.fold for clip in clips}) < 2:
        problems.append("all clips are in one fold, at least 2 folds are needed")
    else:
        for label, folds in folds_of_class.items():
            if not folds:
                problems.append(f'class "{class_names[label]}" has no clip')
            elif len(folds) == 1:
                problems.append(
                    f'class "{class_names[label]}" stands in fold {min(folds)} alone: '
                    "with that fold held out it has no clip to train on"
                )
    for source, folds in folds_of_source.items():
        if len(folds) > 1:
            listed = ", ".join(map(str, sorted(folds)))
            problems.append(f'source "{source}" has clips in folds {listed}; a source must stay in one fold')
    return problems


def _classes(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[int, ...], list[str]]:
    """Gives the class names in order, the data's own numbers of them, and what contradicts each other."""
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    names: defaultdict[int, set[str]] = defaultdict(set)
    for row in rows:
        numbers[row.class_name]  # a class without a number counts too
        if row.class_number is not None:
            numbers[row.class_name].add(row.class_number)
            names[row.class_number].add(row.class_name)
    problems = [
        f'class "{name}" has several numbers: {", ".join(map(str, sorted(found)))}'
        for name, found in numbers.items()
        if len(found) > 1
    ]
    problems += [
        f"class number {number} has several names: {', '.join(sorted(found))}"
        for number, found in names.items()
        if len(found) > 1
    ]
    if all(numbers.values()):
        ordered = tuple(sorted(numbers, key=lambda name: (min(numbers[name]), name)))
        return ordered, tuple(min(numbers[name]) for name in ordered), problems
    return tuple(sorted(numbers)), (), problems


def _file_problems(clips: Sequence[Clip]) -> list[str]:
    absent = []
    for clip in clips:
        if not clip.clip_id.isprintable():
            continue
        if not clip.path.is_file():
            absent.append(f'clip "{clip.clip_id}" is listed, but {clip.path} does not exist')
        elif clip.path.stat().st_size == 0:
            absent.append(f"{clip.path} is empty (0 bytes)")
    return [*absent, *_name_problems(clips)]


def _name_problems(clips: Sequence[Clip]) -> list[str]:
    """What keeps clips from being told apart by their names."""
    problems = []
    by_id: defaultdict[str, list[str]] = defaultdict(list)
    by_path: defaultdict[Path, list[str]] = defaultdict(list)
    for clip in clips:
        by_id[clip.clip_id.casefold()].append(clip.clip_id)
        by_path[clip.path].append(clip.clip_id)
        if not clip.clip_id.isprintable():
            problems.append(f"file name {clip.clip_id!r} cannot be printed (not UTF-8?); rename the file")
    for ids in by_id.values():
        if len(ids) > 1:
            spellings = '", "'.join(dict.fromkeys(ids))
            problems.append(f'clip "{spellings}" is listed {len(ids)} times (upper and lower case count as the same)')
    for path, ids in by_path.items():
        if len({clip_id.casefold() for clip_id in ids}) > 1:
            names = '", "'.join(ids)
            problems.append(f'clips "{names}" are one file, {path}')
    return problems


def subset(catalog: Catalog, keep: Sequence[int], skipped: Sequence[str]) -> Catalog:
    """Gives the catalog with the clips at `keep` only, audited again; `skipped` says why the others went.

    Raises:
        DataError: what is left cannot be cross-validated.
    """
    clips = tuple(catalog.clips[index] for index in keep)
    problems = [] if clips else ["no clip is left"]
    if clips and not catalog.whole:
        problems = audit_folds(clips, catalog.class_names)
    if problems:
        raise DataError(
            list_problems(f'"{catalog.name}" cannot be used without its {plural(len(skipped), "bad clip")}:', problems)
        )
    return replace(catalog, clips=clips, skipped=(*catalog.skipped, *skipped))


def thin_out(catalog: Catalog, max_clips: int) -> Catalog:
    """Keeps at most `max_clips` clips: the first few of each class in each fold, equally many.

    Recordings without labels are taken at even distances.
    """
    n_clips = len(catalog.clips)
    if n_clips <= max_clips:
        return catalog
    if catalog.class_names:
        per_cell = max(1, max_clips // (len(catalog.class_names) * len(catalog.fold_numbers)))
        cells: dict[tuple[int, int], int] = {}
        keep = []
        for number, clip in enumerate(catalog.clips):
            cell = (clip.label, clip.fold)
            cells[cell] = cells.get(cell, 0) + 1
            if cells[cell] <= per_cell:
                keep.append(number)
    else:
        keep = np.linspace(0, n_clips - 1, max_clips).round().astype(int).tolist()
    say(f"{catalog.name}: taking {len(keep)} of {len(catalog.clips)} clips as asked for")
    return subset(catalog, keep, catalog.skipped)
