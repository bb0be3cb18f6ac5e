from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble import augment
from esc_ensemble.augment import augment_waveform, mix_pairs
from esc_ensemble.config import AugmentConfig
from tests.tiny import NO_AUGMENT


def only(**values: Any) -> AugmentConfig:
    return AugmentConfig(**NO_AUGMENT | values)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def counting(n_clips: int, n_samples: int) -> torch.Tensor:
    """(B, T) float32, each sample its own number."""
    return torch.arange(n_clips * n_samples, dtype=torch.float32).view(n_clips, n_samples)


def test_with_all_switched_off_nothing_changes_and_nothing_is_drawn() -> None:
    waves, state = torch.randn(4, 100), torch.random.get_rng_state()
    assert torch.equal(augment_waveform(waves, only()), waves)
    assert torch.equal(torch.random.get_rng_state(), state)


@given(st.integers(1, 6), st.integers(1, 300), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_roll_is_a_cyclic_shift(n_clips: int, n_samples: int, seed: int) -> None:
    torch.manual_seed(seed)
    waves = counting(n_clips, n_samples)
    for before, after in zip(waves.numpy(), augment_waveform(waves, only(roll=1.0)).numpy(), strict=True):
        shift = int(np.flatnonzero(after == before[0])[0])
        np.testing.assert_array_equal(after, np.roll(before, shift))


def test_roll_reaches_every_shift_and_differs_between_clips() -> None:
    rolled = augment_waveform(torch.arange(10.0).repeat(1000, 1), only(roll=1.0))
    assert set(rolled[:, 0].tolist()) == set(range(10))


def test_roll_keeps_samples_exact_beside_other_changes_that_did_not_happen() -> None:
    waves = torch.randn(50, 5000)
    rolled = augment_waveform(waves, only(roll=1.0, crop=1e-9, time_scale=1e-9))
    assert torch.equal(rolled.sort(dim=1).values, waves.sort(dim=1).values)


def test_gain_stays_in_its_range_and_fills_it() -> None:
    waves = torch.randn(500, 50)
    found = 20 * torch.log10((augment_waveform(waves, only(gain=1.0, gain_db=6.0)) / waves).mean(dim=1))
    assert found.abs().max() <= 6.001
    assert found.min() < -5.5
    assert found.max() > 5.5


def test_polarity_changes_nothing_but_the_sign() -> None:
    waves = torch.randn(200, 20)
    flipped = augment_waveform(waves, only(polarity=0.5))
    signs = (flipped / waves).round(decimals=5)
    assert torch.equal(signs, signs[:, :1].expand_as(signs))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}


def test_the_signal_to_noise_ratio_lies_in_its_range() -> None:
    waves = torch.randn(200, 20000) * torch.logspace(-3, 0, 200)[:, None]
    noise = augment_waveform(waves, only(noise=1.0, noise_snr_db=(10.0, 30.0))) - waves
    ratio = 10 * torch.log10(waves.square().mean(dim=1) / noise.square().mean(dim=1))
    assert ratio.min() > 9.8
    assert ratio.max() < 30.2
    assert ratio.max() - ratio.min() > 18


def test_noise_leaves_silence_silent() -> None:
    assert not augment_waveform(torch.zeros(3, 100), only(noise=1.0)).any()


@pytest.mark.parametrize(("drawn", "factor"), [(1.0, 1.25), (-1.0, 1 / 1.25), (0.0, 1.0)])
def test_time_scale_multiplies_the_frequency_of_a_sine(
    monkeypatch: pytest.MonkeyPatch, drawn: float, factor: float
) -> None:
    monkeypatch.setattr(augment, "_uniform", lambda like, low, high: torch.full((len(like), 1), drawn * high))
    time = torch.arange(8000) / 8000
    found = augment_waveform(torch.sin(2 * np.pi * 100 * time)[None], only(time_scale=1.0, time_scale_max=1.25))
    torch.testing.assert_close(found[0, :6000], torch.sin(2 * np.pi * 100 * factor * time)[:6000], rtol=0, atol=5e-3)


def test_time_scale_keeps_to_its_largest_factor() -> None:
    time = torch.arange(16000) / 16000
    found = augment_waveform(
        torch.sin(2 * np.pi * 1000 * time).repeat(100, 1), only(time_scale=1.0, time_scale_max=1.25)
    )
    peaks = torch.fft.rfft(found).abs().argmax(dim=1) / 1000
    assert peaks.min() >= 0.8 - 0.002
    assert peaks.max() <= 1.25 + 0.002
    assert peaks.max() - peaks.min() > 0.3


def test_crop_repeats_a_part_of_the_clip() -> None:
    n_samples = 400
    lengths = []
    for clip in augment_waveform(counting(1, n_samples).repeat(200, 1), only(crop=1.0, roll=1.0, crop_min=0.25)):
        again = (clip[1:] == clip[0]).nonzero()
        length = int(again[0, 0]) + 1 if len(again) else n_samples
        lengths.append(length)
        expected = (clip[0] + torch.arange(n_samples) % length) % n_samples
        assert torch.equal(clip, expected)
    assert min(lengths) >= 0.25 * n_samples
    assert min(lengths) < 0.35 * n_samples


def test_the_shortest_crop_is_one_sample() -> None:
    found = augment_waveform(counting(50, 4), only(crop=1.0, crop_min=1e-6))
    assert torch.isfinite(found).all()


@given(st.integers(1, 8), st.integers(2, 6), st.floats(0.05, 5.0), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_mixup_is_a_convex_sum_at_one_ratio_for_clip_and_target(
    n_clips: int, n_classes: int, alpha: float, seed: int
) -> None:
    torch.manual_seed(seed)
    targets = torch.eye(n_classes)[torch.arange(n_clips) % n_classes]
    clips = torch.eye(n_clips)  # which clip went in, and with which share
    mixed, mixed_targets = mix_pairs(clips[:, None, None, :], targets, only(mixup=1.0, mixup_alpha=alpha))
    shares = mixed[:, 0, 0]
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(n_clips))
    assert (shares >= -1e-6).all()
    assert ((shares > 1e-6).sum(dim=1) <= 2).all()
    torch.testing.assert_close(mixed_targets, shares @ targets)
    torch.testing.assert_close(mixed_targets.sum(dim=1), torch.ones(n_clips))


def test_mixup_draws_a_ratio_for_each_clip_from_the_beta_distribution() -> None:
    targets = torch.eye(4000)
    _, mixed = mix_pairs(torch.zeros(4000, 1), targets, only(mixup=1.0, mixup_alpha=0.4))
    own = mixed.diagonal()
    assert own.mean().item() == pytest.approx(0.5, abs=0.03)
    assert own.var().item() == pytest.approx(0.25 / (2 * 0.4 + 1), abs=0.01)


def test_mixup_0_changes_nothing() -> None:
    features, targets = torch.randn(4, 2, 3, 5), torch.eye(4)
    found = mix_pairs(features, targets, only(mixup=0.0))
    assert found[0] is features
    assert found[1] is targets


def test_one_seed_gives_one_result() -> None:
    config = AugmentConfig(**dict.fromkeys(NO_AUGMENT, 0.8))
    waves, found = torch.randn(6, 500), []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(mix_pairs(augment_waveform(waves, config), torch.eye(6), config))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], augment_waveform(waves, config))
