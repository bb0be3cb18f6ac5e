"""Data sets that a table describes: which table of a folder it is, and where its audio lies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from esc_ensemble.data.audio_index import AudioIndex, find_folder, same_text
from esc_ensemble.data.columns import CLASS_COLUMNS, FILE_COLUMNS, find_expected, rows_of_cells
from esc_ensemble.data.parquet import holds_audio, read_parquet_cells
from esc_ensemble.data.rows import NO_FOLD, CellTable, Listing, ReadOptions, Row, below, split_of_name
from esc_ensemble.data.tables import TABLE_SUFFIXES, find_column, plural, read_cells, read_header
from esc_ensemble.data.walk import files_in, folders_in, has_audio, is_audio, walk
from esc_ensemble.errors import DataError

ESC50_CSV = Path("meta", "esc50.csv")
URBANSOUND_CSV = Path("metadata", "UrbanSound8K.csv")
OFFICIAL = (ESC50_CSV, URBANSOUND_CSV)
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
N_LOOKED_AT = 100
"""Clips of a table that are looked for where they are expected, before all files are listed."""


def find_tables(root: Path, options: ReadOptions, *, doubts: bool = True) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the table of a folder (several where parts of it are in files of their own), and notes.

    Args:
        root: the folder.
        options: what the user decided; with table "none" there is none.
        doubts: whether to refuse what is not clear; otherwise the first table that may be it is returned, or none.

    Raises:
        DataError: several tables could be it, or there is one beside folders of audio that cannot be it.
    """
    known = _chosen_table(root, options.table) if options.table else _known_tables(root, options)
    if known or options.table:
        return known, ()
    found = [file for place in _table_folders(root) for file in files_in(place) if _is_small_table(file)]
    about_classes = _no_tables_of_clips(found, root)
    notes = tuple(about_classes.values())
    found = [file for file in found if file not in about_classes]
    usable = [file for file in found if _describes(file, root, options)]
    parts = {split_of_name(file.stem) for file in usable}
    if len(usable) > 1 and len(parts) == len(usable) and "train" in parts and "" not in parts:
        return usable, notes  # train.csv, test.csv: the parts of a split
    if len(usable) == 1:
        others = [below(file, root) for file in found if file not in usable]
        note = f"{usable[0]} describes the clips; not used: {', '.join(others)} (--table NAME takes another)."
        return usable, (*notes, note) if others else notes
    if not doubts:
        return usable[:1], notes
    _refuse_doubtful(root, found, usable)
    # Nothing but a table and, perhaps, clips beside it: reading it says what it lacks.
    return ([] if folders_in(root) else found[:1]), notes


def _chosen_table(root: Path, name: str) -> list[Path]:
    if name == "none":
        return []
    found = [place for place in (root / name, Path(name)) if place.is_file()]
    if not found:
        raise DataError(f"--table {name}: there is no such file in {root}.")
    return found[:1]


def _known_tables(root: Path, options: ReadOptions) -> list[Path]:
    """Finds the tables whose name and place say what they are: official ones, audiofolder's, and Parquet with audio."""
    for official in OFFICIAL:
        if (root / official).is_file():
            return [root / official]
    for name in METADATA:
        if FILE_COLUMNS & set(read_header(root / name)):
            return [root / name]
    parts = [folder / name for folder in folders_in(root) if split_of_name(folder.name) for name in METADATA]
    parts = [part for part in parts if part.is_file()]
    if parts:
        return parts
    files = walk(root).files
    shards = [file for file in files if file.suffix.lower() == ".parquet" and holds_audio(file)]
    folders = {shard.parent.parent if split_of_name(shard.parent.name) else shard.parent for shard in shards}
    for other in (file for shard in shards for file in shard.parent.glob("*.parquet") if file not in shards):
        raise DataError(f"{other} holds no audio, and {shards[0]} does. Give a folder of files with the same columns.")
    audio = [file for file in files if is_audio(file) and file.parent != root and file not in options.leave_out]
    if shards and audio:
        raise DataError(
            f"{root} has Parquet files with audio, such as {below(shards[0], root)}, and audio in folders, such as "
            f"{below(audio[0], root)}. Give the folder of one of them, --table NAME for one file, or --table none."
        )
    if len(folders) > 1:
        names = ", ".join(sorted(below(folder, root) for folder in folders))
        raise DataError(f"{root} has several Parquet data sets: {names}. Give the folder of one.")
    return shards


def _table_folders(root: Path) -> list[Path]:
    """Returns the folders in which a table may be that describes the clips: the root, and those without audio in it."""
    return [root, *(folder for folder in folders_in(root) if not has_audio(folder))]


