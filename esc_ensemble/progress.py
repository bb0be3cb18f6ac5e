"""One progress display for all long work: a bar on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from esc_ensemble.terminal import can_draw, write_line

LINE_EVERY_SECONDS = 10.0


class _Style:
    lines = False


def use_lines() -> None:
    """Shows plain lines from now on, also on a terminal: for processes that share one."""
    _Style.lines = True


class Advance(Protocol):
    """Moves a display on by `n` and shows `note` beside it."""

    def __call__(self, n: int = 1, note: str = "") -> None: ...


def stay_silent(n: int = 1, note: str = "") -> None:
    """An `Advance` that shows nothing."""


def say(message: str) -> None:
    """Prints one line of news to stderr, where there is one; stdout stays free for results."""
    write_line(sys.stderr, message)


@contextmanager
def progress(
    description: str, total: int, unit: str = "clips", done: int = 0, *, in_passing: bool = False
) -> Iterator[Advance]:
    """Shows how far work has come, its speed and the time left.

    Args:
        description: what is being done, a few words.
        total: how many units there are.
        unit: what is counted.
        done: how many were finished before (a resumed run).
        in_passing: leave no trace of work that takes but a moment.

    Yields:
        A function to call after each piece of work.
    """
    if can_draw(sys.stderr) and not _Style.lines:
        with _bar(description, total, unit, done, in_passing=in_passing) as advance:
            yield advance
    else:
        yield _lines(description, total, unit, done, in_passing=in_passing)


@contextmanager
def _bar(description: str, total: int, unit: str, done: int, *, in_passing: bool) -> Iterator[Advance]:
    from rich.console import Console  # noqa: PLC0415 - a fifth of a second that plain output never needs
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=in_passing) as bar:
        task = bar.add_task(description, total=total, completed=done, note="")

        def advance(n: int = 1, note: str = "") -> None:
            bar.update(task, advance=n, note=note)

        yield advance


def _lines(description: str, total: int, unit: str, done: int, *, in_passing: bool) -> Advance:
    start = last = time.monotonic()
    first, count = done, done

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal last, count
        count += n
        now = time.monotonic()
        if now - last < LINE_EVERY_SECONDS and (count < total or (in_passing and last == start)):
            return
        last = now
        rate = (count - first) / max(now - start, 1e-9)
        left = f", {(total - count) / rate:.0f} s left" if count < total and rate > 0 else f", {now - start:.1f} s"
        say(f"{description}: {count}/{total} {unit}{left}{'  ' + note if note else ''}")

    return advance
