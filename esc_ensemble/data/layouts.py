"""The ways a data set may lie on disk, each read into the same rows.

A folder is read by the first of these that fits; `docs/own-data.md` shows each.

- The table that `--table` names, or with `--table none` the folders alone.
- The official ESC-50 (`meta/esc50.csv`) and UrbanSound8K (`metadata/UrbanSound8K.csv`).
- Hugging Face's audiofolder: `metadata.csv` or `metadata.jsonl`, in the folder or in `train/`, `test/` ...
- Parquet files with the bytes of the audio (Hugging Face data sets), also as `hf:OWNER/NAME`.
- The one table in the folder (or in its `meta/` or `metadata/`) whose files are below it, such as Kaggle's copies of
  ESC-50 and UrbanSound8K. The columns are known by their names, see `esc_ensemble.data.columns`.
- Folders: one a class, also below `train/ val/ test/` or `fold1/ fold2/ ...`; a folder between class and file is a
  recording. Speech Commands' lists of validation and test clips are read.

Where the folder could mean two things it is refused with the flag that decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from esc_ensemble.data.columns import ADD_FOLDS
from esc_ensemble.data.folder_layouts import list_folders
from esc_ensemble.data.folding import (
    assign_folds,
    crossing_sources,
    find_sources,
    folders_of_recordings,
    recording_in_name,
)
from esc_ensemble.data.rows import NO_FOLD, SPLIT_FOLDS, Listing, ReadOptions, Row, fold_of_name, split_of_name
from esc_ensemble.data.table_layouts import ESC50_CSV, find_tables, list_table
from esc_ensemble.data.tables import TABLE_SUFFIXES, plural
from esc_ensemble.data.walk import AUDIO_SUFFIXES, OTHER_AUDIO_SUFFIXES, describe_passed_over, is_audio, walk
from esc_ensemble.errors import DataError

DEFAULT_N_FOLDS = 5
HUB = "hf:"


def list_clips(path: Path, options: ReadOptions) -> Listing:
    """Finds out which layout `path` has and reads it.

    Args:
        path: a folder, a table, or `hf:OWNER/NAME` for a data set of the Hugging Face hub.
        options: what the user decided.

    Raises:
        DataError: there is nothing of any layout, it could mean two things, or a table cannot be read.
    """
    if options.n_folds < 0 or options.n_folds == 1:
        raise DataError(f"--n-folds {options.n_folds} cannot work: give at least 2, or 0 to use the folds of the data.")
    if str(path).startswith(HUB):
        from esc_ensemble.data.hub import fetch_snapshot  # noqa: PLC0415 - the hub's client takes a while to load

        return replace(list_clips(fetch_snapshot(str(path)), options), name=path.name)
    if not path.exists():
        raise DataError(f"{path} does not exist. Give the folder or the table of a data set.")
    if path.is_file():
        if path.suffix.lower() not in TABLE_SUFFIXES:
            raise DataError(f"{path} is not a CSV file or another table ({' '.join(TABLE_SUFFIXES)}), nor a folder.")
        return _with_folds(list_table([path], path.parent, path.stem, options, whole_walk=False), options, default=0)
    name = path.resolve().name
    tables, notes = find_tables(path, options)
    if tables:
        listing = list_table(tables, path, name, options)
        return _with_folds(replace(listing, notes=(*notes, *listing.notes)), options, default=0)
    if options.esc10:
        raise DataError(f"--esc10 chooses a part of ESC-50, but {path / ESC50_CSV} does not exist.")
    listing = list_folders(path, name, options)
    return _with_folds(replace(listing, notes=(*notes, *listing.notes)), options, default=DEFAULT_N_FOLDS)


def is_dataset(path: Path) -> bool:
    """Whether a table describes the clips at `path`, itself or one in the folder."""
    if path.is_dir():
        return bool(find_tables(path, ReadOptions(need_classes=False), doubts=False)[0])
    return str(path).startswith(HUB) or (path.is_file() and path.suffix.lower() in TABLE_SUFFIXES)


def _with_folds(listing: Listing, options: ReadOptions, *, default: int) -> Listing:
    """Completes rows by their folds and recordings: those of the data, those of a named split, or ones made here.

    Args:
        listing: the rows.
        options: what the user decided.
        default: folds to make where nobody says how many; 0 refuses.
    """
    rows = list(listing.rows)
    if not rows:
        return listing
    notes, problems = list(listing.notes), list(listing.problems)
    if not default and not all(row.fold != NO_FOLD for row in rows):  # of a table
        rows = _folds_of_folders(rows, listing.root) or rows
    splits = {row.split for row in rows} - {""}
    has_folds = all(row.fold != NO_FOLD for row in rows)
    named = not has_folds and "train" in splits and len(splits) > 1
    if named and not all(row.split for row in rows):
        problems.append("some clips are in no part of the split (train, validation, test)")
    if not has_folds and len(splits) > 1 and "train" not in splits:
        problems.append(
            f"it has the parts {', '.join(sorted(splits))} of a split, and no train: bring that, or give one part"
        )
    if (has_folds or named) and options.n_folds:
        notes.append(f"{listing.origin} has folds of its own; --n-folds {options.n_folds} changes nothing.")
    made = 0
    if options.need_folds and not has_folds and not named:
        made = options.n_folds or default
        if not made:
            return replace(listing, problems=(*problems, f'has no column "fold": {ADD_FOLDS}'))
    rows, source_notes = _with_sources(rows, options, listing.root, made)
    notes += source_notes
    if made:
        sources = [row.source for row in rows]
        if len(set(sources)) < made:
            n_sources = plural(len(set(sources)), "source")
            fewer = f"give --n-folds {len(set(sources))}, or " if len(set(sources)) > 1 else "give "
            advice = f"{fewer}--sources files if each file is a recording of its own"
            problems.append(f"{n_sources} cannot make {made} folds: {advice}")
        else:
            folds = assign_folds(sources, [row.class_name for row in rows], made)
            rows = [replace(row, fold=fold) for row, fold in zip(rows, folds, strict=True)]
    if named:
        rows = [replace(row, fold=SPLIT_FOLDS.get(row.split, NO_FOLD)) for row in rows]
    return replace(
        listing,
        rows=tuple(rows),
        problems=tuple(problems),
        notes=tuple(notes),
        published=not made,
        fold_names=tuple((fold, split) for split, fold in SPLIT_FOLDS.items() if named and split in splits),
    )


def _folds_of_folders(rows: Sequence[Row], root: Path) -> list[Row]:
    """Takes folds or parts of a split from folders called fold1 ... or train ..., where all clips lie in such."""
    tops = [row.path.relative_to(root).parts[:-1] if row.path.is_relative_to(root) else () for row in rows]
    folds = [next((fold_of_name(part) for part in parts if fold_of_name(part) != NO_FOLD), NO_FOLD) for parts in tops]
    if all(fold != NO_FOLD for fold in folds) and len(set(folds)) > 1:
        return [replace(row, fold=fold) for row, fold in zip(rows, folds, strict=True)]
    if not any(row.split for row in rows):
        splits = [next((split_of_name(part) for part in parts if split_of_name(part)), "") for parts in tops]
        if all(splits) and len(set(splits)) > 1:
            return [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]
    return []


def _with_sources(rows: Sequence[Row], options: ReadOptions, root: Path, made: int) -> tuple[list[Row], list[str]]:
    """Completes rows by their recordings.

    Where folds are published, recordings that are only inferred from names or from folders of a table must not cross
    them: a wrong guess would take clips out of training. A note names such a suspicion.
    """
    if options.sources == "files":
        return [replace(row, source=row.clip_id) for row in rows], []
    if all(row.source for row in rows) and not options.sources:
        return list(rows), []
    classes = [row.class_name for row in rows]
    below = [row.below for row in rows]
    in_folders = all(below)  # folders of classes: one below them is a recording
    if options.sources == "names":
        below = [PurePosixPath(row.clip_id).name for row in rows]
    else:
        paths = [PurePosixPath(row.below) if in_folders else _path_below(row, root) for row in rows]
        below = folders_of_recordings(paths, classes, skip_classes=not in_folders)
    n_folds = made or len({row.fold if row.fold != NO_FOLD else row.split for row in rows})
    found = find_sources(below, classes, n_folds)
    given = [row.source if not options.sources else "" for row in rows]
    names, notes = [own or name for own, name in zip(given, found.names, strict=True)], found.notes
    if not made and options.need_folds:
        inferred = [
            not own and not (in_folders and known) and not recording_in_name(PurePosixPath(path).stem)
            for own, known, path in zip(given, found.known, below, strict=True)
        ]
        crossing = crossing_sources(names, [(row.fold, row.split) for row in rows], inferred)
        notes = [note for note in notes if in_folders and not note.startswith("Too few")]
        if crossing:
            notes.append(
                f"Names of files suggest {plural(len(crossing), 'recording')} with clips in several folds, such as "
                f'"{crossing[0]}". If they are, name them in a column "source", so that they are left out of training.'
            )
            names = [row.clip_id if guess else name for row, guess, name in zip(rows, inferred, names, strict=True)]
    return [replace(row, source=name) for row, name in zip(rows, names, strict=True)], notes


def _path_below(row: Row, root: Path) -> PurePosixPath:
    """Returns where a clip is below the data set's folder; of one inside a table, or elsewhere, by its name there."""
    if row.path.parent.suffix.lower() != ".parquet" and row.path.is_relative_to(root):
        return PurePosixPath(row.path.relative_to(root).as_posix())
    return PurePosixPath(row.stored or row.clip_id)


