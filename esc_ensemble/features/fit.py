"""Silence cut and length fitted inside a network, so that an exported file hears any waveform as it was trained to."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from esc_ensemble.data.audio import trim_frame


class FitToLength(nn.Module):
    """Waveforms of any length T >= 1 to the length that models were trained on: (B, T) -> (B, N).

    Each clip of the batch by itself, as `esc_ensemble.data.audio` does it to files: ends that stay more than `trim_db`
    below the clip's peak are cut in whole frames of 10 ms, of what is longer the middle stays, and what is shorter is
    repeated (tile) or followed by zeros (pad). So clips of different lengths go into one batch with zeros behind them,
    as long as silence is cut.
    """

    def __init__(self, n_samples: int, fit: Literal["tile", "pad"], trim_db: float, sample_rate: int) -> None:
        super().__init__()
        self.n_samples = n_samples
        self.tiles = fit == "tile"
        self.trim_db = trim_db
        self.frame = trim_frame(sample_rate)

    def forward(self, waveform: Tensor) -> Tensor:
        start, n_kept = self._sounding(waveform)  # (B, 1) each
        start = start + (n_kept - self.n_samples).clamp(min=0) // 2
        place = torch.arange(self.n_samples, device=waveform.device)[None]  # (1, N)
        if self.tiles:
            return waveform.gather(1, start + place.remainder(n_kept))
        inside = place < n_kept
        return waveform.gather(1, torch.where(inside, start + place, start)) * inside

    def _sounding(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Gives where each clip's sound begins, and how long it is, in samples."""
        levels = waveform.abs()
        place = torch.arange(1, levels.shape[1] + 1, device=waveform.device)[None]  # (1, T)
        whole = place.amax(dim=1, keepdim=True).expand(levels.shape[0], 1)  # T, for each clip
        if self.trim_db <= 0.0:
            return torch.zeros_like(whole), whole
        peak = levels.amax(dim=1, keepdim=True)
        loud = levels >= peak * 10.0 ** (-self.trim_db / 20.0)  # all of a silent clip
        first = torch.where(loud, place, whole).amin(dim=1, keepdim=True) - 1
        last = (place * loud).amax(dim=1, keepdim=True) - 1
        start = first // self.frame * self.frame
        stop = torch.minimum((last // self.frame + 1) * self.frame, whole)
        return start, stop - start
