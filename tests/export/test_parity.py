from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from esc_ensemble.errors import WorkError
from esc_ensemble.export.fused import FusedBlend, load_parts, mixing_of
from esc_ensemble.export.parity import BATCH_SIZE, LARGEST_DIFFERENCE, check_parity
from esc_ensemble.export.source import read_source
from tests.conftest import Made

WAVES = np.random.default_rng(0).normal(0, 0.1, size=(BATCH_SIZE + 3, 8000)).astype(np.float32)


@pytest.fixture(scope="module")
def fused(made: Made) -> FusedBlend:
    content = read_source(made.blend)
    return FusedBlend(load_parts(content, made.blend), mixing_of(content)).eval()


def changed(fused: FusedBlend, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    def probabilities(waves: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return change(fused(torch.from_numpy(waves)).numpy())

    return probabilities


def test_clips_are_tried_alone_together_and_at_another_length(fused: FusedBlend) -> None:
    shapes = []

    def note(waves: np.ndarray) -> np.ndarray:
        shapes.append(waves.shape)
        return changed(fused, lambda found: found + 2e-5)(waves)

    parity = check_parity(fused, note, WAVES, "it")
    assert shapes == [(16, 8000), (3, 8000), (1, 8000), (3, 8000), (1, 5600), (3, 5600)]
    assert parity.n_clips == 19
    assert parity.same_top1
    assert parity.max_difference == pytest.approx(2e-5, rel=0.01)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found + 2 * LARGEST_DIFFERENCE,
        lambda found: np.full_like(found, np.nan),
        lambda found: found * np.where(np.arange(len(found)) == len(found) - 1, 1.001, 1.0)[:, None],
    ],
)
def test_a_difference_is_refused(fused: FusedBlend, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(WorkError, match=r"it and torch disagree.*was not written"):
        check_parity(fused, changed(fused, change), 10 * WAVES, "it")


def test_another_top_class_is_refused_however_near(fused: FusedBlend) -> None:
    class Undecided(torch.nn.Module):
        def forward(self, waves: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.500001, 0.499999]]).repeat(len(waves), 1)

    def other(waves: np.ndarray) -> np.ndarray:
        return np.array([[0.499999, 0.500001]], dtype=np.float32).repeat(len(waves), axis=0)

    with pytest.raises(WorkError, match="disagree"):
        check_parity(Undecided(), other, WAVES, "it")  # type: ignore[arg-type]
