"""Mixing of pairs of training clips: two sounds at once, labels mixed alike. All labels are soft."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from esc_ensemble.config import MixConfig

WAVEFORM_MIXES = ("between_class", "energy_mixup")
FEATURE_MIXES = ("mixup", "cutmix")
LOUDNESS_FRAME_SECONDS = 0.05
SILENCE = 1e-12
"""Mean square below which a clip is silent."""
UNION = "energy_mixup"
"""The mix whose labels are a union (all wholly true), to be judged by binary cross-entropy."""


def draw_mix(config: MixConfig) -> str:
    """Gives the name of the mix for one step, or an empty text, from torch's default generator on the CPU."""
    names = [name for name in (*FEATURE_MIXES, *WAVEFORM_MIXES) if getattr(config, name)]
    if not names:
        return ""
    point = torch.rand(()).item()
    for name in names:
        point -= getattr(config, name)
        if point < 0.0:
            return name
    return ""


def mix_waveforms(
    waveform: Tensor, targets: Tensor, name: str, config: MixConfig, sample_rate: int
) -> tuple[Tensor, Tensor]:
    """Applies a mix of waveforms (B, T) and class probabilities (B, C); other mixes change nothing."""
    if name == "between_class":
        return mix_between_classes(waveform, targets, sample_rate)
    if name == "energy_mixup":
        return mix_energies(waveform, targets, config.energy_mixup_db)
    return waveform, targets


def mix_features(features: Tensor, targets: Tensor, name: str, config: MixConfig) -> tuple[Tensor, Tensor]:
    """Applies a mix of features (B, channels, F, L) and class probabilities (B, C); other mixes change nothing."""
    if name == "mixup":
        return mixup(features, targets, config.mixup_alpha)
    if name == "cutmix":
        return cutmix(features, targets)
    return features, targets


def mixup(features: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang 2018): each clip with another of the batch, at its own ratio from Beta(alpha, alpha).

    Args:
        features: (B, ...).
        targets: class probabilities (B, C).
        alpha: below 1 most mixes are nearly one of the two.

    Returns:
        Mixed features and mixed targets, shapes unchanged.
    """
    batch = len(features)
    concentration = torch.full((batch,), alpha)
    ratio = torch.distributions.Beta(concentration, concentration).sample().to(features.device)
    partner = torch.randperm(batch).to(features.device)
    share = ratio.view(-1, *[1] * (features.ndim - 1))  # (B,) -> (B, 1, ..., 1)
    mixed = torch.lerp(features[partner], features, share.to(features.dtype))
    return mixed, torch.lerp(targets[partner], targets, ratio[:, None])


def cutmix(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """CutMix (Yun 2019) over time and frequency: a piece of another clip's map, labels by area.

    The piece's area is uniform in (0, 1) and its shape random, from a stretch of time over all bands to a range
    of bands over all time.

    Args:
        features: (B, channels, F, L).
        targets: class probabilities (B, C).
    """
    batch, _, n_mels, n_frames = features.shape
    device = features.device
    area, shape = torch.rand(2, batch, 1, device=device)
    bands = _piece(n_mels, area**shape)  # (B, F)
    frames = _piece(n_frames, area ** (1.0 - shape))  # (B, L)
    inside = bands[:, :, None] & frames[:, None, :]  # (B, F, L)
    partner = torch.randperm(batch).to(device)
    share = inside.flatten(1).float().mean(dim=1, keepdim=True)  # (B, 1)
    mixed = torch.where(inside[:, None], features[partner], features)
    return mixed, torch.lerp(targets, targets[partner], share)


def mix_between_classes(waveform: Tensor, targets: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Between-class mixing (Tokozume 2018): waveforms of two classes, the ratio being one of heard loudness.

    With r uniform in (0, 1) and G the largest A-weighted frame level in dB of each,
    p = 1 / (1 + 10^((G1 - G2) / 20) (1 - r) / r) and x = (p x1 + (1 - p) x2) / sqrt(p^2 + (1 - p)^2);
    the label is mixed by r.

    Args:
        waveform: (B, T).
        targets: class probabilities (B, C).
        sample_rate: in Hz.
    """
    partner = _of_other_classes(targets)
    ratio = torch.rand(len(waveform), 1, device=waveform.device).clamp_(1e-3, 1.0 - 1e-3)
    level = loudness(waveform, sample_rate)[:, None]  # (B, 1)
    difference = (level - level[partner]).clamp(-60.0, 60.0)  # silence next to sound stays finite
    share = 1.0 / (1.0 + 10.0 ** (difference / 20.0) * (1.0 - ratio) / ratio)
    mixed = share * waveform + (1.0 - share) * waveform[partner]
    mixed = mixed / (share.square() + (1.0 - share).square()).sqrt()
    return mixed, torch.lerp(targets[partner], targets, ratio)


