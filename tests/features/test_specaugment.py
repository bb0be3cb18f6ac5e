from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.config import AugmentConfig
from esc_ensemble.features.specaugment import bend_bands, spec_augment


def config(time: tuple[int, int] = (0, 0), bands: tuple[int, int] = (0, 0), probability: float = 1.0) -> AugmentConfig:
    return AugmentConfig(
        time_masks=time[0],
        time_mask_max=time[1],
        frequency_masks=bands[0],
        frequency_mask_max=bands[1],
        spec_probability=probability,
    )


SIZES = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 30), st.integers(1, 40))
MASKS = st.tuples(st.integers(0, 4), st.integers(0, 50))


@given(SIZES, MASKS, MASKS, st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_masks_keep_to_their_number_and_size(
    shape: tuple[int, int, int, int], time: tuple[int, int], bands: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    features = torch.rand(shape) + 1.0
    masked = spec_augment(features, config(time, bands))
    hidden = masked == 0
    assert torch.equal(masked[~hidden], features[~hidden])
    assert torch.equal(hidden, hidden[:, :1].expand(shape))  # all channels alike
    for clip in hidden[:, 0]:
        hidden_frames, hidden_bands = clip.all(dim=0), clip.all(dim=1)
        assert torch.equal(clip, hidden_frames[None, :] | hidden_bands[:, None])
        if not hidden_bands.all():
            assert hidden_frames.sum() <= time[0] * time[1]
            assert (hidden_frames.int().diff() > 0).sum() + hidden_frames[0] <= time[0]
        if not hidden_frames.all():
            assert hidden_bands.sum() <= bands[0] * bands[1]
            assert (hidden_bands.int().diff() > 0).sum() + hidden_bands[0] <= bands[0]


def test_every_width_and_every_place_occurs() -> None:
    torch.manual_seed(0)
    hidden = spec_augment(torch.ones(3000, 1, 1, 12), config(time=(1, 5)))[:, 0, 0] == 0
    assert set(hidden.sum(dim=1).tolist()) == set(range(6))
    assert hidden.any(dim=0).all()
    shares = torch.bincount(hidden.sum(dim=1)) / 3000
    assert (shares - 1 / 6).abs().max() < 0.03


def test_clips_get_masks_of_their_own() -> None:
    torch.manual_seed(0)
    hidden = spec_augment(torch.ones(8, 1, 40, 60), config((2, 20), (1, 8))) == 0
    assert len({tuple(clip.flatten().tolist()) for clip in hidden}) > 4


@pytest.mark.parametrize(
    "nothing",
    [config((2, 10), (2, 10), probability=0.0), config((0, 10), (0, 10)), config((3, 0), (3, 0))],
)
def test_probability_0_no_masks_and_size_0_change_nothing(nothing: AugmentConfig) -> None:
    features = torch.randn(4, 2, 16, 20)
    assert torch.equal(spec_augment(features, nothing), features)


def test_probability_is_the_share_of_clips_that_are_masked() -> None:
    torch.manual_seed(0)
    masked = spec_augment(torch.ones(2000, 1, 1, 4), config(time=(50, 4), probability=0.3))
    assert (masked == 0).any(dim=3).float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_one_seed_gives_one_mask() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append(spec_augment(torch.ones(1, 2, 16, 20), config((2, 10), (1, 4))))
    assert torch.equal(*found)


def test_bending_adds_one_smooth_curve_over_the_bands_of_a_clip() -> None:
    torch.manual_seed(0)
    features = torch.randn(5, 2, 33, 7)
    curve = bend_bands(features, AugmentConfig(band_gain=1.0, band_gain_max=0.5)) - features
    torch.testing.assert_close(curve, curve[:, :1, :, :1].expand_as(curve))
    assert curve.abs().max() <= 0.5 + 1e-5
    assert curve.diff(dim=2).abs().max() <= 1.0 / 10  # at most from -0.5 to 0.5 in a third of the bands
    assert len({round(float(clip[0, 0, 0]), 4) for clip in curve}) == 5


def test_bending_with_probability_0_changes_nothing() -> None:
    features = torch.randn(4, 2, 16, 20)
    assert bend_bands(features, AugmentConfig(band_gain=0.0)) is features
