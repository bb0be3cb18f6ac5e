"""Random changes to batches of waveforms, on the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from esc_ensemble.config import WaveformAugmentConfig

PITCH_GRAIN_SECONDS = 0.06


def augment_waveform(waveform: Tensor, config: WaveformAugmentConfig, sample_rate: int) -> Tensor:
    """Changes each clip of a batch (B, T) in its own random way; draws from the device's default generator.

    Roll, crop, time scale and pitch choose which samples stand where: gathers, with no loop over clips.
    """
    if config.roll:
        waveform = _roll(waveform, config.roll)
    if config.crop or config.time_scale:
        waveform = _warp(waveform, config)
    if config.pitch:
        waveform = _shift_pitch(waveform, config, sample_rate)
    if config.gain:
        decibel = _uniform(waveform, -config.gain_db, config.gain_db) * _chosen(waveform, config.gain)
        waveform = waveform * 10.0 ** (decibel / 20.0)
    if config.segment_gain:
        decibel = _uniform(waveform, -config.segment_gain_db, config.segment_gain_db)
        inside = _stretch(waveform, waveform.shape[1]) & _chosen(waveform, config.segment_gain)
        waveform = torch.where(inside, waveform * 10.0 ** (decibel / 20.0), waveform)
    if config.blank:
        longest = min(round(config.blank_seconds * sample_rate), waveform.shape[1])
        waveform = waveform.masked_fill(_stretch(waveform, longest) & _chosen(waveform, config.blank), 0.0)
    if config.polarity:
        waveform = torch.where(_chosen(waveform, config.polarity), -waveform, waveform)
    if config.noise:
        waveform = _add_noise(waveform, config)
    if config.low_pass:
        waveform = _low_pass(waveform, config, sample_rate)
    return waveform


def random_window(waveform: Tensor, n_window: int) -> Tensor:
    """Cuts a random stretch of `n_window` samples out of each clip: (B, T) -> (B, W); 0 leaves all."""
    if not n_window or n_window >= waveform.shape[1]:
        return waveform
    start = (_uniform(waveform, 0.0, 1.0) * (waveform.shape[1] - n_window + 1)).long()  # (B, 1)
    return waveform.gather(1, start + torch.arange(n_window, device=waveform.device))


def _roll(waveform: Tensor, probability: float) -> Tensor:
    """Cyclic shift by any number of samples."""
    n_samples = waveform.shape[1]
    start = _uniform(waveform, 0.0, 1.0) * _chosen(waveform, probability)  # (B, 1), as a part of the clip
    place = torch.arange(n_samples, device=waveform.device) + (start * n_samples).long()
    # A subtraction where it is needed: an integer remainder costs ten times as much.
    return waveform.gather(1, torch.where(place >= n_samples, place - n_samples, place))


def _warp(waveform: Tensor, config: WaveformAugmentConfig) -> Tensor:
    """Crop, repeated to full length, and time scale: what is heard at t is the old clip at speed·t mod length."""
    n_samples = waveform.shape[1]
    kept = 1.0 - _uniform(waveform, 0.0, 1.0 - config.crop_min) * _chosen(waveform, config.crop)
    bend = _uniform(waveform, -1.0, 1.0) * _chosen(waveform, config.time_scale)
    warped = ((kept < 1.0) | (bend != 0.0)).squeeze(1).nonzero().squeeze(1)  # only these clips are worked on
    old, length, speed = (
        waveform[warped],
        (kept[warped] * n_samples).floor().clamp(min=1.0),
        config.time_scale_max ** bend[warped],
    )
    position = torch.arange(n_samples, device=waveform.device) * speed  # float32: exact to 1/64 of a sample
    position = position - length * (position / length).floor()
    before = position.floor().clamp_(max=length - 1.0)
    after = torch.where(before + 1.0 >= length, 0.0, before + 1.0)
    between = position - before
    if config.crop:
        start = (_uniform(old, 0.0, 1.0) * (n_samples - length + 1.0)).floor()  # of the part that is kept
        before, after = before + start, after + start
    new = torch.lerp(old.gather(1, before.long()), old.gather(1, after.long()), between)
    return waveform.index_copy(0, warped, new)


def _shift_pitch(waveform: Tensor, config: WaveformAugmentConfig, sample_rate: int) -> Tensor:
    """Pitch without speed, by two crossfaded delay lines half a grain apart (as a harmoniser does it).

    Each line reads grain after grain at the new speed; where one jumps back to the beat, the other is loudest.
    The clip is read as a circle, as `_roll` leaves it.
    """
    n_samples = waveform.shape[1]
    chosen = _chosen(waveform, config.pitch).squeeze(1).nonzero().squeeze(1)
    old = waveform[chosen]
    speed = 2.0 ** (_uniform(old, -config.pitch_semitones, config.pitch_semitones) / 12.0)
    grain = PITCH_GRAIN_SECONDS * sample_rate
    time = torch.arange(n_samples, device=waveform.device, dtype=torch.float32)
    phase = time * (speed - 1.0) / grain + _uniform(old, 0.0, 1.0)  # (B, T): grows by 1 from jump to jump
    new = torch.zeros_like(old)
    for offset in (0.0, 0.5):
        place = phase + offset
        place = place - place.floor()
        weight = torch.sin(math.pi * place).square()  # the two add up to 1 everywhere
        new += weight * _read_circle(old, time + place * grain)
    return waveform.index_copy(0, chosen, new)


def _read_circle(waveform: Tensor, position: Tensor) -> Tensor:
    """Samples (B, T) at fractional positions (B, T) of clips read as circles, interpolated in a line."""
    n_samples = waveform.shape[1]
    position = position - n_samples * (position / n_samples).floor()
    before = position.floor().clamp_(max=n_samples - 1.0)
    after = torch.where(before + 1.0 >= n_samples, 0.0, before + 1.0)
    return torch.lerp(waveform.gather(1, before.long()), waveform.gather(1, after.long()), position - before)


def _add_noise(waveform: Tensor, config: WaveformAugmentConfig) -> Tensor:
    """Adds noise of a random colour at a random ratio to the clip's own level."""
    chosen = _chosen(waveform, config.noise).squeeze(1).nonzero().squeeze(1)  # only these clips are worked on
    if not len(chosen):
        return waveform
    old = waveform[chosen]
    noise = _colour(torch.randn_like(old), _uniform(old, *config.noise_colour))
    ratio = 10.0 ** (-_uniform(old, *config.noise_snr_db) / 20.0)
    return waveform.index_copy(0, chosen, old + noise * ratio * _level(old) / _level(noise).clamp(min=1e-12))


