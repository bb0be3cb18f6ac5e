"""Clips inside Parquet files, as Hugging Face stores audio data sets: a column of bytes beside the labels.

A Parquet file is read like a folder of clips: `shard.parquet/17` is the path of the audio in its row 17. What
decodes a path decodes such a path too, from memory; nothing is unpacked to disk.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from esc_ensemble.data.rows import CellTable, to_text
from esc_ensemble.data.walk import absence
from esc_ensemble.errors import DataError

SUFFIX = ".parquet"
AUDIO = "audio"
"""Name of the column of audio in a table that was read, whatever it is called in the file."""
AUDIO_NAMES = (AUDIO, "sound", "wav", "clip", "file", "recording", "waveform")
BATCH_ROWS = 16
INSTALL = "Reading Parquet files needs pyarrow: pip install pyarrow (it comes with esc_ensemble[train])."


def is_row(path: Path) -> bool:
    """Whether a path names a row of a Parquet file, `shard.parquet/17`."""
    return path.parent.suffix.lower() == SUFFIX and path.name.isdecimal() and path.parent.is_file()


def read_parquet_cells(shards: Sequence[Path]) -> CellTable:
    """Reads all columns but the audio of one table that is spread over files with the same columns.

    The column of audio is the one whose values are {bytes, path}, or bytes; a column of class numbers whose names are
    in the file (Hugging Face's ClassLabel) gets the names.

    Args:
        shards: the files, in order.

    Returns:
        The table; a cell of the column of audio holds the name that the audio had as a file.

    Raises:
        DataError: a file is damaged or holds no rows, its columns are not those of the first, or pyarrow is missing.
    """
    columns: frozenset[str] = frozenset()
    rows: list[tuple[int, dict[str, str]]] = []
    audio: list[Path] = []
    for shard in shards:
        content, has_audio, names = _read_shard(shard)
        if columns and (columns != frozenset(content) or bool(audio) != has_audio):
            raise DataError(f"{shard} has other columns than {shards[0]}: {', '.join(content)}.")
        columns = frozenset(content)
        n_rows = len(next(iter(content.values()), []))
        for number in range(n_rows):
            cells = {name: names.get(name, {}).get(values[number], values[number]) for name, values in content.items()}
            rows.append((number, cells))
        if has_audio:
            audio += [shard / str(number) for number in range(n_rows)]
    if not rows:
        raise DataError(f"{shards[0]} has no rows.")
    stored = _name_audio(rows, audio) if audio else []
    return CellTable(tuple(rows[0][1]), tuple(rows), audio=tuple(audio), stored=tuple(stored))


def _name_audio(rows: Sequence[tuple[int, dict[str, str]]], audio: Sequence[Path]) -> list[str]:
    """Puts names that are not empty, and no two the same, into the column of audio; returns the paths as stored."""
    stored = [cells[AUDIO].replace("\\", "/").strip("/") for _, cells in rows]
    folders = [path.split("/")[:-1] for path in stored]
    n_common = next(
        (n for n, level in enumerate(zip(*folders, strict=False)) if len(set(level)) > 1), min(map(len, folders))
    )
    counts = Counter(stored)
    for (number, cells), path, place in zip(rows, stored, audio, strict=True):
        name = "/".join(path.split("/")[n_common:])
        cells[AUDIO] = (
            name if name and counts[path] == 1 else f"{place.parent.stem}-{number}{PurePosixPath(name).suffix}"
        )
    return stored


def holds_audio(shard: Path) -> bool:
    """Whether a Parquet file has a column of audio; one that is damaged counts, so that reading it names the damage."""
    try:
        return bool(_find_audio(_open(shard).schema_arrow))
    except DataError:
        return True


def row_group_ends(shard: Path) -> list[int]:
    """Returns the number of the row behind each group of rows that a Parquet file is read in."""
    metadata = _open(shard).metadata
    ends, total = [], 0
    for group in range(metadata.num_row_groups):
        total += metadata.row_group(group).num_rows
        ends.append(total)
    return ends


def read_rows(shard: Path, rows: Sequence[int]) -> Iterator[bytes]:
    """Reads the audio in some rows of a Parquet file, a few at a time.

    Args:
        shard: the file.
        rows: numbers of rows, ascending.

    Yields:
        The bytes of an audio file for each row; none where the row holds no audio.

    Raises:
        DataError: the file is damaged or has no column of audio.
    """
    file = _open(shard)
    name, field = _audio_field(file.schema_arrow, shard)
    wanted, ends = iter(rows), row_group_ends(shard)
    row = next(wanted, None)
    start = 0
    for group, end in enumerate(ends):
        if row is None:
            return
        if row < end:
            position = start
            batches = file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[field])
            for batch in _damage_named(shard, batches):
                values = batch.column(name)
                while row is not None and row < position + len(values):
                    value = values[row - position].as_py()
                    yield (value.get("bytes") if isinstance(value, dict) else value) or b""
                    row = next(wanted, None)
                position += len(values)
                if row is None or row >= end:
                    break
        start = end


def read_row(path: Path) -> bytes:
    """Reads the audio of one row, `shard.parquet/17`.

    Raises:
        DataError: the file is damaged, or has no such row.
    """
    found = next(read_rows(path.parent, [int(path.name)]), None)
    if found is None:
        raise DataError(f"{path.parent} has no row {path.name}.")
    return found


def _read_shard(shard: Path) -> tuple[dict[str, list[str]], bool, dict[str, dict[str, str]]]:
    """Returns the columns as text, whether there is one of audio, and the names of class numbers by column."""
    file = _open(shard)
    schema = file.schema_arrow
    audio = _find_audio(schema)
    selected = [field.name for field in schema if field.name != audio and not _has_bytes(field.type)]
    if audio and _is_struct(schema.field(audio).type):
        selected.append(f"{audio}.path")
    content: dict[str, list[str]] = {}
    try:
        table = file.read(columns=selected)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise DataError(f"{shard} is damaged: {error}.") from error
    for name in table.column_names:
        values = table.column(name).to_pylist()
        if name == audio:
            content[AUDIO] = [to_text(value.get("path") if value else None) for value in values]
        else:
            content[name.strip().lower()] = [to_text(value) for value in values]
    if audio:
        content.setdefault(AUDIO, [""] * file.metadata.num_rows)
    return content, bool(audio), _class_names(schema)


def _class_names(schema: Any) -> dict[str, dict[str, str]]:
    """Reads the names of classes that Hugging Face's `datasets` stores beside the columns."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {
            name.strip().lower(): {"-1": ""}  # in the place of a label that is not known
            | {str(number): str(label) for number, label in enumerate(feature["names"])}
            for name, feature in features.items()
            if feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (TypeError, KeyError, ValueError, AttributeError):  # no such metadata
        return {}


def _find_audio(schema: Any) -> str:
    """Finds the column with the bytes of audio files: by Hugging Face's own note, by its name, or the only one."""
    found = [field.name for field in schema if _has_bytes(field.type)]
    kinds = _feature_kinds(schema)
    if not found and AUDIO in schema.names and _is_struct(schema.field(AUDIO).type):
        raise DataError(
            f'Column "{AUDIO}" holds decoded samples. Save the data set with the bytes of the files in it: '
            "datasets' Audio(decode=False), or push_to_hub, which does so."
        )
    by_kind = [name for name in found if kinds.get(name) == "Audio"]
    by_name = [name for name in found if name.strip().lower() in AUDIO_NAMES]
    others = [name for name in found if kinds.get(name) != "Image" and "image" not in name.lower()]
    return next(iter([*by_kind, *by_name, *others]), "")


def _feature_kinds(schema: Any) -> dict[str, str]:
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {name: str(feature.get("_type")) for name, feature in features.items()}
    except (TypeError, KeyError, ValueError, AttributeError):
        return {}


def _has_bytes(kind: Any) -> bool:
    """Whether a column holds bytes, or {bytes, path}."""
    import pyarrow  # noqa: PLC0415

    inner = [kind.field(number) for number in range(kind.num_fields)] if _is_struct(kind) else []
    return bool(
        any(part.name == "bytes" and _has_bytes(part.type) for part in inner)
        or pyarrow.types.is_binary(kind)
        or pyarrow.types.is_large_binary(kind)
    )


def _audio_field(schema: Any, shard: Path) -> tuple[str, str]:
    """Returns the name of the column of audio, and of the part of it that holds the bytes."""
    name = _find_audio(schema)
    if not name:
        raise DataError(f"{shard} has no column of audio (bytes). Found: {', '.join(schema.names)}.")
    return name, f"{name}.bytes" if _is_struct(schema.field(name).type) else name


def _is_struct(kind: Any) -> bool:
    import pyarrow  # noqa: PLC0415

    return bool(pyarrow.types.is_struct(kind))


def _open(shard: Path) -> Any:
    try:
        import pyarrow.parquet  # noqa: PLC0415 - takes a while to load
    except ImportError as error:
        raise DataError(f"{shard}: {INSTALL}") from error
    try:
        if reason := absence(shard):
            raise DataError(f"{shard} {reason}.")
        return pyarrow.parquet.ParquetFile(shard)
    except (OSError, ValueError) as error:
        raise DataError(f"{shard} is no whole Parquet file: {error}.") from error


def _damage_named(shard: Path, batches: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from batches
    except (OSError, ValueError) as error:
        raise DataError(f"{shard} is damaged: {error}.") from error
