"""Temperature scaling of one member (Guo et al. 2017): divide its logits by the T of least log loss."""

from __future__ import annotations

import numpy as np

from esc_ensemble.errors import LogitsError

MIN_TEMPERATURE = 0.05
MAX_TEMPERATURE = 20.0
MAX_STEPS = 60
# Relative change of T at which the search stops; the log loss is flat there to about its square.
TOLERANCE = 1e-6


def fit_temperature(logits: np.ndarray, labels: np.ndarray, start: float = 1.0) -> float:
    """Gives the temperature with the least log loss of softmax(logits / T).

    The loss is convex in b = 1/T, so Newton's method on its slope, kept inside a shrinking bracket, finds the
    one minimum in a few passes over the logits.

    Args:
        logits: (N, C).
        labels: (N,), -1 where unknown; those clips do not count.
        start: temperature to begin at; a near one saves steps.

    Returns:
        T in [`MIN_TEMPERATURE`, `MAX_TEMPERATURE`]; an end of it where the loss still falls there.

    Raises:
        LogitsError: no clip has a label.
    """
    known = labels >= 0
    if not known.any():
        raise LogitsError("A temperature cannot be fitted: no clip has a label.")
    margins = logits[known].T.astype(np.float64)  # (N, C) -> (C, N): sums over classes then run along memory
    margins -= margins[labels[known], np.arange(margins.shape[1])]
    top = margins.max(axis=0)  # (N,)
    margins -= top

    low, high = 1.0 / MAX_TEMPERATURE, 1.0 / MIN_TEMPERATURE
    if _slope(margins, top, low)[0] >= 0.0:
        return MAX_TEMPERATURE
    inverse = float(np.clip(1.0 / start, low, high))
    for _ in range(MAX_STEPS):
        slope, curvature = _slope(margins, top, inverse)
        low, high = (inverse, high) if slope < 0.0 else (low, inverse)
        proposed = inverse - slope / curvature if curvature > 0.0 else np.inf
        if proposed >= 1.0 / MIN_TEMPERATURE and _slope(margins, top, 1.0 / MIN_TEMPERATURE)[0] <= 0.0:
            return MIN_TEMPERATURE
        if not low <= proposed <= high:
            proposed = float(np.sqrt(low * high))
        step, inverse = abs(proposed - inverse), float(proposed)
        if step <= TOLERANCE * inverse:
            break
    return 1.0 / inverse


def _slope(margins: np.ndarray, top: np.ndarray, inverse: float) -> tuple[float, float]:
    """Gives the first and second derivative of the mean log loss with respect to 1/T.

    Args:
        margins: (C, N) logits minus the clip's largest one.
        top: (N,) the largest logit minus the true class's.
        inverse: 1/T.
    """
    powers = np.exp(inverse * margins)
    total = powers.sum(axis=0)
    powers *= margins
    first = powers.sum(axis=0) / total
    second = np.einsum("cn,cn->n", powers, margins) / total
    return float((first + top).mean()), float((second - first**2).mean())
