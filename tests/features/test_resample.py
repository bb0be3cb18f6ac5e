from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch

from esc_ensemble.features.resample import ROLLOFF, Resample

RATES = [(32000, 16000), (44100, 16000), (16000, 32000), (22050, 16000), (48000, 44100)]


@pytest.mark.parametrize(("old", "new"), RATES)
def test_tones_below_the_cutoff_come_out_as_they_went_in(old: int, new: int) -> None:
    seconds = 0.5
    before, after = np.arange(int(old * seconds)) / old, np.arange(int(new * seconds)) / new
    for share in (0.02, 0.3, 0.9):
        hertz = share * ROLLOFF * min(old, new) / 2
        given = torch.from_numpy(np.sin(2 * np.pi * hertz * before)).float()[None]
        found = Resample(old, new)(given)[0].numpy()
        assert len(found) == len(after)
        middle = slice(len(after) // 4, -len(after) // 4)
        np.testing.assert_allclose(found[middle], np.sin(2 * np.pi * hertz * after)[middle], atol=2e-4)


@pytest.mark.parametrize(("old", "new"), [(32000, 16000), (44100, 16000)])
def test_what_the_lower_rate_cannot_hold_is_taken_away(old: int, new: int) -> None:
    time = np.arange(old) / old
    given = torch.from_numpy(np.sin(2 * np.pi * 0.56 * new * time)).float()[None]
    assert Resample(old, new)(given)[0, 2000:-2000].abs().max() < 1e-4


@pytest.mark.parametrize(("old", "new"), RATES)
def test_noise_comes_out_as_soxrs(old: int, new: int) -> None:
    rng = np.random.default_rng(0)
    # Noise that both have wholly in their pass bands: made at a lower rate.
    given = soxr.resample(rng.standard_normal(8000), 0.8 * min(old, new), old, quality="VHQ").astype(np.float32)
    found = Resample(old, new)(torch.from_numpy(0.1 * given)[None])[0].numpy()
    theirs = soxr.resample(0.1 * given, old, new, quality="VHQ")
    n_both = min(len(found), len(theirs))
    middle = slice(n_both // 4, 3 * n_both // 4)
    assert np.abs(found[:n_both] - theirs[:n_both])[middle].max() < 2e-4


@pytest.mark.parametrize(("old", "new"), RATES)
@pytest.mark.parametrize("n_samples", [1, 1000, 4411])
def test_the_length_is_rounded_up(old: int, new: int, n_samples: int) -> None:
    assert Resample(old, new)(torch.zeros(1, n_samples)).shape == (1, -(-n_samples * new // old))


@pytest.mark.parametrize(("old", "new"), [(32000, 16000), (44100, 16000)])
def test_it_exports_for_any_length(old: int, new: int) -> None:
    any_size = torch.export.Dim.DYNAMIC
    exported = torch.export.export(
        Resample(old, new), (torch.randn(2, 5000),), dynamic_shapes={"waveform": {0: any_size, 1: any_size}}
    ).module()
    for n_samples in (4000, 4411, 8001):
        waves = torch.randn(3, n_samples)
        torch.testing.assert_close(exported(waves), Resample(old, new)(waves))


def test_each_clip_of_a_batch_is_on_its_own() -> None:
    waves = torch.randn(3, 5000)
    together = Resample(44100, 16000)(waves)
    torch.testing.assert_close(together[1:2], Resample(44100, 16000)(waves[1:2]))
