"""Programs that are started without standard streams, or whose reader leaves."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from esc_ensemble.__main__ import main
from esc_ensemble.display import print_table
from esc_ensemble.progress import progress, say
from esc_ensemble.terminal import can_draw, write_line

posix = pytest.mark.skipif(sys.platform == "win32", reason="descriptors are closed by a shell")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, closed()], ids=["none", "closed"])
def test_a_missing_stream_is_no_terminal_and_loses_lines(stream: io.StringIO | None) -> None:
    assert not can_draw(stream)
    write_line(stream, "lost")


@pytest.mark.parametrize("stream", [None, closed()], ids=["none", "closed"])
def test_news_without_stderr_never_reach_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stream: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    say("news")
    with progress("Work", 1) as advance:
        advance()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("names", [["stdout"], ["stderr"], ["stdout", "stderr", "stdin"]], ids="+".join)
@pytest.mark.parametrize("stream", [None, closed()], ids=["none", "closed"])
def test_a_command_needs_no_streams(
    monkeypatch: pytest.MonkeyPatch, synthetic_dir: Path, names: list[str], stream: io.StringIO | None
) -> None:
    for name in names:
        monkeypatch.setattr(sys, name, stream)
    for more in ([], ["--json"]):
        assert main(["data", "info", str(synthetic_dir), *more]) == 0
    assert main(["data", "info", "nowhere"]) == 2
    assert main(["--version"]) == 0
    assert main(["train-a", "--help"]) == 0
    assert main(["infer", "--help"]) == 0
    assert all(getattr(sys, name) is stream for name in names)


def test_tables_need_no_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    print_table("Title", ["", "top-1"], [["a", "0.5"]])


@posix
@pytest.mark.parametrize(
    ("closing", "has_stdout"), [(">&-", False), ("2>&-", True), (">&- 2>&-", False), ("<&- >&- 2>&-", False)]
)
def test_files_do_not_get_what_was_meant_for_a_closed_stream(
    tmp_path: Path, synthetic_dir: Path, closing: str, has_stdout: bool
) -> None:
    command = f'"{sys.executable}" -m esc_ensemble data folds "$1" --out folds.csv --json {closing}'
    done = subprocess.run(
        ["sh", "-c", command, "sh", str(synthetic_dir)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "\n{" not in (tmp_path / "folds.csv").read_text()
    if has_stdout:
        assert json.loads(done.stdout)["file"] == "folds.csv"


@posix
def test_a_closed_descriptor_is_taken_before_a_file_gets_its_number() -> None:
    code = (
        "import os\nfrom esc_ensemble.terminal import standard_streams\n"
        "with standard_streams(): print(os.open('.', os.O_RDONLY) > 2, flush=True); os.write(2, b'lost')"
    )
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" <&- 2>&-', sys.executable, code], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("True", 0)


@posix
def test_a_reader_of_news_that_leaves_stops_no_work(tmp_path: Path, synthetic_dir: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ["baseline", "--data", str(synthetic_dir), "--model.name", "majority", "--run", "m", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "esc_ensemble", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 0
    assert json.loads(done.stdout)["run"] == "runs/m"
    assert (tmp_path / "runs" / "m" / "metrics.json").exists()
