"""Waveforms from one rate to another inside a network, so that one exported file can feed models of several rates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ZERO_CROSSINGS = 64
ROLLOFF = 0.95
"""Where the pass band ends, as a part of the lower rate's Nyquist frequency."""
KAISER_BETA = 14.77  # side lobes 140 dB down


class Resample(nn.Module):
    """Band-limited interpolation (Smith, "Digital Audio Resampling"): (B, T) to (B, ceil(T · new / old)).

    A Kaiser-windowed sinc for each of the `new` phases, as one convolution: it exports to every runtime. Rates are in
    Hz. Below `ROLLOFF` it is within 2e-4 of soxr, which the package uses wherever no graph is in the way.
    """

    kernel: Tensor

    def __init__(self, old_rate: int, new_rate: int) -> None:
        super().__init__()
        shared = math.gcd(old_rate, new_rate)
        self.old, self.new = old_rate // shared, new_rate // shared
        cutoff = ROLLOFF * min(self.old, self.new)  # in units where `old` samples are one step
        self.width = math.ceil(ZERO_CROSSINGS * self.old / cutoff)
        place = torch.arange(-self.width, self.width + self.old, dtype=torch.float64) / self.old
        phase = -torch.arange(self.new, dtype=torch.float64)[:, None] / self.new
        time = (phase + place) * cutoff  # (new, K), in zero crossings
        inside = (1.0 - (time / ZERO_CROSSINGS).square()).clamp(min=0.0).sqrt()
        window = torch.special.i0(KAISER_BETA * inside) / torch.special.i0(torch.tensor(KAISER_BETA))
        window = window * (time.abs() < ZERO_CROSSINGS)
        kernel = torch.sinc(time) * window * cutoff / self.old
        self.register_buffer("kernel", kernel.float()[:, None], persistent=False)  # (new, 1, K)

    def forward(self, waveform: Tensor) -> Tensor:
        n_samples = waveform.shape[1]
        padded = F.pad(waveform, (self.width, self.width + self.old - 1))
        phases = F.conv1d(padded[:, None], self.kernel, stride=self.old)  # (B, new, ceil(T / old))
        n_wanted = (n_samples * self.new + self.old - 1) // self.old
        return phases.transpose(1, 2).flatten(1)[:, :n_wanted]  # (B, new, L) -> (B, L · new) -> (B, n_wanted)
