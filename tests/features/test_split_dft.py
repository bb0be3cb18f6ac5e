from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.features.split_dft import SplitDft


def power(split: SplitDft, waveform: np.ndarray, n_fft: int) -> np.ndarray:
    """The module's bins put back into their order by filters that each hold one bin."""
    bins = split.spread(np.eye(n_fft // 2 + 1, dtype=np.float32))
    return np.asarray(split(torch.from_numpy(waveform)).numpy() @ bins.T)


@settings(max_examples=60, deadline=None)
@given(
    n_fft=st.integers(2, 150),
    hop=st.integers(1, 90),
    n_frames=st.integers(1, 4),
    rest=st.integers(0, 50),
    seed=st.integers(0, 9),
)
def test_it_is_numpys_fft_for_any_length_and_hop(n_fft: int, hop: int, n_frames: int, rest: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    window = rng.uniform(0.1, 1.0, n_fft)
    waveform = rng.normal(size=(2, n_fft + (n_frames - 1) * hop + rest % hop)).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(waveform, n_fft, axis=1)[:, ::hop]
    expected = np.abs(np.fft.rfft(frames * window)) ** 2  # in float64
    assert expected.shape[1] == n_frames
    found = power(SplitDft(window, hop), waveform, n_fft)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * expected.max())


@pytest.mark.parametrize("n_fft", [512, 1000, 1024, 2048, 997])
def test_real_lengths(n_fft: int) -> None:
    waveform = np.random.default_rng(0).normal(size=(1, 3 * n_fft)).astype(np.float32)
    split = SplitDft(np.hanning(n_fft), n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(waveform, n_fft, axis=1)[:, :: n_fft // 2]
    expected = np.abs(np.fft.rfft(frames * np.hanning(n_fft))) ** 2
    np.testing.assert_allclose(power(split, waveform, n_fft), expected, rtol=1e-3, atol=1e-6 * expected.max())


def test_silence_is_exactly_zero() -> None:
    assert not SplitDft(np.hanning(64), 32)(torch.zeros(2, 256)).any()


def test_most_multiplications_are_saved() -> None:
    split = SplitDft(np.hanning(1024), 640)
    by_frame = split.by_row.numel() * split.n_columns + split.n_kept * split.by_column.numel()
    assert by_frame < 0.11 * 1024 * 2 * 513
