from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch

from esc_ensemble.__main__ import main
from esc_ensemble.errors import DataError, ModelFileError
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.parts import load_parts, mixing_of
from esc_ensemble.export.source import read_source
from esc_ensemble.infer import METADATA_KEY, Classifier, Prediction, find_audio, to_json, write_predictions
from tests.conftest import Exported, Made

BLOCK_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchaudio", "transformers", "accelerate"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
from esc_ensemble.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def clips(synthetic_dir: Path, tmp_path: Path) -> Path:
    """A folder with five clips."""
    for path in sorted((synthetic_dir / "audio").iterdir())[::20]:
        (tmp_path / "clips" / "deeper").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "clips" / "deeper" / path.name)
    return tmp_path / "clips"


@pytest.fixture(scope="module")
def classifier(exported: Exported) -> Classifier:
    return Classifier(exported.onnx, threads=1)


def noise(n_clips: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, size=(n_clips, 8000)).astype(np.float32)


def test_predictions_without_torch_are_torchs(exported: Exported, made: Made, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, "-c", BLOCK_TORCH, "infer", str(exported.onnx), str(clips), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert len(found) == 5
    content = read_source(made.blend)
    fused = FusedBlend(load_parts(content, made.blend), mixing_of(content)).eval()
    hear = Classifier(exported.onnx).prepare
    waves = torch.from_numpy(np.stack([hear(Path(row["file"])) for row in found]))
    with torch.inference_mode():
        expected = fused(waves).numpy()
    np.testing.assert_allclose([list(row["probabilities"].values()) for row in found], expected, atol=1e-4)
    assert list(found[0]["probabilities"]) == content["class_names"]


def test_shifting_outside_equals_shifts_inside(exported: Exported, clips: Path) -> None:
    paths = find_audio([clips])
    inside = [p.probabilities for p in Classifier(exported.onnx).predict(paths)]
    outside = [p.probabilities for p in Classifier(exported.no_tta).predict(paths, tta=True)]
    plain = [p.probabilities for p in Classifier(exported.no_tta).predict(paths)]
    np.testing.assert_allclose(outside, inside, atol=1e-4)
    assert np.abs(np.array(plain) - inside).max() > 1e-4


def test_tta_on_a_file_that_has_the_shifts_inside_changes_nothing(classifier: Classifier, clips: Path) -> None:
    paths = find_audio([clips])
    first, second = ([p.probabilities for p in classifier.predict(paths, tta=tta)] for tta in (False, True))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_batch_size_does_not_matter(classifier: Classifier, clips: Path, batch_size: int) -> None:
    paths = find_audio([clips])
    found = list(classifier.predict(paths, batch_size=batch_size))
    assert [p.path for p in found] == paths
    expected = classifier.listen(np.stack([classifier.prepare(path) for path in paths]))
    np.testing.assert_allclose([p.probabilities for p in found], expected, atol=1e-5)


def test_listen_takes_float64(classifier: Classifier) -> None:
    np.testing.assert_array_equal(classifier.listen(noise(2).astype(np.float64)), classifier.listen(noise(2)))


def test_a_prediction_names_its_top_classes_the_lower_first_among_equals() -> None:
    prediction = Prediction(Path("a.wav"), ("x", "y", "z"), np.array([0.25, 0.5, 0.25], dtype=np.float32))
    assert prediction.top(3) == [("y", 0.5), ("x", 0.25), ("z", 0.25)]
    assert len(prediction.top(99)) == 3


# --- files that are refused


def with_metadata(exported: Exported, path: Path, text: str | None) -> Path:
    model = onnx.load(exported.onnx)
    onnx.helper.set_model_props(model, {} if text is None else {METADATA_KEY: text})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no esc_ensemble metadata"),
        ("{", "damaged"),
        ("[]", "another version"),
        ('{"schema": 99}', "another version"),
        ('{"schema": 1, "class_names": ["a"]}', "lacks sample_rate"),
    ],
)
def test_a_model_without_sound_metadata_is_refused(
    exported: Exported, tmp_path: Path, text: str | None, reason: str
) -> None:
    with pytest.raises(ModelFileError, match=rf"m\.onnx.*{reason}"):
        Classifier(with_metadata(exported, tmp_path / "m.onnx", text))


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_what_is_no_onnx_file_is_refused(exported: Exported, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(exported.onnx.read_bytes()[:5000] if content is None else content)
    with pytest.raises(ModelFileError, match=r"m\.onnx"):
        Classifier(path)


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        Classifier(tmp_path / "m.onnx")


def spoil(clips: Path) -> list[Path]:
    whole = next(path for path in sorted(clips.rglob("*")) if path.suffix == ".wav")
    bad = [clips / "cut.wav", clips / "text.wav", clips / "empty.wav"]
    bad[0].write_bytes(whole.read_bytes()[:-2000])
    bad[1].write_text("this is a text\n" * 50)
    bad[2].write_bytes(b"")
    return bad


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_all_bad_files_are_named_together_whatever_the_batch_size(
    classifier: Classifier, clips: Path, batch_size: int
) -> None:
    bad = spoil(clips)
    with pytest.raises(DataError) as caught:
        list(classifier.predict(find_audio([clips]), batch_size=batch_size))
    assert all(str(path) in str(caught.value) for path in bad)
    assert "--skip-bad" in str(caught.value)


def test_skip_bad_leaves_out_what_it_names(
    classifier: Classifier, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = find_audio([clips])
    bad = spoil(clips)
    found = list(classifier.predict(find_audio([clips]), batch_size=2, skip_bad=True))
    assert [p.path for p in found] == sorted(good)
    message = capsys.readouterr().err
    assert all(str(path) in message for path in bad)


def test_find_audio_searches_folders_takes_files_as_they_are_and_none_twice(tmp_path: Path) -> None:
    for name in ("b.WAV", "a.flac", "notes.txt", "deep/c.ogg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    named = tmp_path / "notes.txt"
    assert find_audio([tmp_path]) == [tmp_path / name for name in ("a.flac", "b.WAV", "deep/c.ogg")]
    assert find_audio([named, tmp_path, tmp_path / "a.flac"])[0] == named
    assert len(find_audio([named, tmp_path, tmp_path / "a.flac"])) == 4


def test_missing_paths_and_empty_folders_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"(?s)empty: no audio file.*gone: no such file"):
        find_audio([tmp_path / "empty", tmp_path / "gone"])


# --- written predictions

PREDICTIONS = [
    Prediction(Path("ä, b.wav"), ("dog", 'say "hi"', "c"), np.array([0.2, 0.7, 0.1], dtype=np.float32)),
    Prediction(Path("c.wav"), ("dog", 'say "hi"', "c"), np.array([0.5, 0.25, 0.25], dtype=np.float32)),
]


def test_csv_holds_the_top_classes_and_every_probability(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", PREDICTIONS, k=2)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "file": "ä, b.wav",
        "top1": 'say "hi"',
        "top1_probability": "0.700000",
        "top2": "dog",
        "top2_probability": "0.200000",
        "dog": "0.200000",
        'say "hi"': "0.700000",
        "c": "0.100000",
    }
    assert len(rows) == 2


def test_json_holds_the_same(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.json", PREDICTIONS, k=1)
    found = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert found == [to_json(prediction, 1) for prediction in PREDICTIONS]
    assert found[0]["top"] == [{"class": 'say "hi"', "probability": 0.7}]


def test_more_top_classes_than_there_are_give_all(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", PREDICTIONS, k=50)
    header = (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "top3" in header
    assert "top4" not in header


# --- the command


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


def test_a_stereo_clip_at_another_rate_is_heard(classifier: Classifier, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal((44100, 2)), 44100)
    (prediction,) = classifier.predict([tmp_path / "a.wav"])
    assert prediction.probabilities.sum() == pytest.approx(1.0, abs=1e-5)


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
