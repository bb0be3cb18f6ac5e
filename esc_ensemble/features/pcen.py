"""Per-channel energy normalisation: a slow gain control and root compression for each mel band."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esc_ensemble.config import PcenConfig

SMALLEST_LEARNED = 1e-6

BLOCK = 32


class Pcen(nn.Module):
    """Mel power (B, F, L) to PCEN (B, F, L) (Wang 2017, Lostanlen 2018; librosa's `pcen`).

    With M_t = (1-b) M_{t-1} + b S_t the output is (S / (eps + M)^gain + bias)^power - bias^power.
    The recursion is unrolled into products with triangular matrices A[i, j] = (1-b)^(i-j), inside blocks of
    frames and then from block to block, so that there is no loop over frames, and the smoothing can be learned
    like the other three parameters.
    """

    smoothing: Tensor
    gain: Tensor
    bias: Tensor
    power: Tensor

    def __init__(self, config: PcenConfig, n_mels: int, frames_per_second: float) -> None:
        super().__init__()
        self.eps = config.eps
        self.starts_at_first_frame = config.initial_state == "first_frame"
        self.learnable = config.learnable
        smoothing = smoothing_coefficient(config.time_constant, frames_per_second)
        if config.learnable:
            # Learned in a space where any real number is allowed: logit for (0, 1), log for positive.
            start = {
                "smoothing": math.log(smoothing / (1.0 - smoothing)),
                "gain": math.log(max(config.gain, SMALLEST_LEARNED)),
                "bias": math.log(max(config.bias, SMALLEST_LEARNED)),
                "power": math.log(config.power),
            }
            for name, value in start.items():
                self.register_parameter(name, nn.Parameter(torch.full((n_mels, 1), value)))
        else:
            fixed = {"smoothing": smoothing, "gain": config.gain, "bias": config.bias, "power": config.power}
            for name, value in fixed.items():
                self.register_buffer(name, torch.tensor([[value]]), persistent=False)

    def forward(self, mel_power: Tensor) -> Tensor:
        if self.learnable:
            smoothing, gain = self.smoothing.sigmoid(), self.gain.exp()
            bias, power = self.bias.exp(), self.power.exp()
        else:
            smoothing, gain, bias, power = self.smoothing, self.gain, self.bias, self.power
        smoothed = self._smooth(mel_power, smoothing)
        # S / (eps + M)^gain through logarithms: a large power never overflows on the way.
        normalised = mel_power * torch.exp(-gain * torch.log(self.eps + smoothed))
        return torch.exp(power * torch.log(normalised + bias)) - bias**power  # on a CPU twice as fast as **

    def _smooth(self, mel_power: Tensor, smoothing: Tensor) -> Tensor:
        """M (B, F, L) from S (B, F, L); `smoothing` is (1, 1) for all bands or (F, 1)."""
        n_frames = mel_power.shape[-1]
        n_blocks = (n_frames + BLOCK - 1) // BLOCK
        padded = F.pad(mel_power, (0, n_blocks * BLOCK - n_frames))
        blocks = padded.reshape(*padded.shape[:-1], n_blocks, BLOCK)  # (B, F, L) -> (B, F, n_blocks, BLOCK)
        log_keep = torch.log1p(-smoothing)  # (1 | F, 1)
        inside = _decayed_sums(smoothing[:, :, None] * blocks, log_keep)  # M if nothing came before the block
        start = mel_power[..., :1] if self.starts_at_first_frame else torch.ones_like(mel_power[..., :1])
        ends = torch.cat([start, inside[..., -1]], dim=-1)  # (B, F, 1 + n_blocks)
        before = _decayed_sums(ends, BLOCK * log_keep)[..., :-1]  # M of the frame before each block
        age = torch.arange(1, BLOCK + 1, device=mel_power.device).to(mel_power.dtype)
        smoothed = inside + before[..., None] * torch.exp(age * log_keep)[:, None, :]
        return smoothed.flatten(-2)[..., :n_frames]  # (B, F, n_blocks, BLOCK) -> (B, F, L)


def _decayed_sums(values: Tensor, log_keep: Tensor) -> Tensor:
    """Gives sum over j <= i of exp(log_keep·(i - j))·values[..., j]: (B, F, ..., n) -> same; log_keep (1 | F, 1)."""
    place = torch.arange(values.shape[-1], device=values.device)
    age = (place[:, None] - place[None, :]).to(values.dtype)
    kept = torch.where(age >= 0, torch.exp(age.clamp(min=0.0) * log_keep[:, :, None]), 0.0)  # (1 | F, n, n)
    if len(kept) == 1:
        return values @ kept[0].T
    return torch.einsum("bf...j,fij->bf...i", values, kept)


def smoothing_coefficient(time_constant: float, frames_per_second: float) -> float:
    """Gives b of the first-order smoother with this time constant in seconds.

    librosa's (sqrt(1 + 4 t^2) - 1) / (2 t^2), written so that a small t loses no digits.
    """
    frames = time_constant * frames_per_second
    return 2.0 / (math.sqrt(1.0 + 4.0 * frames**2) + 1.0)
