"""Mixing of clips against its definitions."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from esc_ensemble.augment.mixing import (
    a_weighting,
    cutmix,
    draw_mix,
    loudness,
    mix_between_classes,
    mix_energies,
    mix_features,
    mix_waveforms,
    mixed_loss,
    mixup,
)
from esc_ensemble.config import MixConfig
from esc_ensemble.errors import ConfigError
from esc_ensemble.settings import build, check

RATE = 16000


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def one_hot(n_clips: int, n_classes: int) -> torch.Tensor:
    return torch.eye(n_classes)[torch.arange(n_clips) % n_classes]


def test_each_mix_is_drawn_as_often_as_its_probability_says() -> None:
    config = MixConfig(mixup=0.1, between_class=0.2, cutmix=0.3, energy_mixup=0.15)
    drawn = [draw_mix(config) for _ in range(20000)]
    for name, expected in (("mixup", 0.1), ("between_class", 0.2), ("cutmix", 0.3), ("energy_mixup", 0.15), ("", 0.25)):
        assert drawn.count(name) / 20000 == pytest.approx(expected, abs=0.015)


def test_without_mixing_nothing_is_drawn_and_nothing_changes() -> None:
    config, state = MixConfig(mixup=0.0), torch.random.get_rng_state()
    assert draw_mix(config) == ""
    assert torch.equal(torch.random.get_rng_state(), state)
    inputs, targets = torch.randn(4, 2, 3, 5), torch.eye(4)
    assert mix_features(inputs, targets, "", config)[0] is inputs
    assert mix_waveforms(inputs[:, 0, 0], targets, "mixup", config, RATE)[1] is targets


def test_probabilities_above_1_in_sum_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"add up to 1\.5"):
        check(build(MixConfig, {"cutmix": 0.5}, "it"), "it")


@given(st.integers(1, 8), st.integers(2, 6), st.floats(0.05, 5.0), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_mixup_is_a_convex_sum_at_one_ratio_for_clip_and_target(
    n_clips: int, n_classes: int, alpha: float, seed: int
) -> None:
    torch.manual_seed(seed)
    targets = one_hot(n_clips, n_classes)
    clips = torch.eye(n_clips)  # which clip went in, and with which share
    mixed, mixed_targets = mixup(clips[:, None, None, :], targets, alpha)
    shares = mixed[:, 0, 0]
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(n_clips))
    assert (shares >= -1e-6).all()
    assert ((shares > 1e-6).sum(dim=1) <= 2).all()
    torch.testing.assert_close(mixed_targets, shares @ targets)


def test_mixup_draws_a_ratio_for_each_clip_from_the_beta_distribution() -> None:
    _, mixed = mixup(torch.zeros(4000, 1), torch.eye(4000), 0.4)
    own = mixed.diagonal()
    assert own.mean().item() == pytest.approx(0.5, abs=0.03)
    assert own.var().item() == pytest.approx(0.25 / (2 * 0.4 + 1), abs=0.01)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_cutmix_puts_one_rectangle_in_and_mixes_labels_by_its_area(
    n_clips: int, n_mels: int, n_frames: int, seed: int
) -> None:
    torch.manual_seed(seed)
    numbers = torch.arange(n_clips, dtype=torch.float32)
    features = numbers[:, None, None, None].expand(n_clips, 2, n_mels, n_frames)
    mixed, targets = cutmix(features, torch.eye(n_clips))
    assert torch.equal(mixed[:, 0], mixed[:, 1])
    for number in range(n_clips):
        foreign = mixed[number, 0] != number
        share = foreign.float().mean().item()
        if foreign.any():
            rows, columns = foreign.any(dim=1), foreign.any(dim=0)
            assert torch.equal(foreign, rows[:, None] & columns[None, :])
            partner = int(mixed[number, 0][foreign][0])
            assert (mixed[number, 0][foreign] == partner).all()
            assert targets[number, partner].item() == pytest.approx(share, abs=1e-6)
            assert targets[number, number].item() == pytest.approx(1 - share, abs=1e-6)
        torch.testing.assert_close(targets[number].sum(), torch.tensor(1.0))


def test_cutmix_areas_and_shapes_are_spread() -> None:
    mixed, targets = cutmix(torch.arange(2000.0)[:, None, None, None].expand(2000, 1, 40, 100), torch.eye(2000))
    areas = 1 - targets.diagonal()
    assert areas.mean().item() == pytest.approx(0.5, abs=0.03)
    foreign = (mixed[:, 0] != torch.arange(2000.0)[:, None, None]).float()
    heights = foreign.amax(dim=2).mean(dim=1)
    assert (heights < 0.3).any()
    assert (heights > 0.95).any()


def test_a_weighting_is_librosas() -> None:
    frequency = np.array([0.0, 10.0, 31.5, 100.0, 440.0, 1000.0, 2500.0, 8000.0, 15999.0])
    np.testing.assert_allclose(
        a_weighting(torch.from_numpy(frequency)), librosa.A_weighting(frequency, min_db=-80), atol=2e-3
    )


def test_loudness_is_that_of_the_loudest_frame_as_librosa_computes_it() -> None:
    waves = torch.randn(3, RATE) * torch.linspace(0, 1, RATE) * torch.tensor([0.01, 0.1, 1.0])[:, None]
    n_fft = 1024
    spectra = librosa.stft(waves.numpy(), n_fft=n_fft, hop_length=n_fft // 2, center=False)
    weights = librosa.A_weighting(librosa.fft_frequencies(sr=RATE, n_fft=n_fft), min_db=-80)
    power = (np.abs(spectra) ** 2 * 10 ** (weights / 10)[:, None]).sum(axis=1)
    np.testing.assert_allclose(loudness(waves, RATE), 10 * np.log10(power.max(axis=1)), atol=0.01)


def test_loudness_follows_the_level_and_the_ear() -> None:
    time = torch.arange(RATE) / RATE
    tones = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (50.0, 1000.0, 1000.0)])
    tones[2] *= 0.1
    low, middle, quiet = loudness(tones, RATE).tolist()
    assert middle - quiet == pytest.approx(20.0, abs=0.01)
    assert middle - low == pytest.approx(30.2, abs=1.0)


def test_between_class_mixing_by_its_formula() -> None:
    waves = torch.randn(2, 4000) * torch.tensor([[1.0], [0.1]])
    mixed, targets = mix_between_classes(waves, torch.eye(2), RATE)
    level = loudness(waves, RATE)
    for own, other in ((0, 1), (1, 0)):
        ratio = targets[own, own].item()
        share = 1 / (1 + 10 ** ((level[own] - level[other]).item() / 20) * (1 - ratio) / ratio)
        expected = (share * waves[own] + (1 - share) * waves[other]) / np.hypot(share, 1 - share)
        torch.testing.assert_close(mixed[own], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(2))


def test_between_class_mixing_mixes_two_classes_where_there_are_two() -> None:
    _, targets = mix_between_classes(torch.randn(300, 50), one_hot(300, 3), 1000)
    assert ((targets > 0).sum(dim=1) == 2).all()
    _, alone = mix_between_classes(torch.randn(5, 50), one_hot(5, 1), 1000)
    torch.testing.assert_close(alone, torch.ones(5, 1))


def test_silence_mixes_without_a_nan() -> None:
    waves = torch.cat([torch.zeros(3, 500), torch.randn(3, 500)])
    for mixed, targets in (mix_between_classes(waves, one_hot(6, 3), 1000), mix_energies(waves, one_hot(6, 3), 6.0)):
        assert torch.isfinite(mixed).all()
        assert torch.isfinite(targets).all()


def test_energy_mixup_leaves_silence_and_what_would_meet_it_alone() -> None:
    waves = torch.randn(40, 100) * (torch.arange(40) % 2)[:, None]
    mixed, targets = mix_energies(waves, torch.eye(40), 6.0)
    alone = targets.sum(dim=1) == 1
    torch.testing.assert_close(mixed[alone], waves[alone])
    assert alone[::2].all()  # the silent ones
    assert 0 < (~alone[1::2]).sum() < 20  # sounding ones, where the partner sounds too


def test_energy_mixup_brings_both_to_one_level_and_unites_labels() -> None:
    n_clips = 64
    waves = torch.eye(n_clips) * torch.logspace(-2, 0, n_clips)[:, None]  # one sample each: shares can be read off
    mixed, targets = mix_energies(waves, torch.eye(n_clips), 6.0)
    torch.testing.assert_close(mixed.square().mean(dim=1), waves.square().mean(dim=1))
    two = targets.sum(dim=1) == 2
    assert two.sum() > n_clips / 2
    for number in two.nonzero().squeeze(1).tolist():
        other = next(n for n in targets[number].nonzero().squeeze(1).tolist() if n != number)
        difference = 20 * np.log10(abs(mixed[number, other]) / abs(mixed[number, number]))
        assert abs(difference) <= 6.001
    assert set(targets.unique().tolist()) == {0.0, 1.0}


def test_losses_against_torchs_own() -> None:
    logits = torch.randn(8, 5)
    targets = torch.softmax(torch.randn(8, 5), dim=1)
    found = mixed_loss(logits, targets, "mixup", smoothing=0.1, kl=False)
    torch.testing.assert_close(found, F.cross_entropy(logits, targets, label_smoothing=0.1))
    smooth = 0.9 * targets + 0.1 / 5
    expected = F.kl_div(logits.log_softmax(dim=1), smooth, reduction="batchmean")
    torch.testing.assert_close(mixed_loss(logits, targets, "", smoothing=0.1, kl=True), expected)
    hard = torch.eye(5)[torch.arange(8) % 5]
    assert mixed_loss(100.0 * hard, hard, "", smoothing=0.0, kl=True).item() == pytest.approx(0.0, abs=1e-6)
    union = torch.maximum(hard, hard.roll(1, dims=0))
    expected = F.binary_cross_entropy_with_logits(logits, union, reduction="none").sum(dim=1).mean()
    torch.testing.assert_close(mixed_loss(logits, union, "energy_mixup", smoothing=0.0, kl=False), expected)


def test_one_seed_gives_one_result() -> None:
    waves, features, targets, config = torch.randn(6, 500), torch.randn(6, 2, 4, 9), one_hot(6, 3), MixConfig()
    for name in ("mixup", "cutmix", "between_class", "energy_mixup"):
        found = []
        for _ in range(2):
            torch.manual_seed(3)
            by_wave, by_feature = (
                mix_waveforms(waves, targets, name, config, RATE),
                mix_features(features, targets, name, config),
            )
            found.append((*by_wave, *by_feature))
        assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))
