"""`esc-ens infer`."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from esc_ensemble.__main__ import main
from esc_ensemble.infer import Classifier, find_audio
from tests.bare import run_bare, run_module
from tests.conftest import Exported
from tests.infer.clips import spoil, with_metadata


def infer(*arguments: object) -> int:
    return main(["infer", *map(str, arguments), "--threads", "1"])


def test_the_command_refuses_bad_input_with_one_message_and_writes_nothing(
    exported: Exported, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut, text, _ = spoil(clips)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "no.onnx").write_text("no model")
    unnamed, out = with_metadata(exported, tmp_path / "unnamed.onnx", None), tmp_path / "out.csv"
    cases = [
        (exported.onnx, cut),
        (exported.onnx, text),
        (exported.onnx, tmp_path / "nothing"),
        (exported.onnx, tmp_path / "gone.wav"),
        (exported.onnx,),
        (unnamed, clips),
        (tmp_path / "no.onnx", clips),
        (tmp_path / "gone.onnx", clips),
    ]
    for case in cases:
        assert infer(*case, "--out", out) == 2, case
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("esc-ens: ") == 1, captured.err
        assert "Traceback" not in captured.err
        assert "Unexpected" not in captured.err
        assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_command_skips_what_is_bad(
    exported: Exported, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(clips)
    assert infer(exported.onnx, clips, "--skip-bad", "--out", tmp_path / "out.csv") == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5
    assert "text.wav" in capsys.readouterr().err


def test_json_on_stdout_parses_with_the_news_on_stderr(
    exported: Exported, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(exported.onnx, clips, "--json", "--top", 2) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert len(found) == 5
    assert len(found[0]["top"]) == 2
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1.0, abs=1e-4)
    assert "Hearing" in captured.err


def test_without_out_or_json_a_table_is_printed(
    exported: Exported, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(exported.onnx, clips) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 5
    assert "top 3" in lines[1]
    assert lines[-1].count("%") == 3


@pytest.mark.parametrize("flag", ["--top", "--batch-size", "--threads"])
def test_counts_below_their_least_are_refused(
    exported: Exported, clips: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    assert main(["infer", str(exported.onnx), str(clips), flag, "-1"]) == 2
    assert flag in capsys.readouterr().err


def test_out_may_not_be_a_folder(exported: Exported, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert infer(exported.onnx, clips, "--out", clips) == 1
    assert "Cannot write" in capsys.readouterr().err


def test_a_bad_clip_keeps_the_samples_row(
    exported: Exported, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = find_audio([clips])[0]
    (bad, *_) = spoil(clips)
    sample, out = tmp_path / "sample.csv", tmp_path / "out.csv"
    sample.write_text(f"id,label\n{bad.stem},77\n{good.stem},0\n")
    assert infer(exported.onnx, good, bad, "--sample-submission", sample, "--out", out) == 2
    assert not out.exists()
    assert infer(exported.onnx, good, bad, "--sample-submission", sample, "--out", out, "--skip-bad") == 0
    assert out.read_text().splitlines()[1] == f"{bad.stem},77"
    assert "1 rows keep the sample's own values" in capsys.readouterr().err


def test_outputs_take_nothings_place(
    exported: Exported, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = find_audio([clips])[0]
    before = clip.read_bytes()
    (tmp_path / "sample.csv").write_text(f"id,label\n{clip.stem},dog\n")
    cases = [
        (("--out", clip), "has to end in .csv or .json"),
        (("--out", tmp_path / "a.txt"), "has to end in .csv or .json"),
        (("--out", tmp_path / "a.csv", "--timeline", tmp_path / "a.csv"), "for something else already"),
        (("--sample-submission", tmp_path / "sample.csv", "--out", tmp_path / "sample.csv"), "for something else"),
    ]
    for flags, reason in cases:
        assert infer(exported.onnx, clip, *flags) == 2
        assert reason in capsys.readouterr().err
    assert infer(exported.onnx, clip, "--out", exported.onnx / "a.csv") == 1
    captured = capsys.readouterr()
    assert "is a file, not a folder" in captured.err
    assert "Hearing" not in captured.err  # it is refused before the work
    assert clip.read_bytes() == before


def test_a_sample_submission_gives_its_form_to_out(
    exported: Exported, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = Classifier(exported.onnx)
    assert classifier.class_numbers == tuple(range(10))
    files = find_audio([clips])[::-1]
    sample, out = tmp_path / "sample.csv", tmp_path / "submission.csv"
    sample.write_text("fname,target\n" + "".join(f"{path.stem},0\n" for path in files))
    assert infer(exported.onnx, clips, "--sample-submission", sample, "--out", out) == 0
    with out.open(newline="") as handle:
        found = list(csv.reader(handle))
    expected = [[p.path.stem, str(p.probabilities.argmax())] for p in classifier.predict(files)]
    assert found == [["fname", "target"], *expected]
    assert "not known" not in capsys.readouterr().err

    out.unlink()
    sample.write_text("fname,target\nelsewhere,0\n")
    assert infer(exported.onnx, clips, "--sample-submission", sample, "--out", out) == 2
    assert "elsewhere was not predicted" in capsys.readouterr().err
    assert not out.exists()


def test_labels_decide_what_a_sample_gets(
    exported: Exported, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (prediction,) = Classifier(exported.onnx).predict(find_audio([clips])[:1])
    sample, out = tmp_path / "sample.csv", tmp_path / "submission.csv"
    name = prediction.top(1)[0][0]
    for column, labels, cell in (
        ("label", "names", name),
        ("label", "numbers", str(prediction.probabilities.argmax())),
        (name, "probabilities", f"{prediction.probabilities.max():.9g}"),
    ):
        sample.write_text(f"id,{column}\n{prediction.path.stem},0.5\n")
        told = ("--sample-submission", sample, "--out", out, "--labels", labels)
        assert infer(exported.onnx, prediction.path, *told) == 0
        assert out.read_text() == f"id,{column}\n{prediction.path.stem},{cell}\n"
    capsys.readouterr()
    assert infer(exported.onnx, clips, "--labels", "names") == 2
    assert "--sample-submission" in capsys.readouterr().err


def test_paths_may_come_from_stdin(
    exported: Exported, clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = find_audio([clips])[:2]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(str, files)) + "\n\n"))
    assert infer(exported.onnx, "-", "--json") == 0
    assert [row["file"] for row in json.loads(capsys.readouterr().out)] == [str(path) for path in files]


def test_a_timeline_of_long_recordings(exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(44100 * 3), 44100)
    assert infer(exported.onnx, path, "--timeline", tmp_path / "t.csv", "--overlap", "0.75") == 0
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["start_seconds"]) for row in rows] == pytest.approx(np.arange(9) * 0.25)
    news = capsys.readouterr().err
    assert "9 windows in" in news
    assert "middle" not in news
    assert infer(exported.onnx, path, "--json") == 0
    captured = capsys.readouterr()
    assert "1 of 1 files are longer than the 1 s that the model hears at once" in captured.err
    assert json.loads(captured.out)[0]["seconds"] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--overlap", "1"), "--overlap is 1"),
        (("--overlap", "x"), "must be from 0 to 1"),
        (("--threshold", "1.5"), "must be from 0 to 1"),
        (("--tpo", "3"), 'unknown flag "--tpo". Did you mean "--top"?'),
        (("--top", "x"), "must be a whole number"),
        (("--device", "tpu"), "--device"),
    ],
)
def test_flags_that_cannot_be_are_refused(
    exported: Exported, clips: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], reason: str
) -> None:
    assert main(["infer", str(exported.onnx), str(clips), *flags]) == 2
    assert reason in capsys.readouterr().err


def test_tta_asks_for_a_file_with_shifts(exported: Exported, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert infer(exported.onnx, clips, "--tta", "--json") == 0
    assert infer(exported.no_tta, clips, "--tta") == 2
    assert "without time shifts" in capsys.readouterr().err


def test_help_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["infer", "--help"]) == 0
    assert "--timeline" in capsys.readouterr().out


def test_the_smallest_installation_draws_no_bars(exported: Exported, clips: Path, infer_site: Path) -> None:
    program = """import sys
sys.stdout.isatty = sys.stderr.isatty = lambda: True  # as on a terminal
from esc_ensemble.__main__ import main
sys.exit(main(sys.argv[1:]))"""
    done = run_bare(infer_site, "-c", program, "infer", exported.onnx, clips)
    assert done.returncode == 0, done.stderr
    assert "top 1" in done.stdout
    assert "5/5 files" in done.stderr


def test_the_smallest_installation_says_what_it_lacks(infer_site: Path) -> None:
    done = run_module(infer_site, "esc_ensemble", "train-a")
    assert done.returncode == 2
    assert 'pip install "esc_ensemble[train]"' in done.stderr
    assert "Traceback" not in done.stderr
