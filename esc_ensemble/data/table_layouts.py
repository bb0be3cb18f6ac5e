"""Data sets that a table describes: which table of a folder it is, and where its audio lies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from esc_ensemble.data.audio_index import AudioIndex, find_folder, same_text
from esc_ensemble.data.columns import CLASS_COLUMNS, FILE_COLUMNS, find_expected, rows_of_cells
from esc_ensemble.data.rows import NO_FOLD, CellTable, Listing, ReadOptions, Row, below, split_of_name
from esc_ensemble.data.tables import CSV_SUFFIXES, find_column, plural, read_cells, read_header
from esc_ensemble.data.walk import files_in, folders_in, is_audio, walk
from esc_ensemble.errors import DataError

ESC50_CSV = Path("meta", "esc50.csv")
URBANSOUND_CSV = Path("metadata", "UrbanSound8K.csv")
OFFICIAL = (ESC50_CSV, URBANSOUND_CSV)
METADATA = ("metadata.csv", "metadata.jsonl")
TABLE_FOLDERS = ("", "meta", "metadata")
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
    if options.table == "none":
        return [], ()
    if options.table:
        table = next((place for place in (root / options.table, Path(options.table)) if place.is_file()), None)
        if table is None:
            raise DataError(f"--table {options.table}: there is no such file in {root}.")
        return [table], ()
    known = _known_tables(root)
    if known:
        return known, ()
    places = [root / name if name else root for name in TABLE_FOLDERS]
    found = [file for place in places if place.is_dir() for file in files_in(place) if _is_text_table(file)]
    usable = [file for file in found if _describes(file, root, options)]
    if len(usable) == 1:
        others = [file.relative_to(root).as_posix() for file in found if file not in usable]
        note = f"{usable[0]} describes the clips; not used: {', '.join(others)} (--table NAME takes another)."
        return usable, (note,) if others else ()
    if not doubts:
        return usable[:1], ()
    _refuse_doubtful(root, found, usable)
    # Nothing but a table and, perhaps, clips beside it: reading it says what it lacks.
    return ([] if folders_in(root) else found[:1]), ()


def _known_tables(root: Path) -> list[Path]:
    """Finds the tables whose name and place say what they are: official ones, audiofolder's, and Parquet."""
    for official in OFFICIAL:
        if (root / official).is_file():
            return [root / official]
    for file_name in METADATA:
        if (root / file_name).is_file() and FILE_COLUMNS & set(read_header(root / file_name)):
            return [root / file_name]
        parts = [folder / file_name for folder in folders_in(root) if split_of_name(folder.name)]
        if any(part.is_file() for part in parts):
            return [part for part in parts if part.is_file()]
    if any(map(is_audio, files_in(root))):
        return []
    files = walk(root).files
    shards = [file for file in files if file.suffix.lower() == ".parquet"]
    return shards if shards and not any(map(is_audio, files)) else []


def _refuse_doubtful(root: Path, found: list[Path], usable: list[Path]) -> None:
    names = ", ".join(file.relative_to(root).as_posix() for file in usable or found)
    if usable:
        raise DataError(f"{root} has several tables of clips: {names}. Say which one is meant: --table NAME.")
    if found and any(is_audio(file) for folder in folders_in(root) for file in walk(folder).files):
        raise DataError(
            f"{root} has a table beside its folders of audio, {names}, which does not describe the clips: it needs a "
            f"column for the file ({', '.join(FILE_COLUMNS)}) and one for the class ({', '.join(CLASS_COLUMNS)}), and "
            "files that are in this folder. Rename its columns and give --table NAME, or read the folders alone with "
            "--table none."
        )


def _is_text_table(file: Path) -> bool:
    return file.suffix.lower() in (*CSV_SUFFIXES, ".jsonl", ".ndjson") and not is_sample(file)


def _describes(table: Path, root: Path, options: ReadOptions) -> bool:
    """Whether a table has the columns it needs, and most of its files are below the folder."""
    columns = read_header(table)
    file_column = find_column(columns, tuple(FILE_COLUMNS))
    if not file_column or (options.need_classes and not find_column(columns, tuple(CLASS_COLUMNS))):
        return False
    try:
        names = [cells[file_column] for _, cells in read_cells(table).rows]
    except DataError:
        return True  # reading it says what is wrong
    some = names[:: max(1, len(names) // N_LOOKED_AT)]
    if all(find_expected(name, NO_FOLD, audio_places(table, root)) for name in some):
        return True
    found = AudioIndex([root, *options.search], options.leave_out).find(names)
    return 2 * sum(path is not None for path in found.paths) + 2 * len(found.ambiguous) >= len(names)


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
    if all(table.suffix.lower() == ".parquet" for table in tables):
        from esc_ensemble.data.parquet import read_parquet_cells  # noqa: PLC0415 - pyarrow takes a while to load

        by_split: dict[str, list[Path]] = {}
        for table in tables:
            by_split.setdefault(_split_of_shard(table, root), []).append(table)
        # Parts of one name are read together; without two parts their names say nothing.
        parts = [(split if len(by_split) > 1 else "", read_parquet_cells(shards)) for split, shards in by_split.items()]
    else:
        parts = [(split_of_name(table.parent.name) if len(tables) > 1 else "", read_cells(table)) for table in tables]
    if len({frozenset(cells.columns) for _, cells in parts}) > 1:
        raise DataError(f"The tables of {root} have different columns; give one of them: --table NAME.")
    rows: list[Row] = []
    bad: list[str] = []
    notes: list[str] = []
    index: AudioIndex | None = None
    for (split, cells), table in zip(parts, _firsts(tables, parts), strict=True):
        places = audio_places(table, root)
        read = rows_of_cells(cells, table, places, options, split=split)
        if read.unlocated or (whole_walk and not cells.audio and not options.audio):
            roots = [find_folder(root, options.audio)] if options.audio else _search_roots(table, root, options)
            index = index or AudioIndex(roots, options.leave_out)
            read = read.locate(index, root, strict=bool(options.audio))
        rows += read.rows
        bad += read.bad
        notes += read.notes
    if index is not None:
        notes += _unlisted(index, rows, root)
    return Listing(name, root, origin, tuple(rows), (), tuple(bad), tuple(notes))


def _firsts(tables: Sequence[Path], parts: Sequence[tuple[str, CellTable]]) -> list[Path]:
    return list(tables) if len(parts) == len(tables) else [tables[0]] * len(parts)


def audio_places(table: Path, root: Path) -> tuple[Path, ...]:
    """Returns the folders that a table's files may be in, the likeliest first."""
    if table.parent.name in ("meta", "metadata"):
        above = table.parent.parent
        return (above / "audio", above, table.parent)
    return (table.parent, table.parent / "audio", root, root / "audio")


def _search_roots(table: Path, root: Path, options: ReadOptions) -> list[Path]:
    above = table.parent.parent if table.parent.name in ("meta", "metadata") else table.parent
    top = above if root == table.parent else root
    return [top, *options.search]


def _unlisted(index: AudioIndex, rows: Sequence[Row], root: Path) -> list[str]:
    """Says how many audio files of a folder its table does not list, copies of listed ones apart."""
    taken = {row.path for row in rows}
    names = {same_text(path.name) for path in taken}
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