def _no_tables_of_clips(found: list[Path], root: Path) -> dict[Path, str]:
    """Finds tables beside folders of audio that are about the classes or about something else: table -> note on it.

    A table about the classes has one row for each folder of audio, in a column of classes. One about something else
    lacks a column for files or for classes, and has no cell that is the name of a file of audio or of a folder of such.
    """
    audio = [file for file in walk(root).files if is_audio(file)] if found else []
    folders = {same_text(file.parent.name) for file in audio if file.parent != root}
    if len(folders) < 2:
        return {}
    inside = {same_text(part) for file in audio for part in (*file.relative_to(root).parts, file.stem)}
    notes = {}
    for file in found:
        try:
            rows = [cells for _, cells in read_cells(file).rows]
        except DataError:
            continue  # reading it says what is wrong
        columns = {name: [same_text(cells[name]) for cells in rows if name in cells] for name in read_header(file)}
        classes = [set(columns[name]) for name in CLASS_COLUMNS if len(set(columns.get(name, ()))) == len(rows)]
        if any(folders <= names for names in classes):
            notes[file] = f"{file} is about the classes, not the clips: not used (--table NAME takes it)."
            continue
        of_clips = FILE_COLUMNS & columns.keys() and find_column(tuple(columns), CLASS_COLUMNS)
        cells = [cell for column in columns.values() for cell in column]
        if (
            not of_clips
            and not inside.intersection(map(_last_part, cells))
            and not any(is_audio(Path(c)) for c in cells)
        ):
            notes[file] = f"{file} names no clip of {root}: not used."
    return notes


def _last_part(cell: str) -> str:
    return cell.replace("\\", "/").rsplit("/", 1)[-1]


def _refuse_doubtful(root: Path, found: list[Path], usable: list[Path]) -> None:
    names = ", ".join(below(file, root) for file in usable or found)
    if usable:
        raise DataError(f"{root} has several tables of clips: {names}. Say which one is meant: --table NAME.")
    if found and any(map(has_audio, folders_in(root))):
        for file in found:
            column = find_column(read_header(file), tuple(FILE_COLUMNS))
            if column and find_column(read_header(file), CLASS_COLUMNS):
                cell = next((cells[column] for _, cells in read_cells(file).rows), "")
                name = next(each.name for each in walk(root).files if is_audio(each))
                raise DataError(
                    f'{file} has "{cell}" in its column "{column}", and no audio file below {root} is called so (they '
                    f"are called as {name} is). Write the files' names into it, bring the files, or read the folders "
                    "alone with --table none."
                )
        raise DataError(
            f"{root} has a table beside its folders of audio, {names}, which does not describe the clips: it needs a "
            f"column for the file ({', '.join(FILE_COLUMNS)}) and one for the class ({', '.join(CLASS_COLUMNS)}), and "
            "files that are in this folder. Rename its columns and give --table NAME, or read the folders alone with "
            "--table none."
        )


def _is_small_table(file: Path) -> bool:
    return file.suffix.lower() in TABLE_SUFFIXES and not is_sample(file)


