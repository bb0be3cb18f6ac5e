from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from esc_ensemble.errors import WorkError
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.parity import LARGEST_DIFFERENCE, Parity, check_parity, measure_parity
from esc_ensemble.export.parts import load_parts, mixing_of
from esc_ensemble.export.source import read_source
from tests.conftest import Made

RNG = np.random.default_rng(0)
WAVES = [RNG.normal(0, 0.1, size=size).astype(np.float32) for size in (8000, 6000, 9000, 8000)]


@pytest.fixture(scope="module")
def fused(made: Made) -> FusedBlend:
    content = read_source(made.blend)
    return FusedBlend(load_parts(content, made.blend), mixing_of(content)).eval()


def changed(fused: FusedBlend, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    def probabilities(waves: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return change(fused(torch.from_numpy(waves)).numpy())

    return probabilities


def test_clips_are_tried_alone_together_at_odd_lengths_and_faint(fused: FusedBlend) -> None:
    heard = []

    def note(waves: np.ndarray) -> np.ndarray:
        heard.append(waves)
        return changed(fused, lambda found: found + 2e-5)(waves)

    parity = measure_parity(fused, note, WAVES)
    assert [waves.shape for waves in heard] == [
        *((1, 8000), (1, 6000), (1, 9000), (1, 8000)),
        *((3, 9000), (1, 401), (1, 16000), (1, 8000)),
    ]
    assert not heard[4][1, 6000:].any()
    assert np.abs(heard[-1]).max() == pytest.approx(0.01 * np.abs(WAVES[0]).max())
    assert parity.n_clips == 4
    assert parity.same_top1
    assert parity.max_difference == pytest.approx(2e-5, rel=0.01)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found + 2 * LARGEST_DIFFERENCE,
        lambda found: np.full_like(found, np.nan),
        lambda found: np.roll(found, 1, axis=1),
    ],
)
def test_a_difference_is_refused(fused: FusedBlend, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(WorkError, match=r"it and torch disagree.*was not written"):
        check_parity(measure_parity(fused, changed(fused, change), WAVES), "it")


def test_another_top_class_is_refused_however_near() -> None:
    check_parity(Parity(3, 1e-6, same_top1=True), "it")
    with pytest.raises(WorkError, match="disagree"):
        check_parity(Parity(3, 1e-6, same_top1=False), "it")
