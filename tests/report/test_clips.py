from __future__ import annotations

import io
import json
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from esc_ensemble.config import DataConfig
from esc_ensemble.data.audio import prepare
from esc_ensemble.models.checkpoint import load_checkpoint
from esc_ensemble.report import Evidence, load
from esc_ensemble.report.clips import audio_uri, draw, find_hearing, make_media, narrowed, png_uri, to_bytes
from esc_ensemble.report.ranking import choose_clips, ranked_unsure, ranked_wrong
from esc_ensemble.report.recordings import find_recordings, hear
from tests.conftest import Made
from tests.report.blends import blend_real
from tests.tiny import tiny_spec


def bytes_of(uri: str) -> bytes:
    return b64decode(uri.split(",", 1)[1])


def chirp(sample_rate: int, seconds: float = 2.0) -> np.ndarray:
    time = np.arange(round(sample_rate * seconds)) / sample_rate
    return (0.5 * np.sin(2 * np.pi * (200 + 700 * time) * time)).astype(np.float32)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 32000])
def test_mp3_keeps_length_and_time(sample_rate: int) -> None:
    waveform = chirp(sample_rate)
    decoded, rate = soundfile.read(io.BytesIO(bytes_of(audio_uri(waveform, sample_rate))), dtype="float32")
    assert rate == sample_rate and len(decoded) == len(waveform)
    part = slice(sample_rate // 2, sample_rate)
    lags = np.correlate(decoded[part], waveform[part], mode="full")
    assert abs(int(lags.argmax()) - (sample_rate - sample_rate // 2 - 1)) <= 1
    assert np.corrcoef(decoded[part], waveform[part])[0, 1] > 0.99


@pytest.mark.parametrize(("given", "expected"), [(44100, 32000), (4000, 8000), (20000, 16000), (96000, 32000)])
def test_rates_that_mp3_lacks_are_resampled(given: int, expected: int) -> None:
    decoded, rate = soundfile.read(io.BytesIO(bytes_of(audio_uri(chirp(given), given))))
    assert rate == expected
    assert len(decoded) / rate == pytest.approx(2.0, abs=1e-3)


def test_a_picture_has_low_bands_at_the_bottom() -> None:
    values = np.zeros((4, 10), dtype=np.float32)
    values[0] = 1.0
    assert to_bytes(values)[-1].min() == 255 and to_bytes(values)[0].max() == 0
    image = Image.open(io.BytesIO(bytes_of(png_uri(to_bytes(values)))))
    assert image.size == (10, 4) and image.mode == "P"
    colours = np.asarray(image.convert("RGB"))
    assert colours[-1].sum() > colours[0].sum()


def test_long_pictures_are_narrowed_by_means() -> None:
    values = np.arange(20.0).reshape(2, 10)
    np.testing.assert_allclose(narrowed(values, 5), [[0.5, 2.5, 4.5, 6.5, 8.5], [10.5, 12.5, 14.5, 16.5, 18.5]])
    assert narrowed(values, 3).shape == (2, 3)
    np.testing.assert_array_equal(narrowed(values, 10), values)


def test_a_silent_picture_is_drawn_too() -> None:
    assert to_bytes(np.zeros((4, 10))).shape == (4, 10)


def test_the_picture_is_the_front_ends_output(made: Made) -> None:
    evidence = load(made.runs[0])
    model, spec = load_checkpoint(made.runs[0] / "fold-1")
    path = find_recordings(evidence).paths[str(evidence.clip_ids[0])]
    waveform = hear(path, spec.data).waveform
    drawn = draw(waveform, model.frontend, spec.data.sample_rate)  # type: ignore[arg-type]
    with torch.inference_mode():
        features = model.frontend(torch.from_numpy(waveform)[None])[0].numpy()
    assert [picture["title"] for picture in drawn["pictures"]] == ["log-mel", "PCEN"]
    size = Image.open(io.BytesIO(bytes_of(drawn["pictures"][1]["uri"]))).size
    assert size == (features.shape[2], features.shape[1])
    # The first frame of the DFT is centred on n_fft / 2 = 256 samples; a picture's column is one hop of 640 wide.
    assert drawn["span"][0] == pytest.approx((256 - 320) / 8000)
    assert drawn["span"][1] - drawn["span"][0] == pytest.approx(features.shape[2] * 640 / 8000)
    heights = [height for _, height in drawn["ticks"]]
    assert heights == sorted(heights) and heights[0] > 0 and heights[-1] < 1


def test_what_is_heard_is_what_training_heard(made: Made) -> None:
    evidence = load(made.runs[0])
    path = next(iter(find_recordings(evidence).paths.values()))
    data = DataConfig(sample_rate=8000, clip_seconds=3.0)
    np.testing.assert_array_equal(hear(path, data).waveform, prepare(path, 8000, 24000, "tile", 60.0))
    windowed = hear(path, DataConfig(sample_rate=8000, clip_seconds=3.0, window_seconds=1.0))
    np.testing.assert_array_equal(windowed.waveform, hear(path, data).waveform[8000:16000])


def test_a_short_clip_tells_where_it_starts_over(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", chirp(8000, 0.5), 8000)
    assert hear(tmp_path / "a.wav", DataConfig(sample_rate=8000, clip_seconds=2.0)).own_seconds == pytest.approx(0.5)


def test_the_surest_wrong_and_the_least_sure_right_come_first(evidence: Evidence) -> None:
    wrong, unsure = ranked_wrong(evidence), ranked_unsure(evidence)
    assert (evidence.predicted[wrong] != evidence.labels[wrong]).all()
    assert (evidence.predicted[unsure] == evidence.labels[unsure]).all()
    assert len(wrong) + len(unsure) == 60
    sure = evidence.probabilities.max(axis=1)
    assert (np.diff(sure[wrong]) <= 0).all() and (np.diff(sure[unsure]) >= 0).all()
    chosen = choose_clips(evidence, 4, 12)
    assert chosen == [wrong[0], unsure[0], wrong[1], unsure[1]]
    everything = choose_clips(evidence, 1000, 2)
    assert sorted(everything) == list(range(60))


def test_ears_are_a_member_with_a_spectrogram(made: Made, evidence: Evidence, tmp_path: Path) -> None:
    hearing = find_hearing(load(blend_real(tmp_path / "mix", made.runs)))
    assert hearing.member is not None and hearing.data.sample_rate == 8000
    assert find_hearing(evidence).member is None
    assert "No settings are at hand" in find_hearing(evidence).caption


def test_a_member_that_hears_waveforms_lends_its_rate_alone(evidence: Evidence, tmp_path: Path) -> None:
    spec = tiny_spec("wave_backbone")
    (tmp_path / "fold-1").mkdir()
    (tmp_path / "fold-1" / "model.json").write_text(json.dumps({"schema": 1, "run": "b", "fold": 1, **spec.to_json()}))
    member = replace(evidence.members[0], name="b", folder=tmp_path, checkpoints=(1,))
    hearing = find_hearing(replace(evidence, members=(member, evidence.members[1])))
    assert hearing.member is None and hearing.data.sample_rate == spec.data.sample_rate
    assert hearing.caption.startswith("b hears the waveform itself")


def test_a_member_without_models_is_cut_by_its_settings(evidence: Evidence, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {sample_rate: 22050}\nmodel: {name: mfcc}\n")
    member = replace(evidence.members[0], name="mfcc", folder=tmp_path, config_text="there is one")
    hearing = find_hearing(replace(evidence, members=(member, evidence.members[1])))
    assert hearing.member is None and hearing.data.sample_rate == 22050
    assert "as mfcc's settings say" in hearing.caption
    (tmp_path / "config.yaml").write_text("data: of another framework\n")
    assert "No settings" in find_hearing(replace(evidence, members=(member, evidence.members[1]))).caption


def test_a_clip_that_cannot_be_decoded_is_told(made: Made, tmp_path: Path) -> None:
    evidence = load(made.runs[0])
    recordings = find_recordings(evidence)
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"nothing")
    first, second = map(str, evidence.clip_ids[:2])
    some = type(recordings)({first: broken, second: recordings.paths[second]})
    media = make_media(evidence, some, find_hearing(evidence), [0, 1, 2])
    assert list(media.clips) == [1]
    assert "broken.wav" in media.problems[0]
