"""SpecAugment and spectral colouring for a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from esc_ensemble.config import AugmentConfig

N_KNOTS = 4


def spec_augment(features: Tensor, config: AugmentConfig) -> Tensor:
    """Puts 0 (the mean of standardised features) over random stretches of time and ranges of bands (Park 2019).

    Each mask's width is drawn from 0 to its largest, and its place so that it fits, for each clip on its own.
    Draws from the default generator of the features' device.

    Args:
        features: (B, channels, F, L).
        config: numbers and sizes of masks, and the probability that a clip is masked at all.
    """
    batch, _, n_mels, n_frames = features.shape
    hidden_time = _masks(batch, n_frames, config.time_masks, config.time_mask_max, features.device)  # (B, L)
    hidden_bands = _masks(batch, n_mels, config.frequency_masks, config.frequency_mask_max, features.device)  # (B, F)
    chosen = torch.rand(batch, 1, 1, device=features.device) < config.spec_probability
    hidden = (hidden_time[:, None, :] | hidden_bands[:, :, None]) & chosen  # (B, F, L)
    return features.masked_fill(hidden[:, None], 0.0)


def bend_bands(features: Tensor, config: AugmentConfig) -> Tensor:
    """Lifts and cuts bands along a random smooth curve, one for each clip (after FilterAugment, Nam 2022).

    Adding to log-mel is multiplying the spectrum: the colouring that microphones, rooms and distances make. The
    curve is added to every channel, though to PCEN, which takes slow colouring out, that happens in no recording.

    Args:
        features: (B, channels, F, L), standardised.
        config: the probability that a clip is bent, and how far.
    """
    if not config.band_gain:
        return features
    batch, _, n_mels, _ = features.shape
    knots = (2.0 * torch.rand(batch, 1, N_KNOTS, device=features.device) - 1.0) * config.band_gain_max
    chosen = torch.rand(batch, 1, 1, device=features.device) < config.band_gain
    curve = F.interpolate(knots * chosen, size=n_mels, mode="linear", align_corners=True)  # (B, 1, F)
    return features + curve[:, :, :, None]


def _masks(batch: int, size: int, n_masks: int, largest: int, device: torch.device) -> Tensor:
    """(B, size) bool, True where one of `n_masks` stretches of 0 to `largest` places lies."""
    width = torch.rand(batch, n_masks, 1, device=device) * (min(largest, size) + 1)
    width = width.floor()
    start = (torch.rand(batch, n_masks, 1, device=device) * (size - width + 1)).floor()
    place = torch.arange(size, device=device)
    return ((place >= start) & (place < start + width)).any(dim=1)  # (B, n_masks, size) -> (B, size)
