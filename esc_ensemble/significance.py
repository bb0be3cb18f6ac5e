"""Whether one set of predictions is better than another by more than chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esc_ensemble.metrics import bootstrap_interval, clip_losses


@dataclass(frozen=True)
class Comparison:
    """One set of predictions against another, clip by clip."""

    top1: float
    """Gain in top-1."""
    top1_interval: tuple[float, float]
    """Its 95 % interval over resampled sources."""
    log_loss: float
    """Change of the log loss; below 0 is better."""
    log_loss_interval: tuple[float, float]
    """Its 95 % interval over resampled sources."""
    mcnemar_p: float
    """Probability of so uneven a split of the clips that only one gets right, were both as good."""
    only_first_right: int
    """Clips that only the first gets right."""
    only_second_right: int
    """Clips that only the second gets right."""


def compare_predictions(
    first: np.ndarray,
    second: np.ndarray,
    labels: np.ndarray,
    sources: np.ndarray,
    *,
    n_draws: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compares two sets of probabilities (N, C) of the same clips by a paired bootstrap and McNemar's test.

    Args:
        first: (N, C).
        second: (N, C).
        labels: (N,), -1 where unknown; those clips do not count.
        sources: (N,) the recording each clip was cut from.
        n_draws: how many resamples.
        seed: start of the random numbers.
    """
    known = labels >= 0
    labels, sources = labels[known], sources[known]
    hit = [probabilities[known].argmax(axis=1) == labels for probabilities in (first, second)]
    gain = hit[0].astype(np.float64) - hit[1]
    change = clip_losses(first[known], labels) - clip_losses(second[known], labels)
    only_first, only_second = int((hit[0] & ~hit[1]).sum()), int((hit[1] & ~hit[0]).sum())
    return Comparison(
        top1=float(gain.mean()),
        top1_interval=bootstrap_interval(gain, sources, n_draws, seed),
        log_loss=float(change.mean()),
        log_loss_interval=bootstrap_interval(change, sources, n_draws, seed),
        mcnemar_p=mcnemar(only_first, only_second),
        only_first_right=only_first,
        only_second_right=only_second,
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Gives the two-sided p of McNemar's exact test (1947; Edwards 1948), a fair coin thrown for each such clip.

    It takes clips for independent, which clips of one recording are not: the bootstrap over sources does not.
    """
    from scipy.stats import binomtest  # noqa: PLC0415 - half a second that few need

    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)
