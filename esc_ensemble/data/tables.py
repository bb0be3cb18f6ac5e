"""CSV files as people make them: a byte order mark, semicolons, quotes, spaces, ragged lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from esc_ensemble.errors import DataError


@dataclass(frozen=True)
class CsvTable:
    """The cells of a CSV file as stripped text, by column name in lower case."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]
    """Line number and cells."""
    problems: tuple[str, ...]
    """Lines with more or fewer cells than there are columns."""


def read_csv(path: Path) -> CsvTable:
    """Reads a CSV file with a header line; the separator is a comma, semicolon or tab.

    Raises:
        DataError: the file cannot be read as UTF-8 CSV, has no header or no rows, or names a column twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}). Save it as a UTF-8 CSV file.") from error
    if not text.strip():
        raise DataError(f"{path} is empty. It needs a header line and a row for each clip.")
    header_line = text.lstrip().splitlines()[0]
    separator = max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, problems = [], []
    columns: tuple[str, ...] = ()
    try:
        for raw in reader:
            cells = [cell.strip() for cell in raw]
            if not any(cells):
                continue
            if not columns:
                columns = tuple(cell.lower() for cell in cells)
            elif len(cells) != len(columns):
                problems.append(f"line {reader.line_num}: {len(cells)} cells, the header has {len(columns)}")
            else:
                rows.append((reader.line_num, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise DataError(f"{path} is not valid CSV at line {reader.line_num}: {error}.") from error
    if len(set(columns)) < len(columns):
        twice = sorted({column for column in columns if columns.count(column) > 1})
        raise DataError(f'{path} has more than one column "{twice[0]}".')
    if not rows and not problems:
        raise DataError(f"{path} has a header line but no rows.")
    return CsvTable(columns, tuple(rows), tuple(problems))


def find_column(table: CsvTable, names: Sequence[str]) -> str:
    """Gives the first of `names` that is a column, or an empty string."""
    return next((name for name in names if name in table.columns), "")


def whole_number(text: str) -> int | None:
    """Reads a whole number, also as `3.0`, which is how spreadsheets and pandas may leave it."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else None


def plural(count: int, noun: str) -> str:
    """Gives `1 clip`, `2 clips`, `3 classes`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}es" if noun.endswith("s") else f"{count} {noun}s"
