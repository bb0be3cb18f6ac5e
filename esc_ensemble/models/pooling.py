"""Feature maps to vectors."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_max_pool(maps: Tensor) -> Tensor:
    """Mean over bands, then mean and maximum over time, side by side: (B, D, F, L) -> (B, 2 D).

    The mean holds what a lasting sound is like, the maximum what a short one is, however brief.
    """
    over_time = maps.mean(dim=2)  # (B, D, F, L) -> (B, D, L)
    return torch.cat([over_time.mean(dim=2), over_time.amax(dim=2)], dim=1)
