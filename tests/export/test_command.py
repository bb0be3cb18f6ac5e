"""`esc-ens export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esc_ensemble.__main__ import main
from esc_ensemble.export import pipeline
from esc_ensemble.export.evaluate import Accuracy
from esc_ensemble.infer import Classifier, find_audio
from tests.conftest import Made

Capture = pytest.CaptureFixture[str]


def export(made: Made, folder: Path, *flags: object) -> int:
    few = () if "--accuracy-clips" in flags else ("--accuracy-clips", 8)
    return main(["export", str(made.blend), *map(str, ("--exports", folder, "--check-clips", 2, *few, *flags))])


def test_all_kinds_of_files_and_one_card(made: Made, tmp_path: Path, capsys: Capture) -> None:
    assert export(made, tmp_path, "--format", "all", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    names = ["both.onnx", "both.torchscript.pt", "both.pt2"]
    assert [Path(each["file"]).name for each in result["files"]] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "both.md"])
    assert result["cards"] == [str(tmp_path / "both.md")]
    assert all(each["max_difference"] <= 1e-4 and each["ms"] > 0.0 for each in result["files"])


def test_each_member_gets_a_file_that_says_what_the_member_says(
    made: Made, synthetic_dir: Path, tmp_path: Path
) -> None:
    assert export(made, tmp_path, "--each-member") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"both{end}" for end in (".onnx", ".md", "-one.onnx", "-one.md", "-two.onnx", "-two.md")
    )
    paths = find_audio([synthetic_dir])[:4]
    files = [Classifier(tmp_path / f"both{end}.onnx", threads=1) for end in ("", "-one", "-two")]
    blend, one, two = ([each.probabilities for each in file.predict(paths)] for file in files)
    assert max(abs(a - b).max() for a, b in zip(one, two, strict=True)) > 1e-3
    assert [file.metadata["name"] for file in files] == ["both", "both-one", "both-two"]
    assert len(blend) == 4


@pytest.mark.parametrize(("precision", "name"), [("fp16", "both.fp16.onnx"), ("int8", "both.int8.onnx")])
def test_smaller_weights(made: Made, tmp_path: Path, capsys: Capture, precision: str, name: str) -> None:
    assert export(made, tmp_path, "--precision", precision, "--max-loss", 30, "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["files"]
    assert Path(result["file"]).name == name
    assert result["precision"] == precision
    assert result["accuracy"]["n_clips"] == 8
    assert Classifier(tmp_path / name, threads=1).metadata["precision"] == precision


def test_a_file_that_loses_too_much_is_not_written(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(pipeline, "measure_accuracy", lambda *_: Accuracy(100, 0.93, 0.95, 0.3, 0.2))
    assert export(made, tmp_path, "--precision", "int8") == 1
    message = capsys.readouterr().err
    assert "loses 2.00 points, and --max-loss allows 1" in message
    assert not list(tmp_path.iterdir())
    assert export(made, tmp_path, "--precision", "int8", "--max-loss", "2.1") == 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--format", "all", "--out", "x.onnx"), "--out names one file"),
        (("--each-member", "--out", "x.onnx"), "--out names one file"),
        (("--format", "torchscript", "--precision", "fp16"), "--precision fp16 is for --format onnx"),
        (("--format", "pt2", "--precision", "int8"), "--precision int8 is for --format onnx"),
        (("--precision", "int8", "--accuracy-clips", "0"), "must be measured"),
        (("--precision", "int4"), "int4"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_work(
    made: Made, tmp_path: Path, capsys: Capture, flags: tuple[str, ...], reason: str
) -> None:
    assert export(made, tmp_path, *flags) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert "Exporting" not in message


def test_without_the_data_a_file_in_full_precision_is_written_with_a_note(
    made: Made, synthetic_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.wav").write_bytes(find_audio([synthetic_dir])[0].read_bytes())
    assert export(made, tmp_path / "e", "--data", tmp_path / "other", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["files"][0]["accuracy"] is None
    assert "Note: An export's accuracy is measured on the clips" in captured.err
    assert export(made, tmp_path / "e", "--data", tmp_path / "other", "--precision", "int8") == 2


def test_files_that_are_no_exports_keep_their_place(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "folder.onnx").mkdir()
    for name, code, reason in (
        ("README.md", 2, "ends in .onnx"),
        ("README.onnx", 2, "is no model card"),
        ("folder.onnx", 1, "it is a folder"),
    ):
        assert main(["export", str(made.blend), "--out", str(tmp_path / name)]) == code
        assert reason in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "folder.onnx"]
    assert (tmp_path / "README.md").read_text() == "mine"
