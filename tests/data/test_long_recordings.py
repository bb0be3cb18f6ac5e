"""Recordings that are not held in memory, and channels: the same samples, block by block."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from esc_ensemble.config import DataConfig
from esc_ensemble.data import audio, decoding
from esc_ensemble.data.audio import Recipe, decode, prepare, prepare_blocks
from esc_ensemble.data.cache import build_cache
from esc_ensemble.data.catalog import load_catalog
from esc_ensemble.data.rows import ReadOptions
from esc_ensemble.data.streams import Spliced
from esc_ensemble.errors import DataError
from esc_ensemble.predict import predict_logits
from esc_ensemble.training.step import TrainingData

RATE = 8000


def recording(path: Path, n_samples: int, n_silent: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    wave = 0.3 * rng.standard_normal(n_samples).clip(-3, 3)
    wave[:n_silent] = wave[len(wave) - n_silent :] = 0.0
    soundfile.write(path, wave, 11025, subtype="PCM_16")
    return path


@pytest.mark.parametrize("fit", ["tile", "pad"])
@pytest.mark.parametrize("trim_db", [0.0, 60.0])
@pytest.mark.parametrize("n_samples", [3000, 20_000, 90_000])
def test_what_is_long_is_prepared_alike_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: str, trim_db: float, n_samples: int
) -> None:
    path = recording(tmp_path / "a.wav", 40_000, 5_011)
    recipe = Recipe(RATE, n_samples, fit, trim_db)  # type: ignore[arg-type]
    whole = prepare(path, RATE, n_samples, fit, trim_db)  # type: ignore[arg-type]
    monkeypatch.setattr(audio, "LONG_SAMPLES", 7_000)
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 1_500)
    blocks = list(prepare_blocks(path, recipe))
    assert max(map(len, blocks)) <= 7_000
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_a_long_silent_recording_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(30_000), RATE)
    monkeypatch.setattr(audio, "LONG_SAMPLES", 7_000)
    assert not prepare(tmp_path / "a.wav", RATE, 25_000, "tile", 60.0).any()


def long_set(folder: Path) -> Path:
    for number in range(6):
        path = folder / f"class{number % 2}" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        recording(path, 30_000 + 1_000 * number, 2_000, number)
    return folder


def test_a_cache_of_long_recordings_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = load_catalog(long_set(tmp_path / "set"), ReadOptions(n_folds=2))
    data = DataConfig(sample_rate=RATE, clip_seconds=2.0)
    expected, _ = build_cache(catalog, data, cache_dir=tmp_path / "a")
    for module in (audio, decoding):
        monkeypatch.setattr(module, "LONG_SAMPLES", 5_000)
    found, _ = build_cache(catalog, data, cache_dir=tmp_path / "b", n_workers=1)
    np.testing.assert_array_equal(found.waveforms, expected.waveforms)
    left = {path.suffix for path in (tmp_path / "b").iterdir()}
    assert left <= {".npy", ".json", ".lock"}


def test_windows_are_parts_of_waveforms(tmp_path: Path) -> None:
    catalog = load_catalog(long_set(tmp_path / "set"), ReadOptions(n_folds=2))
    cache, _ = build_cache(catalog, DataConfig(sample_rate=RATE, clip_seconds=2.0))
    index, starts = np.array([5, 0, 5]), np.array([0, 777, cache.n_samples - 400])
    found = cache.windows(index, starts, 400)
    for row, clip, start in zip(found, index, starts, strict=True):
        np.testing.assert_array_equal(row, cache.waveforms[clip, start : start + 400])
    # Training reads two windows of each clip, evaluation the windows of the shifts alone.
    data = TrainingData(
        cache.batch,
        catalog.labels,
        index,
        index[:0],
        2,
        RATE,
        window_seconds=0.25,
        read_windows=cache.windows,
        n_samples=cache.n_samples,
    )
    torch.manual_seed(3)
    part = data.read(index)
    assert part.shape == (3, 4000)
    assert any(np.array_equal(part[0], cache.waveforms[5, start : start + 4000]) for start in range(12_001))
    model = nn.Sequential(nn.LazyLinear(2))
    how = {"sample_rate": RATE, "n_classes": 2, "device": torch.device("cpu"), "window_seconds": 0.25}
    for shifts in ((-0.5, 0.0, 0.25), (0.0, 0.9)):  # the last goes over the end, where a shift is cyclic
        both = [
            predict_logits(model, cache.batch, index, shifts, **how, **more)  # type: ignore[arg-type]
            for more in ({}, {"read_windows": cache.windows, "n_samples": cache.n_samples})
        ]
        np.testing.assert_array_equal(both[0], both[1])


def test_channels_that_cancel_are_reported_and_one_can_be_taken(tmp_path: Path) -> None:
    left = 0.4 * np.sin(np.arange(8000) / 7)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([left, -0.99 * left], axis=1), RATE, subtype="FLOAT")
    notes: list[str] = []
    assert np.abs(decode(path, RATE, note=notes.append)).max() < 0.01
    assert "cancel" in notes[0]
    assert "data.channel 1" in notes[0]
    for channel, factor in ((1, 1.0), (2, -0.99), (3, -0.99)):
        notes.clear()
        np.testing.assert_allclose(decode(path, RATE, channel=channel, note=notes.append), factor * left, atol=1e-6)
        assert not notes
    soundfile.write(path, np.stack([left, np.roll(left, 2000)], axis=1), RATE)
    decode(path, RATE, note=notes.append)
    assert not notes


def test_the_cache_names_clips_whose_channels_cancel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = long_set(tmp_path / "set")
    wave, rate = soundfile.read(folder / "class0" / "0.wav")
    soundfile.write(folder / "class0" / "0.wav", np.stack([wave, -wave], axis=1), rate)
    catalog = load_catalog(folder, ReadOptions(n_folds=2))
    build_cache(catalog, DataConfig(sample_rate=RATE, clip_seconds=2.0))
    assert "0.wav: its channels cancel" in capsys.readouterr().err
    cache, _ = build_cache(catalog, DataConfig(sample_rate=RATE, clip_seconds=2.0, channel=1))
    (place,) = [number for number, clip in enumerate(catalog.clips) if clip.path.name == "0.wav"]
    assert np.abs(cache.waveforms[place]).max() > 3000
    assert "cancel" not in capsys.readouterr().err


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_spliced_file_is_its_parts(data: st.DataObject) -> None:
    content = data.draw(st.binary(min_size=1, max_size=300))
    ranges = st.tuples(st.integers(0, len(content)), st.integers(0, len(content))).map(
        lambda pair: (min(pair), max(pair))
    )
    parts = data.draw(st.lists(st.one_of(st.binary(min_size=1, max_size=20), ranges), min_size=1, max_size=8))
    expected = b"".join(part if isinstance(part, bytes) else content[part[0] : part[1]] for part in parts)
    spliced = Spliced(io.BytesIO(content), parts)
    assert spliced.read() == expected
    for _ in range(5):
        place, n_bytes = data.draw(st.integers(0, len(expected))), data.draw(st.integers(0, 60))
        spliced.seek(place)
        assert spliced.read(n_bytes) == expected[place : place + n_bytes]
        assert spliced.tell() == min(len(expected), place + n_bytes)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damage_ends_in_a_message_or_in_samples(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["WAV", "AIFF", "FLAC", "OGG", "MP3", "AU", "CAF", "W64", "RF64"]))
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.5 * np.sin(np.arange(4000) / 5), RATE, format=kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    content = content[data.draw(st.integers(0, 50)) :][: data.draw(st.integers(0, len(content)))]
    try:
        assert np.isfinite(decode(io.BytesIO(content), RATE)).all()
    except DataError as error:
        assert len(str(error)) > 20
