from __future__ import annotations

import pytest

from esc_ensemble import progress as progress_module
from esc_ensemble.progress import progress


class Clock:
    """Seconds that pass when told."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_lines_come_at_intervals_and_at_the_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Work", 4) as advance:
        for seconds in (1.0, 11.0, 12.0, 13.0):
            clock.now = seconds
            advance(note="fine")
    assert capsys.readouterr().err.splitlines() == ["Work: 2/4 clips, 11 s left  fine", "Work: 4/4 clips, 13.0 s  fine"]


@pytest.mark.parametrize(("seconds", "n_lines"), [(4.0, 0), (30.0, 4)])
def test_work_in_passing_is_told_where_it_takes_long(
    clock: Clock, capsys: pytest.CaptureFixture[str], seconds: float, n_lines: int
) -> None:
    with progress("Work", 4, in_passing=True) as advance:
        for place in range(1, 5):
            clock.now = seconds * place / 2
            advance()
    assert len(capsys.readouterr().err.splitlines()) == n_lines
