"""Results for people: tables on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from esc_ensemble.terminal import can_draw


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table: boxed on a terminal, plain aligned columns elsewhere."""
    if can_draw(sys.stdout):
        from rich.console import Console  # noqa: PLC0415 - only terminals pay for it
        from rich.table import Table  # noqa: PLC0415

        table = Table(title=title, title_justify="left")
        for number, name in enumerate(header):
            if number == 0:  # names and paths are shown whole
                table.add_column(name, overflow="fold")
            else:
                table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*row)
        Console(markup=False).print(table)  # brackets in names are brackets
        return
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    print(title)
    for row in [header, *rows]:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        print("  " + "  ".join(cells).rstrip())


def percent(value: float) -> str:
    """Gives 0.9325 as 93.25 %."""
    return f"{100.0 * value:.2f} %"
