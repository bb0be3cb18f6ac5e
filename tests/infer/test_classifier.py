from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch

from esc_ensemble.blend.apply import apply_blend
from esc_ensemble.data.audio import prepare
from esc_ensemble.errors import ConfigError, DataError, ModelFileError
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.parts import load_parts, mixing_of
from esc_ensemble.export.source import read_source
from esc_ensemble.infer import Classifier, Prediction, find_audio
from esc_ensemble.infer.output import write_predictions
from esc_ensemble.predict import shift_waveform
from tests.bare import importable, run_module
from tests.conftest import Exported, Made
from tests.infer.clips import spoil, with_metadata

ABOUT = {"schema": 2, "class_names": [*"abcdefghij"], "sample_rate": 8000, "clip_seconds": 1.0, "n_samples": 8000}
ABOUT |= {"tta": False, "members": []}
IMPOSSIBLE = ({"class_names": ["a"]}, {"class_names": None}, {"class_names": 3}, {"sample_rate": 0}, {"n_samples": "x"})


@pytest.fixture(scope="module")
def classifier(exported: Exported) -> Classifier:
    return Classifier(exported.onnx, threads=1)


def noise(n_clips: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, size=(n_clips, 8000)).astype(np.float32)


def test_predictions_without_torch_are_torchs(
    exported: Exported, made: Made, clips: Path, infer_site: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    assert importable(infer_site, "torch", "cyclopts", "pandas", "onnxruntime") == ["onnxruntime"]
    done = run_module(infer_site, "esc_ensemble", "infer", exported.onnx, clips, "--out", out)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert len(found) == 5
    content = read_source(made.blend)
    fused = FusedBlend(load_parts(content, made.blend), mixing_of(content)).eval()
    read = Classifier(exported.onnx).read
    with torch.inference_mode():
        expected = [fused(torch.from_numpy(read(Path(row["file"])))[None])[0].numpy() for row in found]
    np.testing.assert_allclose([list(row["probabilities"].values()) for row in found], expected, atol=1e-4)
    assert list(found[0]["probabilities"]) == content["class_names"]


def test_a_file_hears_what_was_predicted_of_the_clips_in_training(exported: Exported, made: Made) -> None:
    """Read by the trainers' own way, int16 cache and all, each model alone, against the file's own way."""
    content = read_source(made.blend)
    parts = load_parts(content, made.blend)
    data = parts[0].spec.data
    paths = [Path(path) for path in json.loads((made.runs[0] / "manifest.json").read_text())["clip_paths"][:5]]
    logits = []
    for part in parts:
        heard = [prepare(path, data.sample_rate, data.n_samples, data.fit, data.trim_db) for path in paths]
        waves = torch.from_numpy(np.stack(heard))
        shifted = shift_waveform(waves, part.shift_seconds, data.sample_rate)
        with torch.inference_mode():
            logits.append(np.stack([part.model(each).numpy() for each in shifted]))
    by_member = [logits[:2], logits[2:]]
    expected = apply_blend(content, by_member).probabilities
    found = [prediction.probabilities for prediction in Classifier(exported.onnx, threads=1).predict(paths)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_channel_is_taken_on_demand(exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier = Classifier(exported.onnx)
    assert classifier.channel == classifier.metadata["channel"] == 0
    left = 0.3 * np.sin(np.arange(8000) / 5)
    stereo, mono = tmp_path / "stereo.wav", tmp_path / "mono.wav"
    soundfile.write(stereo, np.stack([left, -left], axis=1), 8000)
    soundfile.write(mono, left, 8000)
    for windows in (False, True):
        list(classifier.predict([stereo], windows=windows))
        assert "--channel 1 takes the first" in capsys.readouterr().err
        first = Classifier(exported.onnx, channel=1)
        one, other = (each.probabilities for each in first.predict([stereo, mono], windows=windows))
        np.testing.assert_allclose(one, other, atol=1e-6)
        assert "cancel" not in capsys.readouterr().err


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_batch_size_does_not_matter(classifier: Classifier, clips: Path, batch_size: int) -> None:
    paths = find_audio([clips])
    found = list(classifier.predict(paths, batch_size=batch_size))
    assert [p.path for p in found] == paths
    expected = [classifier.listen(classifier.read(path)[None])[0] for path in paths]
    np.testing.assert_allclose([p.probabilities for p in found], expected, atol=1e-5)


def test_listen_takes_float64(classifier: Classifier) -> None:
    np.testing.assert_array_equal(classifier.listen(noise(2).astype(np.float64)), classifier.listen(noise(2)))


def test_a_prediction_names_its_top_classes_the_lower_first_among_equals() -> None:
    prediction = Prediction(Path("a.wav"), ("x", "y", "z"), np.array([0.25, 0.5, 0.25], dtype=np.float32), 1.0)
    assert prediction.top(3) == [("y", 0.5), ("x", 0.25), ("z", 0.25)]
    assert len(prediction.top(99)) == 3


# --- files that are refused


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no esc_ensemble metadata"),
        ("{", "damaged"),
        ("[]", "another version"),
        ('{"schema": 99}', "another version"),
        ('{"schema": 1, "class_names": ["a"]}', "another version"),
        ('{"schema": 2, "class_names": ["a"]}', "lacks sample_rate"),
        *((json.dumps(ABOUT | change), "is damaged: its metadata") for change in IMPOSSIBLE),
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


def test_a_missing_model_is_refused_with_the_one_that_may_be_meant(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        Classifier(tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match=r"Did you mean .*both\.onnx"):
        Classifier(exported.onnx.with_suffix(""))
    with pytest.raises(ModelFileError, match="is a folder"):
        Classifier(tmp_path)
    with pytest.raises(ModelFileError, match="is a file for torch"):
        Classifier(tmp_path / "m.torchscript.pt")


def test_a_model_that_gives_no_numbers_is_damaged(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.onnx)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.raw_data) > 400:
            tensor.raw_data = np.full(len(tensor.raw_data) // 4, np.nan, dtype=np.float32).tobytes()
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match="gives no numbers"):
        Classifier(tmp_path / "m.onnx").listen(noise(1))


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_names_of_files_need_not_be_text(classifier: Classifier, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.wav"))
    write_noise(tmp_path / "a.wav", 1.0).rename(path)
    found = list(classifier.predict([path]))
    for name in ("out.csv", "out.json"):
        write_predictions(tmp_path / name, found)
        assert b"\xff\xfe.wav" in (tmp_path / name).read_bytes()


@pytest.mark.parametrize("windows", [False, True])
def test_less_than_a_sample_is_refused(classifier: Classifier, tmp_path: Path, windows: bool) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(1), 192_000)
    with pytest.raises(DataError, match="shorter than one sample at 8000 Hz"):
        list(classifier.predict([tmp_path / "a.wav"], windows=windows))


def test_long_files_are_not_decoded_far_ahead(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_noise(tmp_path / f"{n}.wav", 1.0, seed=n) for n in range(6)]
    monkeypatch.setattr("esc_ensemble.infer.classifier.AHEAD_BYTES", 1)
    monkeypatch.setattr("esc_ensemble.infer.classifier.BATCH_SAMPLES", 1)
    read: list[Path] = []
    decode = classifier.read

    def note(path: Path) -> np.ndarray:
        read.append(path)
        return decode(path)

    monkeypatch.setattr(classifier, "read", note)
    for n, prediction in enumerate(classifier.predict(paths)):
        assert prediction.path == paths[n]
        assert len(read) <= n + 2


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


# --- clips of different lengths, and recordings


def write_noise(path: Path, seconds: float, rate: int = 8000, seed: int = 0) -> Path:
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate)), rate)
    return path


