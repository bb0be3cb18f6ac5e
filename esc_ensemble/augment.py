"""Random changes to batches of waveforms, and mixing of pairs of clips, on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from esc_ensemble.config import AugmentConfig


def augment_waveform(waveform: Tensor, config: AugmentConfig) -> Tensor:
    """Changes each clip of a batch (B, T) in its own random way; draws from the device's default generator.

    Roll, crop and time scale choose which samples stand where: gathers, with no loop over clips.
    """
    if config.roll:
        waveform = _roll(waveform, config.roll)
    if config.crop or config.time_scale:
        waveform = _warp(waveform, config)
    if config.gain:
        decibel = _uniform(waveform, -config.gain_db, config.gain_db) * _chosen(waveform, config.gain)
        waveform = waveform * 10.0 ** (decibel / 20.0)
    if config.polarity:
        waveform = torch.where(_chosen(waveform, config.polarity), -waveform, waveform)
    if config.noise:
        waveform = _add_noise(waveform, config)
    return waveform


def mix_pairs(features: Tensor, targets: Tensor, config: AugmentConfig) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang 2018): each clip with another of the batch, at its own ratio from Beta(alpha, alpha).

    Args:
        features: (B, ...).
        targets: class probabilities (B, C).
        config: the probability that the batch is mixed at all, and alpha.

    Returns:
        Mixed features and mixed targets, shapes unchanged.
    """
    if not config.mixup or torch.rand(()).item() >= config.mixup:
        return features, targets
    batch = len(features)
    alpha = torch.full((batch,), config.mixup_alpha)
    ratio = torch.distributions.Beta(alpha, alpha).sample().to(features.device)
    partner = torch.randperm(batch).to(features.device)
    share = ratio.view(-1, *[1] * (features.ndim - 1))  # (B,) -> (B, 1, ..., 1)
    mixed = torch.lerp(features[partner], features, share.to(features.dtype))
    return mixed, torch.lerp(targets[partner], targets, ratio[:, None])


def _roll(waveform: Tensor, probability: float) -> Tensor:
    """Cyclic shift by any number of samples."""
    n_samples = waveform.shape[1]
    start = _uniform(waveform, 0.0, 1.0) * _chosen(waveform, probability)  # (B, 1), as a part of the clip
    place = torch.arange(n_samples, device=waveform.device) + (start * n_samples).long()
    # A subtraction where it is needed: an integer remainder costs ten times as much.
    return waveform.gather(1, torch.where(place >= n_samples, place - n_samples, place))


def _warp(waveform: Tensor, config: AugmentConfig) -> Tensor:
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
    before = position.floor().clamp_(max=n_samples - 1.0)
    after = torch.where(before + 1.0 >= length, 0.0, before + 1.0)
    new = torch.lerp(old.gather(1, before.long()), old.gather(1, after.long()), position - before)
    return waveform.index_copy(0, warped, new)


def _add_noise(waveform: Tensor, config: AugmentConfig) -> Tensor:
    level = waveform.square().mean(dim=1, keepdim=True).sqrt()  # (B, 1)
    ratio = 10.0 ** (-_uniform(waveform, *config.noise_snr_db) / 20.0)
    return waveform + torch.randn_like(waveform) * level * ratio * _chosen(waveform, config.noise)


def _uniform(like: Tensor, low: float, high: float) -> Tensor:
    """(B, 1) uniform numbers on the device of `like`."""
    return low + (high - low) * torch.rand(len(like), 1, device=like.device)


def _chosen(like: Tensor, probability: float) -> Tensor:
    """(B, 1) bool, True with this probability."""
    return torch.rand(len(like), 1, device=like.device) < probability
