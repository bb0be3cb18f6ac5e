from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from librosa.filters import mel

from esc_ensemble.baseline import mfcc
from esc_ensemble.baseline.mfcc import cache_statistics, chunk_statistics, mfcc_statistics
from esc_ensemble.config import DataConfig, MfccConfig
from esc_ensemble.data.cache import WaveformCache, build_cache
from esc_ensemble.data.catalog import load_catalog
from esc_ensemble.processes import map_chunks

RATE = 8000
SMALL = MfccConfig(n_mfcc=5, n_mels=20, n_fft=256, hop=128)


@pytest.fixture(scope="module")
def cache(synthetic_dir: Path, shared_cache_dir: Path) -> WaveformCache:
    data = DataConfig(sample_rate=RATE, clip_seconds=1.0)
    return build_cache(load_catalog(synthetic_dir), data, cache_dir=shared_cache_dir)[0]


def by_hand(waveform: np.ndarray, frontend: MfccConfig) -> np.ndarray:
    """Power of Hann frames, mel bands, decibels within 80 of the loudest, DCT-II: written out with numpy and SciPy."""
    half, n_fft = frontend.n_fft // 2, frontend.n_fft
    padded = np.pad(waveform.astype(np.float64), half)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    starts = range(0, len(padded) - n_fft + 1, frontend.hop)
    power = np.stack([np.abs(np.fft.rfft(window * padded[start : start + n_fft])) ** 2 for start in starts], axis=1)
    bands = mel(sr=RATE, n_fft=n_fft, n_mels=frontend.n_mels).astype(np.float64) @ power  # (F, L)
    decibels = 10 * np.log10(np.maximum(bands, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - 80)
    coefficients = scipy.fft.dct(decibels, axis=0, type=2, norm="ortho")[: frontend.n_mfcc]
    mean = coefficients.sum(axis=1) / coefficients.shape[1]
    deviation = np.sqrt(((coefficients - mean[:, None]) ** 2).sum(axis=1) / coefficients.shape[1])
    return np.concatenate([mean, deviation])


def test_statistics_are_those_worked_out_by_hand() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 440 * time) * np.exp(-3 * time) + 0.01 * rng.standard_normal(RATE)
    waveform = tone.astype(np.float32)
    np.testing.assert_allclose(mfcc_statistics(waveform, RATE, SMALL), by_hand(waveform, SMALL), rtol=1e-3, atol=1e-2)


def test_the_defaults_are_librosa_s_twenty_coefficients() -> None:
    waveform = np.random.default_rng(1).uniform(-0.3, 0.3, 22050).astype(np.float32)
    coefficients = librosa.feature.mfcc(y=waveform, sr=22050, n_mfcc=20)
    expected = np.concatenate([np.mean(coefficients, axis=1), np.std(coefficients, axis=1)])
    np.testing.assert_allclose(mfcc_statistics(waveform, 22050, MfccConfig()), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(256, 3000),
    st.sampled_from(["silence", "constant", "click", "full noise", "one bit", "square"]),
    st.integers(0, 2**16),
)
def test_statistics_are_finite_whatever_is_heard(n_samples: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = {
        "silence": np.zeros(n_samples),
        "constant": np.full(n_samples, rng.integers(-32768, 32768)),
        "click": np.where(np.arange(n_samples) == rng.integers(n_samples), 32767, 0),
        "full noise": rng.integers(-32768, 32768, n_samples),
        "one bit": rng.integers(0, 2, n_samples),
        "square": np.where(np.arange(n_samples) % 7 < 3, -32768, 32767),
    }[kind].astype(np.int16)
    (found,) = chunk_statistics(samples[None], [0, 100], RATE, SMALL)
    assert found.shape == (2, 10)
    assert np.isfinite(found).all()
    assert (found[:, 5:] >= 0).all()


def test_each_shift_is_that_of_the_shifted_waveform(cache: WaveformCache) -> None:
    index = np.array([3, 40])
    found = list(cache_statistics(cache, index, (-0.1, 0.0, 0.25), SMALL))
    for clip, statistics in zip(index, found, strict=True):
        waveform = cache.waveforms[clip].astype(np.float32) / 32768
        later = np.concatenate([waveform[-2000:], waveform[:-2000]])  # a quarter of a second later
        earlier = np.concatenate([waveform[800:], waveform[:800]])
        for place, shifted in enumerate((earlier, waveform, later)):
            np.testing.assert_array_equal(statistics[place], mfcc_statistics(shifted, RATE, SMALL))


def test_worker_processes_give_the_same(cache: WaveformCache, monkeypatch: pytest.MonkeyPatch) -> None:
    index = np.arange(99, 39, -1)
    alone = list(cache_statistics(cache, index, (0.0, 0.1), SMALL, n_workers=1))
    spawned: list[int] = []

    def counted(work: Any, chunks: Any, n_workers: int, doing: str) -> Iterator[Any]:
        spawned.append(n_workers)
        yield from map_chunks(work, chunks, n_workers, doing)

    monkeypatch.setattr(mfcc, "FEW_WAVEFORMS", 10)
    monkeypatch.setattr(mfcc, "map_chunks", counted)
    together = list(cache_statistics(cache, index, (0.0, 0.1), SMALL, n_workers=2))
    assert spawned == [2]
    np.testing.assert_array_equal(together, alone)
    assert len(alone) == 60


def test_no_clip_gives_nothing(cache: WaveformCache) -> None:
    assert list(cache_statistics(cache, np.zeros(0, dtype=np.int64), (0.0,), SMALL)) == []