def test_clips_of_any_length_keep_their_order_and_are_heard_as_if_alone(classifier: Classifier, tmp_path: Path) -> None:
    lengths = (1.0, 0.3, 1.0, 2.5, 0.3, 0.01)
    paths = [write_noise(tmp_path / f"{n}.wav", seconds, seed=n) for n, seconds in enumerate(lengths)]
    together = list(classifier.predict(paths, batch_size=4))
    assert [prediction.path for prediction in together] == paths
    for prediction in together:
        (alone,) = classifier.predict([prediction.path])
        np.testing.assert_allclose(prediction.probabilities, alone.probabilities, atol=1e-5)


def test_paths_may_be_texts(classifier: Classifier, tmp_path: Path) -> None:
    (prediction,) = classifier.predict([str(write_noise(tmp_path / "a.wav", 1.0))])
    assert prediction.path == tmp_path / "a.wav"


def test_a_recording_is_heard_window_by_window_and_its_mean_counts(classifier: Classifier, tmp_path: Path) -> None:
    path = write_noise(tmp_path / "long.wav", 3.3)
    (prediction,) = classifier.predict([path], windows=True, overlap=0.5, batch_size=2)
    assert [window.start for window in prediction.windows] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.3]
    assert all(window.end - window.start == pytest.approx(1.0) for window in prediction.windows)
    whole = classifier.read(path)
    for window in prediction.windows:
        start = round(window.start * 8000)
        (expected,) = classifier.listen(whole[None, start : start + 8000])
        np.testing.assert_allclose(window.probabilities, expected, atol=1e-5)
    mean = np.mean([window.probabilities for window in prediction.windows], axis=0)
    np.testing.assert_allclose(prediction.probabilities, mean, atol=1e-6)


def test_without_windows_the_middle_is_heard(classifier: Classifier, tmp_path: Path) -> None:
    path = write_noise(tmp_path / "long.wav", 3.0)
    (prediction,) = classifier.predict([path])
    assert prediction.windows == ()
    (middle,) = classifier.listen(classifier.read(path)[None, 8000:16000])
    np.testing.assert_allclose(prediction.probabilities, middle, atol=1e-5)


def test_bad_recordings_are_named_together_too(classifier: Classifier, clips: Path) -> None:
    bad = spoil(clips)
    with pytest.raises(DataError) as caught:
        list(classifier.predict(find_audio([clips]), windows=True))
    assert all(str(path) in str(caught.value) for path in bad)
    good = list(classifier.predict(find_audio([clips]), windows=True, skip_bad=True))
    assert len(good) == 5


def test_a_threshold_leaves_out_what_is_less_probable() -> None:
    prediction = Prediction(Path("a.wav"), ("x", "y", "z"), np.array([0.2, 0.5, 0.3], dtype=np.float32), 1.0)
    assert prediction.top(3, threshold=0.3) == [("y", 0.5), ("z", pytest.approx(0.3))]
    assert prediction.top(3, threshold=0.6) == []


def test_a_gpu_that_is_not_there_is_told(exported: Exported) -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        Classifier(exported.onnx, device="cuda")


def test_a_stereo_clip_at_another_rate_is_heard(classifier: Classifier, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal((44100, 2)), 44100)
    (prediction,) = classifier.predict([tmp_path / "a.wav"])
    assert prediction.probabilities.sum() == pytest.approx(1.0, abs=1e-5)
