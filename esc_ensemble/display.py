"""Results for people: tables on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from esc_ensemble.terminal import can_draw


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table: boxed on a terminal, plain aligned columns elsewhere; figures to the right, words to the left."""
    figures = [any(row[column].lstrip("+-<")[:1].isdecimal() for row in rows) for column in range(len(header))]
    figures[:1] = [False]  # names, even of folds
    if can_draw(sys.stdout):
        from rich.console import Console  # noqa: PLC0415 - only terminals pay for it
        from rich.table import Table  # noqa: PLC0415

        table = Table(title=title, title_justify="left")
        for number, name in enumerate(header):
            if figures[number]:
                table.add_column(name, justify="right")
            else:  # names and paths are shown whole
                table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*row)
        Console(markup=False).print(table)  # brackets in names are brackets
        return
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    print(title)
    for row in [header, *rows]:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, figures, strict=True)
        ]
        print("  " + "  ".join(cells).rstrip())


def percent(value: float) -> str:
    """Gives 0.9325 as 93.25 %."""
    return f"{100.0 * value:.2f} %"