def mix_energies(waveform: Tensor, targets: Tensor, spread_db: float) -> tuple[Tensor, Tensor]:
    """Energy-aware mixup (after Gazneli 2022): waveforms at about equal energy, so both can be heard.

    The other clip is brought to this one's energy, give or take `spread_db`, and added; the sum keeps this
    one's energy. Labels are the union: (B, C) with 1 for every class that sounds. Silence is not mixed.

    Args:
        waveform: (B, T).
        targets: class probabilities (B, C).
        spread_db: largest difference in energy in dB.
    """
    partner = torch.randperm(len(waveform)).to(waveform.device)
    energy = waveform.square().mean(dim=1, keepdim=True)  # (B, 1)
    decibel = (2.0 * torch.rand(len(waveform), 1, device=waveform.device) - 1.0) * spread_db
    gain = (energy / energy[partner].clamp(min=SILENCE)).sqrt() * 10.0 ** (decibel / 20.0)
    mixed = waveform + gain * waveform[partner]
    mixed = mixed * (energy / mixed.square().mean(dim=1, keepdim=True).clamp(min=SILENCE)).sqrt()
    audible = torch.minimum(energy, energy[partner]) > SILENCE  # (B, 1)
    return torch.where(audible, mixed, waveform), torch.where(
        audible, torch.maximum(targets, targets[partner]), targets
    )


def mixed_loss(logits: Tensor, targets: Tensor, name: str, *, smoothing: float, kl: bool) -> Tensor:
    """Mean loss of logits (B, C) against what a mix made of the labels.

    Unions are judged by binary cross-entropy, summed over classes, all else by cross-entropy against soft
    labels; `kl` takes the labels' own entropy off, which leaves the gradient as it is.
    """
    if name == UNION:
        smooth = torch.lerp(targets, torch.full_like(targets, 0.5), smoothing)
        return F.binary_cross_entropy_with_logits(logits, smooth, reduction="sum") / len(logits)
    smooth = torch.lerp(targets, torch.full_like(targets, 1.0 / targets.shape[1]), smoothing)
    loss = F.cross_entropy(logits, smooth)
    return loss + torch.special.xlogy(smooth, smooth).sum(dim=1).mean() if kl else loss


def loudness(waveform: Tensor, sample_rate: int) -> Tensor:
    """Largest A-weighted frame level of each clip in dB: (B, T) -> (B,)."""
    n_fft = 2 ** round(math.log2(LOUDNESS_FRAME_SECONDS * sample_rate))
    n_fft = min(n_fft, waveform.shape[1])
    frames = waveform.unfold(1, n_fft, max(1, n_fft // 2))  # (B, L, n_fft), a view
    window = torch.hann_window(n_fft, device=waveform.device)
    power = torch.fft.rfft(frames * window).abs().square()  # (B, L, bins)
    weights = 10.0 ** (a_weighting(torch.fft.rfftfreq(n_fft, 1.0 / sample_rate)) / 10.0)
    return 10.0 * (power @ weights.to(power)).amax(dim=1).clamp(min=1e-12).log10()


def a_weighting(frequency: Tensor) -> Tensor:
    """A-weighting of IEC 61672 in dB at frequencies in Hz, no lower than -80."""
    square = frequency.double().square()
    poles = (20.598997, 107.65265, 737.86223, 12194.217)
    c1, c2, c3, c4 = (pole**2 for pole in poles)
    gain = c4 * square.square() / ((square + c1) * (square + c4) * ((square + c2) * (square + c3)).sqrt())
    return (20.0 * gain.clamp(min=1e-12).log10() + 2.0).clamp(min=-80.0).float()


def _of_other_classes(targets: Tensor) -> Tensor:
    """For each clip the number (B,) of a random one whose class is another; any, where all are of one class."""
    labels = targets.argmax(dim=1)
    score = torch.rand(len(targets), len(targets), device=targets.device)
    return (score - (labels[:, None] == labels[None, :]).float()).argmax(dim=1)


def _piece(size: int, share: Tensor) -> Tensor:
    """(B, size) bool, True inside one stretch of about `share` (B, 1) of the size, at a random place."""
    width = (share * size).round()
    start = (torch.rand_like(share) * (size - width + 1)).floor()
    place = torch.arange(size, device=share.device)
    return (place >= start) & (place < start + width)
