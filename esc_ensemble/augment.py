"""Random changes to batches of waveforms, and mixing of pairs of clips, on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from esc_ensemble.config import AugmentConfig


def augment_waveform(waveform: Tensor, config: AugmentConfig) -> Tensor:
    """Changes each clip of a batch (B, T) in its own random way; draws from the device's default generator.

    Roll, crop and time scale only choose which sample stands where, so they are one gather together:
    position t of the new clip is heard at (start + (speed·t mod length)) mod T of the old one.
    """
    if config.roll or config.crop or config.time_scale:
        waveform = _rewind(waveform, config)
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


def _rewind(waveform: Tensor, config: AugmentConfig) -> Tensor:
    n_samples = waveform.shape[1]
    start = _uniform(waveform, 0.0, 1.0) * _chosen(waveform, config.roll)  # (B, 1), as a part of the clip
    start = (start * n_samples).floor()
    time = torch.arange(n_samples, device=waveform.device)
    if not (config.crop or config.time_scale):
        return waveform.gather(1, (time + start.long()) % n_samples)
    kept = 1.0 - _uniform(waveform, 0.0, 1.0 - config.crop_min) * _chosen(waveform, config.crop)
    length = (kept * n_samples).floor().clamp(min=1.0)
    bend = _uniform(waveform, -1.0, 1.0) * _chosen(waveform, config.time_scale)
    position = (time * config.time_scale_max**bend) % length  # (B, T), float32: exact to 1/128 of a sample
    before = position.floor()
    fraction = position - before
    here = waveform.gather(1, (before + start).long() % n_samples)
    after = waveform.gather(1, ((before + 1) % length + start).long() % n_samples)
    return torch.lerp(here, after, fraction)


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
