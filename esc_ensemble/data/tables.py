"""Tables of clips as people have them: CSV and TSV of any encoding, JSON Lines, and Parquet.

CSV files may have a byte order mark, semicolons or tabs, quotes, spaces, ragged lines, and be UTF-8, UTF-16 or
Windows-1252.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from esc_ensemble.data.rows import CellTable, to_text
from esc_ensemble.errors import DataError

CSV_SUFFIXES = (".csv", ".tsv", ".tab")
TABLE_SUFFIXES = (*CSV_SUFFIXES, ".jsonl", ".ndjson", ".parquet")
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)


def read_cells(path: Path) -> CellTable:
    """Reads a table by its ending: CSV, TSV, JSON Lines or Parquet.

    Raises:
        DataError: the file cannot be read, is of another kind, or has no rows.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        from esc_ensemble.data.parquet import read_parquet_cells  # noqa: PLC0415 - pyarrow takes a while to load

        return read_parquet_cells((path,))
    if suffix in (".jsonl", ".ndjson"):
        return _read_json_lines(path)
    if suffix in CSV_SUFFIXES:
        return read_csv(path)
    raise DataError(f"{path} is no table. Name a file that ends in {', '.join(TABLE_SUFFIXES)}.")


def read_csv(path: Path) -> CellTable:
    """Reads a CSV file with a header line; the separator is a comma, semicolon or tab.

    Raises:
        DataError: the file cannot be read as CSV, has no header or no rows, or names a column twice.
    """
    text, notes = _read_text(path)
    if not text.strip():
        raise DataError(f"{path} is empty. It needs a header line and a row for each clip.")
    text, separator = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, problems = [], []
    columns: tuple[str, ...] = ()
    try:
        for raw in reader:
            cells = [cell.strip() for cell in raw]
            if not any(cells):
                continue
            if not columns:
                columns = tuple(_column(cell) for cell in cells)
            elif len(cells) != len(columns) and (len(cells) < len(columns) or any(cells[len(columns) :])):
                problems.append(f"line {reader.line_num}: {len(cells)} cells, the header has {len(columns)}")
            else:
                rows.append((reader.line_num, dict(zip(columns, cells, strict=False))))  # empty cells may follow
    except csv.Error as error:
        raise DataError(f"{path} is not valid CSV at line {reader.line_num}: {error}.") from error
    return _checked(path, CellTable(columns, tuple(rows), tuple(problems), notes))


def _separator(text: str) -> tuple[str, str]:
    """Returns a CSV file's text from its header on, and its separator; Excel may name that in a line of its own."""
    text = text.lstrip("\r\n ")
    first, _, rest = text.partition("\n")
    named = re.fullmatch(r"\"?sep=(.)\"?", first.strip(), re.IGNORECASE)
    if named:
        return rest, named[1]
    return text, max(",;\t", key=first.count)


def read_header(path: Path) -> tuple[str, ...]:
    """Returns the columns of a table without reading all of it where that can be avoided; none where it is none.

    A table whose header cannot be read has no columns here: reading it names what is wrong with it.
    """
    try:
        if path.suffix.lower() not in CSV_SUFFIXES:
            return read_cells(path).columns
        with path.open("rb") as file:
            head, _ = _decode(file.read(1 << 16), path, partial=True)
        head, separator = _separator(head)
        line = next((line for line in head.splitlines() if line.strip()), "")
        return tuple(_column(cell) for cell in next(csv.reader([line], delimiter=separator), []))
    except (DataError, OSError, csv.Error):
        return ()


def _read_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """Returns a file's text, and notes on how it was read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return _decode(raw, path)


def _decode(raw: bytes, path: Path, *, partial: bool = False) -> tuple[str, tuple[str, ...]]:
    """Decodes a table's bytes: UTF-16 by its mark or its zero bytes, else UTF-8, else Windows-1252.

    Raises:
        DataError: it is none of these.
    """
    encodings = ["utf-8-sig", "cp1252"]
    if raw[:2] in UTF16_MARKS:
        encodings = ["utf-16"]
    elif b"\0" in raw[:4]:
        encodings = ["utf-16-le" if raw[1:2] == b"\0" else "utf-16-be"]
    for encoding in encodings:
        try:
            text = raw.decode(encoding, errors="ignore" if partial and encoding != "cp1252" else "strict")
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        return text, (f"{path} is not UTF-8; read as Windows-1252.",) if encoding == "cp1252" else ()
    raise DataError(f"{path} is no text in UTF-8, UTF-16 or Windows-1252. Save it as a UTF-8 CSV file.")


def _column(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _read_json_lines(path: Path) -> CellTable:
    """Reads one JSON object a line, as `metadata.jsonl` of Hugging Face's audiofolder; nested values become JSON."""
    records: list[tuple[int, dict[str, Any]]] = []
    text, notes = _read_text(path)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path} is not valid JSON Lines at line {number}: {error}.") from error
        if not isinstance(record, dict):
            raise DataError(f"{path} is not valid JSON Lines at line {number}: it needs one object a line.")
        records.append((number, {_column(str(name)): value for name, value in record.items()}))
    columns = tuple(dict.fromkeys(name for _, record in records for name in record))
    rows = tuple((number, {name: to_text(record.get(name)) for name in columns}) for number, record in records)
    return _checked(path, CellTable(columns, rows, notes=notes))


def _checked(path: Path, table: CellTable) -> CellTable:
    named = [column for column in table.columns if column]  # a column of row numbers has no name in pandas' files
    twice = sorted({column for column in named if named.count(column) > 1})
    if twice:
        raise DataError(f'{path} has more than one column "{twice[0]}".')
    if not table.rows and not table.problems:
        raise DataError(f"{path} has a header line but no rows." if table.columns else f"{path} is empty.")
    return replace(table, columns=tuple(named))


def find_column(columns: Sequence[str], names: Sequence[str]) -> str:
    """Returns the first of `names` that is a column, or an empty string."""
    return next((name for name in names if name in columns), "")


def whole_number(text: str) -> int | None:
    """Reads the whole number in a cell, also as `3.0`, which is how spreadsheets and pandas may leave it."""
    text = text.strip()
    return int(text.split(".")[0]) if WHOLE.fullmatch(text) and len(text) < 20 else None


def number_in_name(name: str) -> int | None:
    """Reads a name that is a number, and written as one: `7`, but neither `007` nor `7.0`, which are names."""
    number = whole_number(name)
    return number if number is not None and str(number) == name else None


def plural(count: int, noun: str) -> str:
    """Returns `1 clip`, `2 clips`, `3 classes`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}es" if noun.endswith("s") else f"{count} {noun}s"
