"""Silence cut and length fitted inside a network, so that an exported file hears any waveform as it was trained to."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esc_ensemble.data.audio import trim_frame

ROW = 512


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
        # Places 0 to N - 1 as rows plus columns, so that no list of N numbers is kept in an exported file.
        row = torch.arange(0, self.n_samples, ROW, device=waveform.device)[None, :, None]
        column = torch.arange(ROW, device=waveform.device)
        length = n_kept[:, :, None]  # (B, 1, 1)
        if self.tiles:
            return waveform.gather(1, start + self._flat((row.remainder(length) + column).remainder(length)))
        inside = self._flat(length - row > column)
        place = self._flat((start[:, :, None] + row) + column)
        return waveform.gather(1, torch.where(inside, place, start)) * inside

    def _flat(self, values: Tensor) -> Tensor:
        """(B, rows, columns) -> (B, N)."""
        return values.flatten(1)[:, : self.n_samples]

    def _sounding(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Gives where each clip's sound begins, and how long it is, in samples."""
        # At least two frames, and no pooling: exporters fix a single frame, and for pooling how the length divides.
        n_frames = waveform.shape[1] // self.frame + 2
        padded = F.pad(waveform.abs(), (0, n_frames * self.frame - waveform.shape[1]))
        frame_peaks = padded.reshape(-1, n_frames, self.frame).amax(dim=2)  # (B, frames), silent ones last
        number = torch.arange(1, frame_peaks.shape[1] + 1, device=waveform.device)[None]
        whole = torch.zeros_like(frame_peaks[:, :1], dtype=torch.int64) + waveform.shape[1]  # (B, 1), T for each clip
        if self.trim_db <= 0.0:
            return torch.zeros_like(whole), whole
        peak = frame_peaks.amax(dim=1, keepdim=True)
        loud = frame_peaks >= peak * 10.0 ** (-self.trim_db / 20.0)  # all of a silent clip
        last = (number * loud).amax(dim=1, keepdim=True)
        first = number.shape[1] - (number.flip(1) * loud).amax(dim=1, keepdim=True)
        start = first * self.frame
        return start, torch.minimum(last * self.frame, whole) - start
