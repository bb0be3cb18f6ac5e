from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.augment import waveform as augment
from esc_ensemble.augment.waveform import augment_waveform as augment_at_rate
from esc_ensemble.config import AugmentConfig
from tests.tiny import NO_AUGMENT


def only(**values: Any) -> AugmentConfig:
    return AugmentConfig(**NO_AUGMENT | values)


def augment_waveform(waves: torch.Tensor, config: AugmentConfig, sample_rate: int = 16000) -> torch.Tensor:
    return augment_at_rate(waves, config, sample_rate)


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


def test_a_crop_lies_anywhere_in_the_clip() -> None:
    found = augment_waveform(counting(1, 400).repeat(300, 1), only(crop=1.0, crop_min=0.5))
    assert found.min() == 0.0
    assert found.max() == 399.0
    starts = found[:, 0]
    assert starts.min() < 10
    assert starts.max() > 150
    assert (found.amax(dim=1) - starts + 1 >= 200).all()


def test_the_shortest_crop_is_one_sample() -> None:
    found = augment_waveform(counting(50, 4), only(crop=1.0, crop_min=1e-6))
    assert torch.isfinite(found).all()


def test_a_random_window_is_a_stretch_of_the_clip_anywhere_in_it() -> None:
    found = augment.random_window(counting(1, 20).repeat(500, 1), 5)
    assert torch.equal(found - found[:, :1], torch.arange(5.0).expand(500, 5))
    assert set(found[:, 0].tolist()) == set(range(16))
    waves = torch.randn(3, 20)
    assert augment.random_window(waves, 0) is waves
    assert augment.random_window(waves, 20) is waves


@pytest.mark.parametrize("semitones", [-7.0, -2.0, 0.0, 3.0, 7.0])
def test_pitch_moves_the_frequency_of_a_sine_and_keeps_its_length(
    monkeypatch: pytest.MonkeyPatch, semitones: float
) -> None:
    real = augment._uniform
    monkeypatch.setattr(
        augment,
        "_uniform",
        lambda like, low, high: real(like, low, high) if low == 0.0 else torch.full((len(like), 1), semitones),
    )
    time = torch.arange(32000) / 16000
    sine = torch.sin(2 * np.pi * 500 * time)[None]
    found = augment_waveform(sine, only(pitch=1.0, pitch_semitones=7.0))
    assert found.shape == sine.shape
    # Grains put side lines 17 Hz and less around the tone: its energy lies close by.
    power = torch.fft.rfft(found * torch.hann_window(32000)).abs().square()[0]
    frequency = torch.fft.rfftfreq(32000, 1 / 16000)
    centre = float((power * frequency).sum() / power.sum())
    assert centre == pytest.approx(500 * 2 ** (semitones / 12), rel=0.03)


def test_pitch_of_0_semitones_is_the_clip_delayed_by_at_most_a_grain() -> None:
    # Two copies of a periodic signal, half a grain (480 samples) apart, are one and the same.
    wave = torch.sin(2 * np.pi * 100 * torch.arange(16000) / 16000)[None].repeat(8, 1)
    found = augment_waveform(wave, only(pitch=1.0, pitch_semitones=0.0))
    assert (found.abs().amax(dim=1) > 0.99).all()


def test_clips_that_no_pitch_is_drawn_for_stay_exact() -> None:
    waves = torch.randn(200, 400)
    found = augment_waveform(waves, only(pitch=0.5))
    same = (found == waves).all(dim=1)
    assert 60 < same.sum() < 140


def test_segment_gain_changes_one_stretch_by_one_factor() -> None:
    found = augment_waveform(torch.ones(300, 1000), only(segment_gain=1.0, segment_gain_db=12.0))
    for clip in found:
        changed = (clip != 1.0).nonzero().squeeze(1)
        if len(changed):
            assert len(changed) == changed[-1] - changed[0] + 1
            assert clip[changed].std(correction=0) < 1e-6
    decibel = 20 * torch.log10(found)
    assert decibel.abs().max() <= 12.001
    assert decibel.abs().max() > 11


def test_blank_silences_a_stretch_no_longer_than_it_may() -> None:
    found = augment_waveform(torch.ones(300, 4000), only(blank=1.0, blank_seconds=0.1), sample_rate=8000)
    silent = (found == 0.0).sum(dim=1)
    assert silent.max() <= 800
    assert silent.max() > 700
    for clip in found:
        place = (clip == 0.0).nonzero().squeeze(1)
        assert not len(place) or len(place) == place[-1] - place[0] + 1


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_noise_has_the_colour_asked_for(exponent: float) -> None:
    silence = torch.full((40, 32000), 1e-3)
    colour = only(noise=1.0, noise_snr_db=(0.0, 0.0), noise_colour=(exponent, exponent))
    noise = augment_waveform(silence, colour) - silence
    power = torch.fft.rfft(noise).abs().square().mean(dim=0)
    octaves = [power[2**n : 2 ** (n + 1)].mean().log2().item() for n in range(4, 13)]
    assert np.polyfit(range(4, 13), octaves, 1)[0] == pytest.approx(-exponent, abs=0.05)
    ratio = silence.square().mean(dim=1) / noise.square().mean(dim=1)
    torch.testing.assert_close(ratio, torch.ones(40), rtol=0.05, atol=0)


def test_low_pass_takes_all_above_a_frequency_and_nothing_below() -> None:
    waves = torch.randn(300, 2000)
    found = augment_waveform(waves, only(low_pass=1.0, low_pass_hz=2000.0))
    before, after = torch.fft.rfft(waves), torch.fft.rfft(found)
    frequency = torch.fft.rfftfreq(2000, 1 / 16000)
    kept = after.abs() > 1e-3 * before.abs()  # (B, bins)
    cutoff = frequency[kept.sum(dim=1) - 1]
    assert torch.equal(kept, frequency <= cutoff[:, None])
    torch.testing.assert_close(after[kept], before[kept], rtol=1e-3, atol=1e-3)
    assert 1990.0 <= cutoff.min() < 2050.0
    assert 7700.0 < cutoff.max() <= 8000.0
    assert 0.4 < (cutoff < 4000.0).float().mean() < 0.6  # the lower of the two octaves


def test_low_pass_above_half_the_sample_rate_changes_nothing() -> None:
    waves = torch.randn(3, 501)
    torch.testing.assert_close(augment_waveform(waves, only(low_pass=1.0, low_pass_hz=9000.0)), waves)


def test_every_change_together_stays_finite_also_on_silence() -> None:
    config = AugmentConfig(**dict.fromkeys(NO_AUGMENT, 1.0))
    assert torch.isfinite(augment_waveform(torch.zeros(4, 3000), config)).all()
    assert torch.isfinite(augment_waveform(torch.randn(4, 3000), config)).all()


@pytest.mark.parametrize("name", [name for name in NO_AUGMENT if name not in ("spec_probability", "band_gain")])
def test_a_change_that_no_clip_of_a_batch_draws_leaves_it_as_it_is(name: str) -> None:
    waves = torch.randn(2, 500)
    assert torch.equal(augment_waveform(waves, only(**{name: 1e-12})), waves)


def test_one_seed_gives_one_result() -> None:
    config = AugmentConfig(**dict.fromkeys(NO_AUGMENT, 0.8))
    waves, found = torch.randn(6, 500), []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(augment_waveform(waves, config))
    assert torch.equal(found[0], found[1])
