"""Processes that work together."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from esc_ensemble.errors import DataError, WorkError
from esc_ensemble.processes import run_together


def write_number(folder: Path, number: int) -> None:
    (folder / str(number)).write_text(str(os.getpid()))


def fail_or_wait(folder: Path, number: int) -> None:
    write_number(folder, number)
    if number == 0:
        raise DataError("clip 7 is bad")
    time.sleep(600)


def crash(kind: str) -> None:
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ZeroDivisionError(kind)


def test_each_share_has_a_process_of_its_own(tmp_path: Path) -> None:
    run_together(write_number, [(tmp_path, number) for number in range(3)])
    pids = {(tmp_path / str(number)).read_text() for number in range(3)}
    assert len(pids) == 3
    assert str(os.getpid()) not in pids


def test_the_first_failure_is_raised_and_ends_the_others(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match="clip 7 is bad"):
        run_together(fail_or_wait, [(tmp_path, number) for number in range(2)])
    assert time.monotonic() - start < 60
    other = tmp_path / "1"
    if other.exists():  # it may have been ended before it began
        with pytest.raises(ProcessLookupError):
            os.kill(int(other.read_text()), 0)


@pytest.mark.parametrize(
    ("kind", "message"), [("killed", "was killed; most often the memory"), ("wrong", "ZeroDivision")]
)
def test_a_death_or_a_fault_is_told(kind: str, message: str) -> None:
    with pytest.raises(WorkError, match=message):
        run_together(crash, [(kind,)])
