from __future__ import annotations

import torch

from esc_ensemble.models.pooling import mean_max_pool


def test_pooling_means_over_bands_then_takes_mean_and_maximum_over_time() -> None:
    maps = torch.tensor([[[[1.0, 2.0, 9.0], [3.0, 0.0, -1.0]], [[0.0, 0.0, 0.0], [-2.0, -4.0, -6.0]]]])
    # Over bands: (2, 1, 4) and (-1, -2, -3).
    torch.testing.assert_close(mean_max_pool(maps), torch.tensor([[7 / 3, -2.0, 4.0, -1.0]]))


def test_pooling_takes_any_number_of_frames() -> None:
    assert mean_max_pool(torch.randn(2, 5, 3, 1)).shape == (2, 10)
    assert mean_max_pool(torch.randn(2, 5, 3, 77)).shape == (2, 10)
