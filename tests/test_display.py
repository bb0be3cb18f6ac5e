from __future__ import annotations

import sys

import pytest

from esc_ensemble.display import percent, print_table
from esc_ensemble.errors import MAX_LISTED, did_you_mean, list_problems
from esc_ensemble.progress import progress


def test_a_table_off_a_terminal_is_plain_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Title", ["", "top-1"], [["a", "0.5"], ["longer", "0.25"]])
    assert capsys.readouterr().out == "Title\n          top-1\n  a         0.5\n  longer   0.25\n"


def test_figures_stand_to_the_right_and_words_to_the_left(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Title", ["", "gain", "file"], [["a", "+0.5", "x"], ["b", "-10.5", "longer"]])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines == ["      gain  file", "  a   +0.5  x", "  b  -10.5  longer"]


def test_a_table_without_rows_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Title", ["x", "y"], [])
    assert capsys.readouterr().out == "Title\n  x  y\n"


def test_a_table_on_a_terminal_holds_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    print_table("Title", ["", "top-1"], [["a", "0.5"]])
    out = capsys.readouterr().out
    assert all(text in out for text in ("Title", "top-1", "a", "0.5"))


@pytest.mark.parametrize(("value", "text"), [(0.9325, "93.25 %"), (0.0, "0.00 %"), (1.0, "100.00 %")])
def test_percent(value: float, text: str) -> None:
    assert percent(value) == text


@pytest.mark.parametrize("on_terminal", [False, True])
def test_progress_goes_to_stderr_and_tells_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], on_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal, raising=False)
    with progress("Work", 3, unit="things", done=1) as advance:
        advance()
        advance(note="loss 0.5")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3/3" in captured.err
    assert "things" in captured.err
    assert "Work" in captured.err


def test_many_problems_are_cut_and_counted() -> None:
    text = list_problems("Head:", [f"problem {n}" for n in range(MAX_LISTED + 7)], "Do this.")
    lines = text.splitlines()
    assert lines[0] == "Head:"
    assert len(lines) == 1 + MAX_LISTED + 1 + 1
    assert lines[-2:] == ["  ... and 7 more", "Do this."]


def test_the_nearest_name_is_offered_or_all_are_listed() -> None:
    assert did_you_mean("epoch", ["epochs", "seed"]) == ' Did you mean "epochs"?'
    assert did_you_mean("zzz", ["seed", "epochs"]) == " Known: epochs, seed."
    assert did_you_mean("x", []) == ""
