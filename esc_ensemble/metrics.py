"""Scores of class probabilities and how sure they are: accuracy, F1, log loss, calibration, bootstrap."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from esc_ensemble.errors import DataError

METRICS = ("top1", "top3", "macro_f1", "log_loss", "ece")
SELECTION_METRICS = ("top1", "log_loss")
"""Metrics of the selection split that are reported next to those of the test."""
ECE_BINS = 15
# Resampled indices held at once by the bootstrap, 32 MB; more draws are made block by block.
BOOTSTRAP_BLOCK = 1 << 22


def log_softmax(logits: np.ndarray, axis: int = -1) -> np.ndarray:
    """Gives log-probabilities of any shape, normalised along `axis`, in the dtype of `logits`."""
    shifted = logits - logits.max(axis=axis, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


def softmax(logits: np.ndarray, axis: int = -1) -> np.ndarray:
    """Gives probabilities of any shape, summing to 1 along `axis`, in the dtype of `logits`."""
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Gives the part of clips whose true class is among the `k` highest scores.

    Of equal scores the lower class number goes first, as in `argmax`: saying nothing gains nothing.

    Args:
        scores: (N, C), higher is likelier.
        labels: (N,) in 0..C-1.
        k: how many guesses count.
    """
    true = np.take_along_axis(scores, labels[:, None], axis=1)  # (N, 1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]  # (N, C)
    ahead = ((scores > true) | ((scores == true) & earlier)).sum(axis=1)
    return float((ahead < k).mean())


def macro_f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Gives the mean F1 over the classes that occur in `labels` or `predicted` (scikit-learn's `f1_score`).

    Args:
        predicted: (N,) class numbers.
        labels: (N,) class numbers.
    """
    n_classes = int(max(predicted.max(), labels.max())) + 1
    hits = np.bincount(labels[predicted == labels], minlength=n_classes)
    total = np.bincount(labels, minlength=n_classes) + np.bincount(predicted, minlength=n_classes)
    present = total > 0
    return float((2 * hits[present] / total[present]).mean())


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Gives the mean negative log-probability of the true class, in nats.

    Args:
        probabilities: (N, C), rows sum to 1.
        labels: (N,) in 0..C-1.
    """
    return float(clip_losses(probabilities, labels).mean())


def clip_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Gives each clip's negative log-probability of the true class: (N, C), (N,) -> (N,) float64, in nats.

    Probabilities are cut at float64's epsilon, as in scikit-learn, so that one certain mistake stays finite.
    """
    true = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]  # (N, C) -> (N,)
    return np.asarray(-np.log(np.clip(true.astype(np.float64), np.finfo(np.float64).eps, 1.0)))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, n_bins: int = ECE_BINS) -> float:
    """Gives the mean gap between confidence and accuracy over equal-width bins (l, u] (Guo et al. 2017).

    Args:
        probabilities: (N, C), rows sum to 1.
        labels: (N,) in 0..C-1.
        n_bins: bins between 0 and 1.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    hit = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    bins = np.searchsorted(np.linspace(0.0, 1.0, n_bins + 1)[1:-1], confidence, side="left")
    # |accuracy - confidence| weighted by the bin's share of clips is |sum of (hit - confidence)| / N.
    gaps = np.bincount(bins, weights=hit - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(labels))


def score(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Gives top1, top3, macro_f1, log_loss and ece over the labelled clips.

    Args:
        probabilities: (N, C), rows sum to 1.
        labels: (N,), -1 where unknown.

    Raises:
        DataError: no clip has a label.
    """
    known = labels >= 0
    if not known.any():
        raise DataError("There is nothing to score: no clip has a label.")
    probabilities, labels = probabilities[known], labels[known]
    return {
        "top1": top_k_accuracy(probabilities, labels, 1),
        "top3": top_k_accuracy(probabilities, labels, 3),
        "macro_f1": macro_f1(probabilities.argmax(axis=1), labels),
        "log_loss": log_loss(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
    }


def selection_scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns selection_top1 and selection_log_loss of a selection split, nothing where it has no labeled clip.

    Args:
        probabilities: (N, C), rows sum to 1.
        labels: (N,), -1 where unknown.
    """
    if not (labels >= 0).any():
        return {}
    scores = score(probabilities, labels)
    return {f"selection_{name}": scores[name] for name in SELECTION_METRICS}


def per_fold_scores(
    probabilities: np.ndarray, labels: np.ndarray, fold_of_clip: np.ndarray
) -> dict[int, dict[str, float]]:
    """Gives `score` for each fold that has a labelled clip, by rising fold number.

    Args:
        probabilities: (N, C).
        labels: (N,), -1 where unknown.
        fold_of_clip: (N,) fold numbers.
    """
    return {
        int(fold): score(probabilities[fold_of_clip == fold], labels[fold_of_clip == fold])
        for fold in np.unique(fold_of_clip[labels >= 0])
    }


def mean_and_std(by_fold: Mapping[int, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Gives each metric's mean and sample standard deviation (n - 1; 0 for one fold) over the folds that have it.

    Args:
        by_fold: what `per_fold_scores` returns, with or without `selection_scores`.
    """
    names = dict.fromkeys(name for scores in by_fold.values() for name in scores)
    values = {name: np.array([scores[name] for scores in by_fold.values() if name in scores]) for name in names}
    return {
        name: {"mean": float(value.mean()), "std": float(value.std(ddof=1)) if len(value) > 1 else 0.0}
        for name, value in values.items()
    }


def bootstrap_means(values: np.ndarray, sources: np.ndarray, n_draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Gives the mean of `values` in `n_draws` resamples of whole sources (Efron & Tibshirani 1993).

    Clips cut from one recording fail together, so drawing clips one by one would make intervals too narrow.

    Args:
        values: (N,) one number a clip, such as 1 for a hit.
        sources: (N,) the recording each clip was cut from.
        n_draws: how many resamples.
        seed: start of the random numbers.

    Returns:
        (n_draws,) means.
    """
    _, source_of_clip = np.unique(sources, return_inverse=True)
    sizes = np.bincount(source_of_clip).astype(np.float64)  # (G,)
    sums = np.bincount(source_of_clip, weights=values)  # (G,)
    rng = np.random.default_rng(seed)
    means = []
    block = max(1, BOOTSTRAP_BLOCK // len(sizes))
    for start in range(0, n_draws, block):
        drawn = rng.integers(len(sizes), size=(min(block, n_draws - start), len(sizes)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(means)


def bootstrap_interval(
    values: np.ndarray, sources: np.ndarray, n_draws: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Gives the percentile interval of the mean of `values` over resampled sources.

    Args:
        values: (N,) one number a clip.
        sources: (N,) the recording each clip was cut from.
        n_draws: how many resamples.
        seed: start of the random numbers.
        level: coverage, 0.95 for the 2.5 % and 97.5 % points.
    """
    means = bootstrap_means(values, sources, n_draws, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def top1_interval(
    probabilities: np.ndarray, labels: np.ndarray, sources: np.ndarray, n_draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Gives the 95 % interval of top-1 accuracy over resampled sources; unlabelled clips do not count.

    Args:
        probabilities: (N, C).
        labels: (N,), -1 where unknown.
        sources: (N,) the recording each clip was cut from.
        n_draws: how many resamples.
        seed: start of the random numbers.
    """
    known = labels >= 0
    hits = (probabilities[known].argmax(axis=1) == labels[known]).astype(np.float64)
    return bootstrap_interval(hits, sources[known], n_draws, seed)
