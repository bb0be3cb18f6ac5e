"""From logits to the ensemble's probabilities, in the same order as the exported graph.

    logits -> weighted mean over shifts -> evidence -> weighted mean over members -> / temperature -> softmax

`blend_probabilities` is that line written out. What a member's logits say is its *evidence*, of which there are four
kinds; the weighted mean of the evidence is what gives a combiner its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from esc_ensemble.config.blend import Combiner
from esc_ensemble.metrics import log_softmax, softmax

COMBINERS: tuple[Combiner, ...] = get_args(Combiner)


@dataclass(frozen=True, eq=False)
class Mixture:
    """How members become one: all that is fitted beside their own temperatures."""

    combiner: Combiner
    """What is averaged; see `evidence`."""
    weights: np.ndarray
    """(M,) not negative, summing to 1."""
    shift_weights: tuple[np.ndarray, ...]
    """M arrays (S,), each not negative and summing to 1."""
    temperature: float = 1.0
    """What the blend's own log-probabilities (or points) are divided by."""
    class_weights: np.ndarray | None = None
    """(M, C) in the place of `weights`, which then are their means."""
    bias: np.ndarray | None = None
    """(C,) added to the blend's scores of classes."""


def mean_over_shifts(logits: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
    """Gives a member's weighted mean of logits over shifts: (S, N, C), (S,) -> (N, C) float32; equal where None."""
    if shares is None:
        return np.asarray(logits.mean(axis=0), dtype=np.float32)
    return np.asarray(np.einsum("s,snc->nc", shares.astype(logits.dtype), logits), dtype=np.float32)


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


def evidence(logits: np.ndarray, temperatures: np.ndarray | float, combiner: Combiner) -> np.ndarray:
    """Gives what members say, in the form that is averaged over them.

    - `geometric`: calibrated log-probabilities: each member holds a veto.
    - `arithmetic`: calibrated probabilities.
    - `logits`: the logits themselves, less their mean over classes; temperatures play no part.
    - `rank`: Borda's points, the number of classes that a class beats (half of one for a tie).

    Args:
        logits: (..., C).
        temperatures: one, or one for each row, (...).
        combiner: the kind.

    Returns:
        (..., C) in the dtype of `logits`.
    """
    if combiner == "logits":
        return np.asarray(logits - logits.mean(axis=-1, keepdims=True))
    if combiner == "rank":
        from scipy.stats import rankdata  # noqa: PLC0415 - half a second that few blends need

        return np.asarray(rankdata(logits, axis=-1) - 1.0, dtype=logits.dtype)
    log_probs = log_probabilities(logits, temperatures)
    return log_probs if combiner == "geometric" else np.asarray(np.exp(log_probs))


def combine(members: np.ndarray, mixture: Mixture) -> np.ndarray:
    """Gives the blend's probabilities.

    Args:
        members: (M, N, C) evidence of the mixture's kind.
        mixture: weights and temperature.

    Returns:
        (N, C) probabilities.
    """
    if mixture.class_weights is not None:
        mixed = np.einsum("mc,mnc->nc", mixture.class_weights.astype(members.dtype), members)
    else:
        mixed = np.einsum("m,mnc->nc", mixture.weights.astype(members.dtype), members)
    if mixture.combiner == "arithmetic":
        if mixture.temperature == 1.0 and mixture.bias is None:
            return np.asarray(mixed)
        mixed = np.log(np.maximum(mixed, np.finfo(members.dtype).tiny))
    if mixture.bias is not None:
        mixed = mixed + mixture.bias.astype(members.dtype)
    return softmax(mixed / members.dtype.type(mixture.temperature))


def blend_probabilities(
    logits: Sequence[np.ndarray], temperatures: Sequence[float | np.ndarray], mixture: Mixture
) -> np.ndarray:
    """Gives the ensemble's probabilities from all logits, as the exported graph computes them.

    A member of K fold models goes in as K entries, each with its own temperature and a K-th of the weight.

    Args:
        logits: for each entry (S, N, C), holding only the shifts that count; S may differ.
        temperatures: for each entry one, or one for each clip, (N,).
        mixture: one weight and one array of shift weights for each entry.

    Returns:
        (N, C) probabilities.
    """
    members = [
        evidence(mean_over_shifts(values, shares), temperature, mixture.combiner)
        for values, shares, temperature in zip(logits, mixture.shift_weights, temperatures, strict=True)
    ]
    return combine(np.stack(members), mixture)
