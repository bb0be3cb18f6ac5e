"""A dataset on disk as labelled clips with folds and sources, audited before anything is decoded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from esc_ensemble.data.audio_index import same_text
from esc_ensemble.data.audits import alike_names, audited, name_problems
from esc_ensemble.data.clips import Catalog, Clip
from esc_ensemble.data.layouts import file_row, is_dataset, list_clips, list_files, undecodable
from esc_ensemble.data.rows import Listing, ReadOptions, Row
from esc_ensemble.data.tables import plural
from esc_ensemble.data.walk import absence
from esc_ensemble.errors import DataError, list_problems
from esc_ensemble.home import expand_home
from esc_ensemble.progress import say

__all__ = [
    "Catalog",
    "Clip",
    "load_catalog",
    "load_for_inspection",
    "load_recordings",
    "load_unlabelled",
    "subset",
    "thin_out",
]

SKIP_ADVICE = "Mend these, or pass --skip-bad to leave out the clips that cannot be used."


def load_catalog(path: Path, options: ReadOptions | None = None, *, whole: bool = False, audit: bool = True) -> Catalog:
    """Reads and audits a dataset of any layout that `esc_ensemble.data.layouts` documents.

    Labels are re-indexed 0..C-1 in the order of the original class numbers where there are any, else of the names.
    Folds that come with the data are never changed.

    Args:
        path: the folder, the table, or `hf:OWNER/NAME`.
        options: what the user decided.
        whole: all of it is to be trained on: folds are neither needed nor audited.
        audit: refuse what cannot be cross-validated.

    Raises:
        DataError: everything in the metadata that breaks a rule, listed together, and the flag that goes on.
    """
    options = options or ReadOptions()
    listing = list_clips(expand_home(path), replace(options, need_folds=not whole and options.need_folds))
    rows, bad = _usable(listing)
    if options.skip_bad:
        rows, repeated = _without_repeated(rows)
        bad += repeated
    names, numbers, class_problems, notes = _classes(rows)
    index = {name: label for label, name in enumerate(names)}
    clips = tuple(
        Clip(row.clip_id, row.path, index[row.class_name], row.fold, row.source, row.metadata) for row in rows
    )
    problems = [*listing.problems, *([] if options.skip_bad else bad), *class_problems, *name_problems(clips)]
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
    return audited(catalog, f"{listing.origin} cannot be used") if audit else catalog


def load_for_inspection(path: Path, options: ReadOptions | None = None) -> tuple[Catalog, str]:
    """Reads a data set, or a folder of audio without labels, even where it cannot be cross-validated.

    Returns:
        The clips, and the message with which `load_catalog` refuses them; empty where it does not.

    Raises:
        DataError: there are no clips, or the metadata breaks a rule.
    """
    options = options or ReadOptions()
    try:
        return load_catalog(path, options), ""
    except DataError as error:
        refusal = error
    path = expand_home(path)
    try:
        if path.is_dir() and not is_dataset(path) and not any(each.is_dir() for each in path.iterdir()):
            return load_recordings(path, options), str(refusal)
        return load_catalog(path, replace(options, need_folds=False), audit=False), str(refusal)
    except DataError:
        raise refusal from None


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
    problems = [*listing.problems, *([] if options.skip_bad else bad), *name_problems(clips)]
    problems = problems or ([] if rows else ["it lists no clip"])
    if problems:
        raise DataError(
            list_problems(f"{listing.origin} cannot be used ({plural(len(problems), 'problem')}):", problems)
        )
    for note in listing.notes:
        say(f"Note: {note}")
    return Catalog(listing.name, listing.root, clips, class_names=(), skipped=tuple(bad), whole=True)


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
    problems += name_problems(clips)
    if problems:
        raise DataError(list_problems("These test clips cannot be used:", problems))
    root = expand_home(paths[0])
    root = root if root.is_dir() else root.parent
    return Catalog(name=root.resolve().name, root=root, clips=clips, class_names=(), whole=True)


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
    notes = alike_names(numbers)
    if all(numbers.values()):
        ordered = tuple(sorted(numbers, key=lambda name: (min(numbers[name]), name)))
        return ordered, tuple(min(numbers[name]) for name in ordered), problems, notes
    return tuple(sorted(numbers)), (), problems, notes


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
    return left if catalog.whole else audited(left, headline)


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
