"""Processes that work together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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
    if kind == "gone":
        os._exit(3)
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
    ("kind", "message"),
    [
        ("killed", "was killed; most often the memory"),
        ("gone", r"exit code 3.*__main__"),
        ("wrong", "ZeroDivision"),
    ],
)
def test_a_death_or_a_fault_is_told(kind: str, message: str) -> None:
    with pytest.raises(WorkError, match=message):
        run_together(crash, [(kind,)])


def test_ctrl_c_on_a_terminal_does_not_reach_a_process_that_is_starting(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from esc_ensemble.processes import run_together\n"
        "if __name__ != '__main__':\n"
        f"    Path({str(tmp_path)!r}, f'starting-{{os.getpid()}}').touch()\n"
        "    time.sleep(1)\n"
        "else:\n"
        "    run_together(print, [('done',)])\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (starting := list(tmp_path.glob("starting-*"))):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(int(starting[0].name.partition("-")[2]), signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "done\n", "")