def list_files(folder: Path) -> Listing:
    """Lists all audio files below a folder as recordings without classes; a file's id is its path below the folder.

    Files of kinds that cannot be decoded here, dead links and pointers are listed too, so that decoding names them.

    Raises:
        DataError: there is no such folder, or no audio in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}. Give a folder of audio.")
    found = walk(folder)
    files = sorted(path for path in (*found.files, *found.dead_links) if is_audio(path))
    if not files:
        raise DataError(f"{folder} holds no audio file ({' '.join(AUDIO_SUFFIXES)}).")
    rows = tuple(file_row(path.relative_to(folder).as_posix(), path) for path in files)
    passed_over = describe_passed_over(found, folder)
    return Listing(folder.resolve().name, folder, folder, rows, notes=(passed_over,) if passed_over else ())


def file_row(clip_id: str, file: Path) -> Row:
    """Returns the row of a recording without a class."""
    (source,) = find_sources([file.name], [""], 1).names
    return Row(clip_id, file, "", None, NO_FOLD, source)


def undecodable(path: Path) -> str:
    """Why a file's kind keeps it from being decoded, as the end of a sentence; empty for those that are decoded."""
    if not is_audio(path, OTHER_AUDIO_SUFFIXES):
        return ""
    return f"is of a kind that cannot be decoded; convert it to one of {' '.join(AUDIO_SUFFIXES)}"
