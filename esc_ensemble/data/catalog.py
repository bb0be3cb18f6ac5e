"""A dataset on disk as labelled clips with folds and sources, audited before anything is decoded."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from esc_ensemble.data.audio_index import same_text
from esc_ensemble.data.layouts import file_row, is_dataset, list_clips, list_files, undecodable
from esc_ensemble.data.rows import Listing, ReadOptions, Row
from esc_ensemble.data.tables import plural
from esc_ensemble.data.walk import absence
from esc_ensemble.errors import DataError, list_problems
from esc_ensemble.home import expand_home
from esc_ensemble.progress import say

ALWAYS_TRAINED = -1
"""In the place of the fold of a clip that is in every training part and never scored."""
SKIP_ADVICE = "Mend these, or pass --skip-bad to leave out the clips that cannot be used."


@dataclass(frozen=True)
class Clip:
    """One labelled audio file."""

    clip_id: str
    """Its name in the metadata."""
    path: Path
    """Its file; `shard.parquet/17` for the audio in row 17 of a Parquet file."""
    label: int
    """Index into the catalog's `class_names`, -1 where unknown."""
    fold: int
    """`ALWAYS_TRAINED` for a clip that no fold tests."""
    source: str
    """The recording it was cut from."""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    """All other columns of its row, by name in lower case."""

    @property
    def n_bytes(self) -> int:
        """Size of its file; of a Parquet file for a clip in one."""
        return (self.path if self.path.is_file() else self.path.parent).stat().st_size


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
    published: bool = False
    """Whether the folds came with the data: they are taken as they are, and recordings in two of them are possible."""
    fold_names: Mapping[int, str] = field(default_factory=dict)
    """Names of the folds that are parts of a named split (train, validation, test); empty where folds have numbers."""
    rare_classes: str = ""
    """Treatment of a class that one fold holds alone, see `ReadOptions`."""
    same_audio: tuple[tuple[str, ...], ...] = ()
    """Groups of clips in several folds whose audio is the same, by id: they count as clips of one recording."""

    @property
    def clip_ids(self) -> npt.NDArray[np.str_]:
        """Names."""
        return np.array([clip.clip_id for clip in self.clips], dtype=np.str_)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Indices into `class_names`, -1 where unknown."""
        return np.array([clip.label for clip in self.clips], dtype=np.int64)

    @cached_property
    def folds(self) -> npt.NDArray[np.int64]:
        """Fold numbers."""
        return np.array([clip.fold for clip in self.clips], dtype=np.int64)

    @cached_property
    def sources(self) -> npt.NDArray[np.str_]:
        """Names of the recordings that the clips were cut from."""
        return np.array([clip.source for clip in self.clips], dtype=np.str_)

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """The folds there are, ascending."""
        return tuple(sorted({clip.fold for clip in self.clips} - {ALWAYS_TRAINED}))

    @property
    def test_folds(self) -> tuple[int, ...]:
        """The folds that are held out in turn: all, or of a named split its test part alone."""
        if not self.fold_names:
            return self.fold_numbers
        return self.fold_numbers[-1:]

    @property
    def selection_fold(self) -> int | None:
        """The part of a named split that selects, where it has train, validation and test."""
        return self.fold_numbers[1] if self.fold_names and len(self.fold_numbers) > 2 else None

    @cached_property
    def recordings(self) -> npt.NDArray[np.int64]:
        """A number for each clip's recording, (N,): equal where the source is, or the audio itself."""
        names, number = np.unique(self.sources, return_inverse=True)
        parent = np.arange(len(names))
        of_clip = dict(zip(self.clip_ids.tolist(), number.tolist(), strict=True))
        for group in self.same_audio:
            joined = {int(parent[of_clip[clip_id]]) for clip_id in group if clip_id in of_clip}
            parent[np.isin(parent, list(joined))] = min(joined, default=0)
        return np.asarray(parent[number])

    @cached_property
    def shared_recordings(self) -> dict[int, tuple[int, ...]]:
        """Recordings with clips in several folds, by the number in `recordings` -> the folds."""
        pairs = np.unique(np.stack([self.recordings, self.folds], axis=1)[self.folds != ALWAYS_TRAINED], axis=0)
        found: defaultdict[int, list[int]] = defaultdict(list)
        for recording, fold in pairs.tolist():
            found[recording].append(fold)
        return {recording: tuple(folds) for recording, folds in found.items() if len(folds) > 1}

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits that change with a clip's name, size, class, fold or source, not with their order."""
        lines = sorted(
            json.dumps([clip.clip_id, clip.n_bytes, self.class_name(clip), clip.fold, clip.source])
            for clip in self.clips
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

    def class_name(self, clip: Clip) -> str:
        """Returns the name of a clip's class, empty where unknown."""
        return self.class_names[clip.label] if clip.label >= 0 else ""

    def fold_title(self, fold: int) -> str:
        """Returns `fold 3`, or the name of a part of a named split."""
        return self.fold_names.get(fold, f"fold {fold}")


def load_catalog(path: Path, options: ReadOptions | None = None, *, whole: bool = False) -> Catalog:
    """Reads and audits a dataset of any layout that `esc_ensemble.data.layouts` documents.

    Labels are re-indexed 0..C-1 in the order of the original class numbers where there are any, else of the names.
    Folds that come with the data are never changed.

    Args:
        path: the folder, the table, or `hf:OWNER/NAME`.
        options: what the user decided.
        whole: all of it is to be trained on: folds are neither needed nor audited.

    Raises:
        DataError: everything in the metadata that breaks a rule, listed together, and the flag that goes on.
    """
    options = options or ReadOptions()
    listing = list_clips(expand_home(path), replace(options, need_folds=not whole and options.need_folds))
    rows, bad = _usable(listing)
    if options.skip_bad:
        rows, repeated = _without_repeated(rows)
        bad += repeated
    names, numbers, name_problems, notes = _classes(rows)
    index = {name: label for label, name in enumerate(names)}
    clips = tuple(
        Clip(row.clip_id, row.path, index[row.class_name], row.fold, row.source, row.metadata) for row in rows
    )
    problems = [*listing.problems, *([] if options.skip_bad else bad), *name_problems, *_name_problems(clips)]
    if not rows and not problems:
        problems = ["it lists no clip"]
    if problems:
        advice = SKIP_ADVICE if bad and not options.skip_bad else ""
        raise DataError(
            list_problems(f"{listing.origin} cannot be used ({plural(len(problems), 'problem')}):", problems, advice)
        )
    for note in (*listing.notes, *notes):
        say(f"Note: {note}")
    catalog = Catalog(
        name=listing.name,
        root=listing.root,
        clips=clips,
        class_names=names,
        skipped=tuple(bad),
        whole=whole,
        class_numbers=numbers,
        published=listing.published,
        fold_names=dict(listing.fold_names),
        rare_classes=options.rare_classes,
    )
    return _audited(catalog, f"{listing.origin} cannot be used")


def load_recordings(path: Path, options: ReadOptions | None = None) -> Catalog:
    """Reads recordings without labels: a data set, whose classes and folds are forgotten, or any folder of audio.

    The source of a file in a folder is read off its name where that has it, as ESC-50's and UrbanSound8K's do.

    Raises:
        DataError: there is no audio, or a data set's metadata breaks a rule.
    """
    path = expand_home(path)
    options = replace(options or ReadOptions(), need_folds=False, need_classes=False)
    listing = list_clips(path, options) if is_dataset(path) else list_files(path)
    rows, bad = _usable(listing)
    clips = tuple(Clip(row.clip_id, row.path, -1, 0, row.source) for row in rows)
    problems = [*listing.problems, *([] if options.skip_bad else bad), *_name_problems(clips)]
    problems = problems or ([] if rows else ["it lists no clip"])
    if problems:
        raise DataError(
            list_problems(f"{listing.origin} cannot be used ({plural(len(problems), 'problem')}):", problems)
        )
    for note in listing.notes:
        say(f"Note: {note}")
    return Catalog(name=listing.name, root=listing.root, clips=clips, class_names=(), whole=True)


def load_unlabelled(paths: Sequence[Path]) -> Catalog:
    """Reads the clips of a test set: audio files, and all those below folders, of which nothing more is known.

    A clip's id is its path below the folder, or the name of a file that was named itself. Whether files hold sound is
    left to decoding, which finds all that do not together.

    Raises:
        DataError: a path does not exist, a folder holds no audio, two clips have one id, or one cannot be printed.
    """
    rows: list[Row] = []
    problems = [] if paths else ["no audio is named"]
    for path in (expand_home(path) for path in paths):
        try:
            listing = list_files(path) if not path.is_file() else None
        except DataError as error:
            problems.append(str(error))
        else:
            rows += listing.rows if listing else [file_row(path.name, path)]
            for note in listing.notes if listing else ():
                say(f"Note: {note}")
    clips = tuple(Clip(row.clip_id, row.path, -1, 0, row.source) for row in rows)
    problems += _name_problems(clips)
    if problems:
        raise DataError(list_problems("These test clips cannot be used:", problems))
    root = expand_home(paths[0])
    root = root if root.is_dir() else root.parent
    return Catalog(name=root.resolve().name, root=root, clips=clips, class_names=(), whole=True)


def describe_shared(catalog: Catalog, rule: str) -> list[str]:
    """Lists the recordings that have clips in several folds, one line each, after one that says what becomes of them.

    Args:
        catalog: the clips.
        rule: leave-out or keep, as in the setting data.shared_recordings.
    """
    shared = catalog.shared_recordings
    if not shared:
        return []
    clips = [np.flatnonzero(catalog.recordings == number) for number in shared]
    n_clips = sum(map(len, clips))
    becomes = (
        "such a clip is left out of the training of the fold that tests its partner (--data.shared-recordings keep "
        "trains on it, as published figures do)"
        if rule == "leave-out"
        else "all are trained on, as published figures do (--data.shared-recordings keep)"
    )
    lines = [f"{plural(len(shared), 'recording')} with {n_clips} clips in several folds: {becomes}"]
    for folds, indices in zip(shared.values(), clips, strict=True):
        names = ", ".join(dict.fromkeys(catalog.clips[index].source for index in indices))
        held = [(fold, int((catalog.folds[indices] == fold).sum())) for fold in folds]
        counts = ", ".join(f"{catalog.fold_title(fold)} ({n})" for fold, n in held)
        lines.append(f"{names}: {counts}")
    return lines


def say_shared(catalog: Catalog, rule: str) -> None:
    """Reports the recordings that have clips in several folds, where there are any."""
    first, *lines = describe_shared(catalog, rule) or [""]
    if first:
        say(list_problems(f"{first}:", lines))


def _usable(listing: Listing) -> tuple[list[Row], list[str]]:
    """Returns the rows whose audio is there, and what is wrong with the others."""
    rows, bad = [], list(listing.bad)
    shards: dict[Path, bool] = {}
    for row in listing.rows:
        if not row.clip_id.isprintable():
            bad.append(f"file name {row.clip_id!r} cannot be printed (not UTF-8?); rename the file")
            continue
        shard = row.path.parent
        if shard.suffix.lower() == ".parquet" and shards.setdefault(shard, shard.is_file()):
            rows.append(row)
            continue
        reason = undecodable(row.path) or absence(row.path)
        if not reason:
            rows.append(row)
        elif "exist" in reason and not row.path.is_symlink():
            bad.append(f'clip "{row.clip_id}" is listed, but {row.path} {reason}')
        else:
            bad.append(f"{row.path} {reason}")
    return rows, bad


def _without_repeated(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Leaves out rows of a clip that has one already, and all rows of a clip whose rows contradict each other."""
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[same_text(row.clip_id)].append(row)
    left, bad = [], []
    for group in groups.values():
        agree = len({(row.path, row.class_name, row.fold, row.source) for row in group}) == 1
        left += group[:1] if agree else []
        if not agree:
            bad.append(f'clip "{group[0].clip_id}" is listed {len(group)} times, with different contents')
        elif len(group) > 1:
            bad += [f'clip "{group[0].clip_id}" is listed {len(group)} times'] * (len(group) - 1)
    return left, bad


def _audited(catalog: Catalog, headline: str) -> Catalog:
    """Applies what was decided of rare classes, and refuses what cannot be cross-validated.

    Raises:
        DataError: all problems, and the flags that go on.
    """
    if catalog.whole:
        n_classes = len(catalog.class_names)
        problems = [] if n_classes > 1 else [f"it has {plural(n_classes, 'class')}, at least 2 are needed"]
    else:
        rare = rare_classes(catalog)
        if rare and catalog.rare_classes:
            catalog = _without_rare(catalog, rare)
            rare = {} if catalog.rare_classes == "train" else rare_classes(catalog)
        problems = [*audit_folds(catalog), *rare.values()]
        if rare:
            problems.append(
                "go on with --rare-classes drop (leave such classes out) or --rare-classes train (always train on "
                "their clips, and never score them)"
            )
    if problems:
        raise DataError(list_problems(f"{headline} ({plural(len(problems), 'problem')}):", problems))
    return catalog


def _without_rare(catalog: Catalog, rare: Mapping[int, str]) -> Catalog:
    names = ", ".join(catalog.class_names[label] for label in rare)
    if catalog.rare_classes == "train":
        say(f"Note: always trained on and never scored, since one fold holds them alone: {names}.")
        clips = [replace(clip, fold=ALWAYS_TRAINED) if clip.label in rare else clip for clip in catalog.clips]
        return replace(catalog, clips=tuple(clips))
    gone = sum(clip.label in rare for clip in catalog.clips)
    say(f"Note: left out, since one fold holds them alone: {names} ({plural(gone, 'clip')}).")
    stay = [label for label in range(len(catalog.class_names)) if label not in rare]
    index = {label: place for place, label in enumerate(stay)} | {-1: -1}
    return replace(
        catalog,
        clips=tuple(replace(clip, label=index[clip.label]) for clip in catalog.clips if clip.label not in rare),
        class_names=tuple(catalog.class_names[label] for label in stay),
        class_numbers=tuple(catalog.class_numbers[label] for label in stay) if catalog.class_numbers else (),
    )


def rare_classes(catalog: Catalog) -> dict[int, str]:
    """Finds the classes that have no clip to train on while some fold is held out: label -> what is wrong.

    Of a named split that is a class without a training clip.
    """
    folds_of_class: dict[int, set[int]] = {label: set() for label in range(len(catalog.class_names))}
    for clip in catalog.clips:
        if clip.label >= 0:
            folds_of_class[clip.label].add(clip.fold)
    found = {}
    for label, folds in folds_of_class.items():
        name, one = catalog.class_names[label], next(iter(folds), None)
        if catalog.fold_names:
            if catalog.fold_numbers and catalog.fold_numbers[0] not in folds and ALWAYS_TRAINED not in folds:
                found[label] = f'class "{name}" has no clip in {catalog.fold_title(catalog.fold_numbers[0])}'
        elif len(folds) == 1 and one != ALWAYS_TRAINED:
            sources = [clip.source for clip in catalog.clips if clip.label == label]
            size = f"{plural(len(sources), 'clip')}, {plural(len(set(sources)), 'recording')}"
            found[label] = (
                f'class "{name}" is in fold {one} alone ({size}): with that fold held out it has no clip to train on'
            )
    return found


def audit_folds(catalog: Catalog) -> list[str]:
    """Lists what keeps a data set from being cross-validated: fewer than two folds or classes, or an empty class."""
    problems: list[str] = []
    if len(catalog.class_names) < 2:
        named = f', "{catalog.class_names[0]}"' if catalog.class_names else ""
        problems.append(f"it has {plural(len(catalog.class_names), 'class')}{named}, at least 2 are needed")
    if len(catalog.fold_numbers) < 2:
        advice = "take the column away to have folds made (--n-folds 5)" if catalog.published else "bring more clips"
        problems.append(f"all clips are in one fold, at least 2 folds are needed: {advice}")
    present = {clip.label for clip in catalog.clips}
    names = enumerate(catalog.class_names)
    problems += [f'class "{name}" has no clip' for label, name in names if label not in present]
    return problems


def _classes(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[int, ...], list[str], list[str]]:
    """Returns the class names in order, the data's own numbers of them, contradictions, and names that look alike."""
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
    notes = _alike(numbers)
    if all(numbers.values()):
        ordered = tuple(sorted(numbers, key=lambda name: (min(numbers[name]), name)))
        return ordered, tuple(min(numbers[name]) for name in ordered), problems, notes
    return tuple(sorted(numbers)), (), problems, notes


def _alike(names: Iterable[str]) -> list[str]:
    """Warns of classes whose names differ only in case, spaces, width, or characters that are not seen."""
    by_form: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        visible = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
        by_form[re.sub(r"[\s_-]+", " ", visible).strip().casefold()].append(name)
    return [
        f"these classes look alike and may be one, though each is a class of its own here: "
        f"{', '.join(ascii(name) for name in sorted(group))}"
        for group in by_form.values()
        if len(group) > 1
    ]


def _name_problems(clips: Sequence[Clip]) -> list[str]:
    """Lists clips that cannot be distinguished by their names, and names that cannot be printed."""
    problems = []
    by_id: defaultdict[str, list[str]] = defaultdict(list)
    by_path: defaultdict[Path, list[str]] = defaultdict(list)
    for clip in clips:
        by_id[same_text(clip.clip_id)].append(clip.clip_id)
        by_path[clip.path].append(clip.clip_id)
        if not clip.clip_id.isprintable():
            problems.append(f"file name {clip.clip_id!r} cannot be printed (not UTF-8?); rename the file")
    for ids in by_id.values():
        if len(ids) > 1:
            spellings = '", "'.join(dict.fromkeys(ids))
            problems.append(f'clip "{spellings}" is listed {len(ids)} times')
    for path, ids in by_path.items():
        if len({same_text(clip_id) for clip_id in ids}) > 1:
            names = '", "'.join(ids)
            problems.append(f'clips "{names}" are one file, {path}')
    return problems


def subset(catalog: Catalog, keep: Sequence[int], skipped: Sequence[str]) -> Catalog:
    """Returns the catalog with the clips at `keep` only, audited again; `skipped` says why the others went.

    Raises:
        DataError: what is left cannot be cross-validated.
    """
    clips = tuple(catalog.clips[index] for index in keep)
    without = f" without its {plural(len(skipped), 'bad clip')}" if skipped else ""
    headline = f'"{catalog.name}" cannot be used{without}'
    if not clips:
        raise DataError(f"{headline}: no clip is left.")
    left = replace(catalog, clips=clips, skipped=(*catalog.skipped, *skipped))
    return left if catalog.whole else _audited(left, headline)


def thin_out(catalog: Catalog, max_clips: int) -> Catalog:
    """Keeps at most `max_clips` clips: the first few of each class in each fold, equally many.

    Recordings without labels are taken at even distances.
    """
    n_clips = len(catalog.clips)
    if n_clips <= max_clips:
        return catalog
    if catalog.class_names:
        per_cell = max(1, max_clips // (len(catalog.class_names) * max(1, len(catalog.fold_numbers))))
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
    return subset(catalog, keep, ())
