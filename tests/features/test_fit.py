from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.data.audio import fit_to_length, trim_silence
from esc_ensemble.features.fit import FitToLength

SAMPLE_RATE = 1000  # frames of 10 samples


def expected(waveform: np.ndarray, n_samples: int, fit: str, trim_db: float) -> np.ndarray:
    return fit_to_length(trim_silence(waveform, SAMPLE_RATE, trim_db), n_samples, fit)  # type: ignore[arg-type]


@st.composite
def clips(draw: st.DrawFn) -> np.ndarray:
    """Noise between stretches that are silent, or nearly so."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    levels = draw(st.lists(st.sampled_from([0.0, 1e-5, 1e-3, 0.5]), min_size=1, max_size=4))
    lengths = [draw(st.integers(1, 60)) for _ in levels]
    parts = [level * rng.uniform(0.5, 1.0, n) for level, n in zip(levels, lengths, strict=True)]
    return np.concatenate(parts).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    waveform=clips(),
    n_samples=st.integers(1, 120),
    fit=st.sampled_from(["tile", "pad"]),
    trim_db=st.sampled_from([0.0, 40.0, 70.0]),
)
def test_it_does_to_waveforms_what_training_did_to_files(
    waveform: np.ndarray, n_samples: int, fit: str, trim_db: float
) -> None:
    module = FitToLength(n_samples, fit, trim_db, SAMPLE_RATE)  # type: ignore[arg-type]
    found = module(torch.from_numpy(waveform)[None]).numpy()
    np.testing.assert_array_equal(found, expected(waveform, n_samples, fit, trim_db)[None])


@settings(max_examples=50, deadline=None)
@given(batch=st.lists(clips().filter(np.any), min_size=1, max_size=4), fit=st.sampled_from(["tile", "pad"]))
def test_clips_of_different_lengths_go_into_one_batch_with_zeros_behind_them(batch: list[np.ndarray], fit: str) -> None:
    longest = max(map(len, batch))
    together = np.stack([np.pad(clip, (0, longest - len(clip))) for clip in batch])
    found = FitToLength(64, fit, 60.0, SAMPLE_RATE)(torch.from_numpy(together)).numpy()  # type: ignore[arg-type]
    for clip, row in zip(batch, found, strict=True):
        # A clip whose last frame is not whole is followed by zeros up to the frame's end.
        whole = np.pad(clip, (0, min(longest, -(-len(clip) // 10) * 10) - len(clip)))
        np.testing.assert_array_equal(row, expected(whole, 64, fit, 60.0))


@pytest.mark.parametrize("fit", ["tile", "pad"])
def test_silence_stays_silence(fit: str) -> None:
    assert not FitToLength(50, fit, 60.0, SAMPLE_RATE)(torch.zeros(2, 7)).any()  # type: ignore[arg-type]


@pytest.mark.parametrize("n_example", [113, 120, 121, 7])
def test_whatever_length_it_was_exported_at_it_takes_any_other(n_example: int) -> None:
    module = FitToLength(100, "tile", 60.0, SAMPLE_RATE)
    shapes = {"waveform": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}
    exported = torch.export.export(module, (torch.rand(2, n_example),), dynamic_shapes=shapes, strict=False).module()
    for n_samples in (1, 2, 7, 9, 10, 11, 20, 21, 99, 100, 101, 1001):
        waveform = torch.rand(3, n_samples, generator=torch.Generator().manual_seed(n_samples))
        torch.testing.assert_close(exported(waveform), module(waveform), rtol=0.0, atol=0.0)
