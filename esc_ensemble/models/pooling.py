"""Feature maps and frames to vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST_VARIANCE = 1e-6


def mean_max_pool(maps: Tensor) -> Tensor:
    """Mean over bands, then mean and maximum over time, side by side: (B, D, F, L) -> (B, 2 D).

    The mean holds what a lasting sound is like, the maximum what a short one is, however brief.
    """
    over_time = maps.mean(dim=2)  # (B, D, F, L) -> (B, D, L)
    return torch.cat([over_time.mean(dim=2), over_time.amax(dim=2)], dim=1)


class FramePool(nn.Module):
    """Frames (B, D, L) with a mask (B, L), True where there is sound, to vectors (B, `size`).

    `mean` gives the mean over unmasked frames; `statistics` the standard deviation beside it (Snyder 2018); `attention`
    a mean weighted by what a small network says of each frame (Okabe 2018, without its variances).
    """

    def __init__(self, kind: str, size: int, hidden: int) -> None:
        super().__init__()
        self.kind = kind
        self.size = 2 * size if kind == "statistics" else size
        if kind == "attention":
            self.score = nn.Sequential(nn.Linear(size, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        share = self._shares(frames, mask)  # (B, L), sums to 1
        mean = torch.einsum("bdl,bl->bd", frames, share)
        if self.kind != "statistics":
            return mean
        variance = torch.einsum("bdl,bl->bd", (frames - mean[:, :, None]).square(), share)
        return torch.cat([mean, variance.clamp(min=LEAST_VARIANCE).sqrt()], dim=1)

    def _shares(self, frames: Tensor, mask: Tensor) -> Tensor:
        if self.kind == "attention":
            scores = self.score(frames.transpose(1, 2)).squeeze(2).float()  # (B, D, L) -> (B, L)
            return scores.masked_fill(~mask, -torch.inf).softmax(dim=1).to(frames.dtype)
        shares = mask.to(frames.dtype)
        return shares / shares.sum(dim=1, keepdim=True)