def _describes(table: Path, root: Path, options: ReadOptions) -> bool:
    """Whether a table has the columns it needs, and files that are below the folder."""
    columns = read_header(table)
    file_column = find_column(columns, tuple(FILE_COLUMNS))
    if not file_column or (options.need_classes and not find_column(columns, tuple(CLASS_COLUMNS))):
        return False
    try:
        names = [cells[file_column] for _, cells in read_cells(table).rows]
    except DataError:
        return True  # reading it says what is wrong
    some = names[:: max(1, len(names) // N_LOOKED_AT)]
    if any(find_expected(name, NO_FOLD, audio_places(table, root)) for name in some):
        return True
    found = AudioIndex([root, *options.search], options.leave_out).find(names)
    return any(found.paths) or bool(found.ambiguous)


def list_table(
    tables: Sequence[Path], root: Path, name: str, options: ReadOptions, *, whole_walk: bool = True
) -> Listing:
    """Reads the clips that a table describes, and finds their audio.

    Args:
        tables: the table, or its parts.
        root: the data set's folder.
        name: of the data set.
        options: what the user decided.
        whole_walk: look at all files below the folder, also where each clip's file is where it is expected; what the
            table does not list is then counted.

    Raises:
        DataError: the table cannot be read, or lacks a column.
    """
    origin = tables[0] if len(tables) == 1 else root
    rows: list[Row] = []
    bad: list[str] = []
    notes: list[str] = []
    index: AudioIndex | None = None
    for split, table, cells in _read_parts(tables, root):
        read = rows_of_cells(cells, table, audio_places(table, root), options, split=split)
        notes += read.notes
        if not cells.audio and (read.unlocated or whole_walk or options.audio):
            roots = [find_folder(root, options.audio)] if options.audio else _search_roots(table, root, options)
            index = index or AudioIndex(roots, options.leave_out)
            read = read.locate(index, root, strict=bool(options.audio))
        if len(tables) > 1 and not cells.audio and table.parent != root:  # the same names may be in each part
            folder = below(table.parent, root)
            read = replace(read, rows=[replace(row, clip_id=f"{folder}/{row.clip_id}") for row in read.rows])
        rows += read.rows
        bad += read.bad
    if index is not None:
        notes += _unlisted(index, rows, root)
    return Listing(name, root, origin, tuple(_unlike(rows)), (), tuple(bad), tuple(dict.fromkeys(notes)))


def _read_parts(tables: Sequence[Path], root: Path) -> list[tuple[str, Path, CellTable]]:
    """Reads tables; returns the part of a split that each is, where they are several, its first file, and its cells."""
    if all(holds_audio_inside(table) for table in tables):
        by_split: dict[str, list[Path]] = {}
        for table in tables:
            by_split.setdefault(_split_of_shard(table, root), []).append(table)
        # Without two parts their names say nothing.
        return [
            (split if len(by_split) > 1 else "", shards[0], read_parquet_cells(shards))
            for split, shards in by_split.items()
        ]
    if len(tables) == 1:
        return [("", tables[0], read_cells(tables[0]))]
    return [
        (split_of_name(table.parent.name) or split_of_name(table.stem), table, read_cells(table)) for table in tables
    ]


def holds_audio_inside(table: Path) -> bool:
    """Whether a table is a Parquet file that holds the audio itself."""
    return table.suffix.lower() == ".parquet" and holds_audio(table)


def _unlike(rows: Sequence[Row]) -> list[Row]:
    """Tells rows of Parquet files apart whose names are the same in two parts of a split, by the part's name."""
    counts = Counter(row.clip_id for row in rows if row.stored and row.split)
    return [replace(row, clip_id=f"{row.split}/{row.clip_id}") if counts[row.clip_id] > 1 else row for row in rows]


def audio_places(table: Path, root: Path) -> tuple[Path, ...]:
    """Returns the folders that a table's files may be in, the likeliest first."""
    above = _above(table, root)
    if above != table.parent:
        return (above / "audio", above, table.parent)
    return tuple(dict.fromkeys((table.parent, table.parent / "audio", root, root / "audio")))


def _above(table: Path, root: Path) -> Path:
    """Returns the folder that a table describes: its own, or the one above `meta/`, `annotations/` and the like."""
    inside = table.parent != root and table.parent.parent == root and not split_of_name(table.parent.name)
    return table.parent.parent if inside or table.parent.name.lower() in ("meta", "metadata") else table.parent


def _search_roots(table: Path, root: Path, options: ReadOptions) -> list[Path]:
    return [_above(table, root) if root == table.parent else root, *options.search]


def _unlisted(index: AudioIndex, rows: Sequence[Row], root: Path) -> list[str]:
    """Says how many audio files of a folder its table does not list, copies of listed ones apart."""
    taken = {row.path for row in rows}
    names = {same_text(path.name) for path in taken}
    if len(names) < len(taken):  # names do not say which clip it is
        names = set()
    others = [path for path in index.files if path not in taken and path.is_relative_to(root)]
    copies = Counter(path.parent for path in others if same_text(path.name) in names)
    more = [path for path in others if same_text(path.name) not in names]
    notes = []
    if copies:
        listed = ", ".join(f"{n} in {below(folder, root)}" for folder, n in sorted(copies.items())[:4])
        notes.append(f"Copies of the clips are passed over: {listed}. --audio FOLDER takes those of one folder.")
    if more:
        named = below(more[0], root)
        notes.append(f"{plural(len(more), 'audio file')} that the table does not list: passed over, such as {named}.")
    return notes


def _split_of_shard(shard: Path, root: Path) -> str:
    """Reads a part's name off a Parquet file's: `train-00000-of-00016.parquet`, `train/0000.parquet`."""
    first = re.split(r"[-_.]", shard.stem)[0]
    return split_of_name(first) or (split_of_name(shard.parent.name) if shard.parent != root else "")


def is_sample(path: Path) -> bool:
    """Whether a table's name is that of a competition's sample submission."""
    return "sample" in path.name.lower() and "submission" in path.name.lower()
