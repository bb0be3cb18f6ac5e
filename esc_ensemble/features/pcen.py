"""Per-channel energy normalisation: a slow gain control and root compression for each mel band."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from esc_ensemble.config import PcenConfig


class Pcen(nn.Module):
    """Mel power (B, F, L) to PCEN (B, F, L) (Wang 2017, Lostanlen 2018; librosa's `pcen`).

    With M_t = (1-b) M_{t-1} + b S_t the output is (S / (eps + M)^gain + bias)^power - bias^power.
    The recursion is unrolled into one product with the triangular matrix A[i, j] = b (1-b)^(i-j), so that
    there is no loop over frames, and the smoothing can be learned like the other three parameters.
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
        # Learned in a space where any real number is allowed: logit for (0, 1), log for positive.
        start = {
            "smoothing": math.log(smoothing / (1.0 - smoothing)),
            "gain": math.log(config.gain),
            "bias": math.log(max(config.bias, 1e-6)),
            "power": math.log(config.power),
        }
        if config.learnable:
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
        return (normalised + bias) ** power - bias**power

    def _smooth(self, mel_power: Tensor, smoothing: Tensor) -> Tensor:
        """M (B, F, L) from S (B, F, L); `smoothing` is (1, 1) for all bands or (F, 1)."""
        n_frames = mel_power.shape[-1]
        frame = torch.arange(n_frames, device=mel_power.device)
        age = (frame[:, None] - frame[None, :]).to(mel_power.dtype)  # (L, L): frames from j up to i
        log_keep = torch.log1p(-smoothing)  # (1 | F, 1)
        kept = torch.exp(age.clamp(min=0.0) * log_keep[:, :, None])  # (1 | F, L, L)
        weights = torch.where(age >= 0, smoothing[:, :, None] * kept, 0.0)
        if weights.shape[0] == 1:
            smoothed = mel_power @ weights[0].T  # (B, F, L) @ (L, L)
        else:
            smoothed = torch.einsum("bfj,fij->bfi", mel_power, weights)
        start = mel_power[..., :1] if self.starts_at_first_frame else torch.ones_like(mel_power[..., :1])
        decay = torch.exp((frame + 1).to(mel_power.dtype) * log_keep)  # (1 | F, L)
        return smoothed + decay * start


def smoothing_coefficient(time_constant: float, frames_per_second: float) -> float:
    """Gives b of the first-order smoother with this time constant in seconds (librosa's formula)."""
    frames = time_constant * frames_per_second
    return (math.sqrt(1.0 + 4.0 * frames**2) - 1.0) / (2.0 * frames**2)