def _colour(noise: Tensor, exponent: Tensor) -> Tensor:
    """Bends the spectrum of white noise (B, T) so that its power falls as 1/f to the `exponent` (B, 1)."""
    spectrum = torch.fft.rfft(noise)
    bins = torch.arange(spectrum.shape[1], device=noise.device).clamp(min=1)
    return torch.fft.irfft(spectrum * bins ** (-exponent / 2.0), n=noise.shape[1])


def _low_pass(waveform: Tensor, config: WaveformAugmentConfig, sample_rate: int) -> Tensor:
    """Takes all above a random frequency away, sharply.

    Clips of one class often come from few recordings, whose bandwidth a network would take for the class.
    """
    chosen = _chosen(waveform, config.low_pass).squeeze(1).nonzero().squeeze(1)  # only these clips are worked on
    if not len(chosen):
        return waveform
    old = waveform[chosen]
    highest = sample_rate / 2
    lowest = min(config.low_pass_hz, highest)
    cutoff = lowest * (highest / lowest) ** _uniform(old, 0.0, 1.0)  # (B, 1)
    frequency = torch.fft.rfftfreq(waveform.shape[1], 1.0 / sample_rate, device=waveform.device)
    spectrum = torch.fft.rfft(old).masked_fill(frequency > cutoff, 0.0)
    return waveform.index_copy(0, chosen, torch.fft.irfft(spectrum, n=waveform.shape[1]))


def _level(waveform: Tensor) -> Tensor:
    """Root mean square of each clip: (B, T) -> (B, 1)."""
    return waveform.square().mean(dim=1, keepdim=True).sqrt()


def _stretch(waveform: Tensor, longest: int) -> Tensor:
    """(B, T) bool, True inside one random stretch of up to `longest` samples a clip."""
    n_samples = waveform.shape[1]
    length = (_uniform(waveform, 0.0, 1.0) * (longest + 1)).floor()
    start = (_uniform(waveform, 0.0, 1.0) * (n_samples - length + 1)).floor()
    place = torch.arange(n_samples, device=waveform.device)
    return (place >= start) & (place < start + length)


def _uniform(like: Tensor, low: float, high: float) -> Tensor:
    """(B, 1) uniform numbers on the device of `like`."""
    return low + (high - low) * torch.rand(len(like), 1, device=like.device)


def _chosen(like: Tensor, probability: float) -> Tensor:
    """(B, 1) bool, True with this probability."""
    return torch.rand(len(like), 1, device=like.device) < probability
