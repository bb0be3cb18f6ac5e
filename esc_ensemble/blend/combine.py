"""From logits to the ensemble's probabilities, in the same order as the exported graph.

    logits -> / temperature -> log softmax -> mean over shifts -> weighted mean over members -> softmax

`blend_probabilities` is that line written out. The blender takes a shorter way to the same numbers: log
softmax only subtracts a constant from each row, and so does every later softmax, hence the mean over shifts
may come first (`mean_over_shifts`), and each member is one (N, C) array however many shifts it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from esc_ensemble.metrics import log_softmax, softmax

Combiner = Literal["geometric", "arithmetic"]


def chosen_shifts(shifts: np.ndarray, tta: bool) -> np.ndarray:
    """Gives which shifts count: all of them with `tta`, else only 0.0. (S,) seconds -> (S,) bool."""
    return np.ones(len(shifts), dtype=bool) if tta else np.asarray(shifts == 0.0)


def mean_over_shifts(logits: np.ndarray, shifts: np.ndarray, tta: bool) -> np.ndarray:
    """Gives a member's mean logits over the shifts that count.

    Args:
        logits: (S, N, C).
        shifts: (S,) seconds, 0.0 among them.
        tta: whether all shifts count.

    Returns:
        (N, C) float32.
    """
    return np.asarray(logits[chosen_shifts(shifts, tta)].mean(axis=0), dtype=np.float32)


def log_probabilities(logits: np.ndarray, temperatures: np.ndarray | float) -> np.ndarray:
    """Gives calibrated log-probabilities.

    Args:
        logits: (..., C).
        temperatures: one, or one for each row, (...).

    Returns:
        (..., C).
    """
    inverse = np.asarray(1.0 / np.asarray(temperatures), dtype=logits.dtype)
    return log_softmax(logits * inverse[..., None])


def combine(log_probs: np.ndarray, weights: np.ndarray, combiner: Combiner) -> np.ndarray:
    """Gives the weighted mean over members.

    Args:
        log_probs: (M, N, C), each row normalised.
        weights: (M,), not negative, summing to 1.
        combiner: `geometric` means log-probabilities and normalises again (each member holds a veto);
            `arithmetic` means probabilities.

    Returns:
        (N, C) probabilities.
    """
    weights = weights.astype(log_probs.dtype)
    if combiner == "geometric":
        return softmax(np.tensordot(weights, log_probs, axes=1))  # (M,) x (M, N, C) -> (N, C)
    return np.asarray(np.tensordot(weights, np.exp(log_probs), axes=1))  # (M,) x (M, N, C) -> (N, C)


def blend_probabilities(
    logits: Sequence[np.ndarray], temperatures: Sequence[float], weights: np.ndarray, combiner: Combiner
) -> np.ndarray:
    """Gives the ensemble's probabilities step by step, as the exported graph computes them.

    A member of K fold models goes in as K entries, each with its own temperature and a K-th of the weight.

    Args:
        logits: for each entry (S, N, C), holding only the shifts that count; S may differ.
        temperatures: one for each entry.
        weights: one for each entry, summing to 1.
        combiner: see `combine`.

    Returns:
        (N, C) probabilities.
    """
    means = [
        log_softmax(values / values.dtype.type(temperature)).mean(axis=0)  # (S, N, C) -> (N, C)
        for values, temperature in zip(logits, temperatures, strict=True)
    ]
    # The mean over shifts of log-probabilities is no longer normalised; the arithmetic mean needs it to be.
    return combine(log_softmax(np.stack(means)), weights, combiner)
