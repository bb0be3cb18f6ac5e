"""Counts and shares behind the figures: confusion, scores of each class, calibration; scikit-learn's where it can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from esc_ensemble.errors import LogitsError
from esc_ensemble.logits import read_run
from esc_ensemble.metrics import ECE_BINS, softmax
from esc_ensemble.report.evidence import Evidence, MemberEvidence


@dataclass(frozen=True)
class ConfusedPair:
    """Clips of one class that were taken for another."""

    true: int
    predicted: int
    n_clips: int
    share: float
    """Of the true class's clips."""
    n_reverse: int
    """Clips of the other class taken for this one."""


def confusion_counts(evidence: Evidence) -> np.ndarray:
    """Gives how many clips of each class were named what: (C, C), rows true, columns predicted."""
    from sklearn.metrics import confusion_matrix  # noqa: PLC0415 - a second that only figures need

    known = evidence.known
    labels = np.arange(len(evidence.class_names))
    return np.asarray(confusion_matrix(evidence.labels[known], evidence.predicted[known], labels=labels))


def rank_confused(evidence: Evidence) -> list[ConfusedPair]:
    """Gives every pair of classes that was confused, the most clips first."""
    counts = confusion_counts(evidence)
    sizes = counts.sum(axis=1)
    pairs = [
        ConfusedPair(int(i), int(j), int(counts[i, j]), float(counts[i, j] / sizes[i]), int(counts[j, i]))
        for i, j in np.argwhere(counts)
        if i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair.n_clips, -pair.share, pair.true, pair.predicted))


def class_scores(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> dict[str, np.ndarray]:
    """Gives recall, precision and F1 of each class, and the number of its clips.

    Args:
        labels: (N,) in 0..C-1.
        predicted: (N,) in 0..C-1.
        n_classes: C.

    Returns:
        `recall`, `precision`, `f1` (C,), 0 where undefined, and `n_clips` (C,).
    """
    from sklearn.metrics import precision_recall_fscore_support  # noqa: PLC0415 - a second that only figures need

    precision, recall, f1, n_clips = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(n_classes), zero_division=0
    )
    return {"recall": recall, "precision": precision, "f1": f1, "n_clips": n_clips}


def reliability(probabilities: np.ndarray, labels: np.ndarray, n_bins: int = ECE_BINS) -> dict[str, np.ndarray]:
    """Gives how often the likeliest class was right, by how likely it was said to be (Guo et al. 2017).

    Args:
        probabilities: (N, C).
        labels: (N,), -1 where unknown; those clips do not count.
        n_bins: bins (l, u] of equal width between 0 and 1.

    Returns:
        For each bin that holds a clip: `n_clips`, mean `confidence`, `accuracy`, and the Wilson 95 % interval of the
        accuracy, `low` and `high`.
    """
    known = labels >= 0
    confidence = probabilities[known].max(axis=1).astype(np.float64)
    hit = (probabilities[known].argmax(axis=1) == labels[known]).astype(np.float64)
    bins = np.searchsorted(np.linspace(0.0, 1.0, n_bins + 1)[1:-1], confidence, side="left")
    n_clips = np.bincount(bins, minlength=n_bins)
    used = n_clips > 0
    n_clips = n_clips[used]
    accuracy = np.bincount(bins, weights=hit, minlength=n_bins)[used] / n_clips
    low, high = wilson_interval(accuracy, n_clips)
    mean = np.bincount(bins, weights=confidence, minlength=n_bins)[used] / n_clips
    return {"n_clips": n_clips, "confidence": mean, "accuracy": accuracy, "low": low, "high": high}


def wilson_interval(share: np.ndarray, n: np.ndarray, z: float = 1.959964) -> tuple[np.ndarray, np.ndarray]:
    """Gives Wilson's score interval of a share among n (1927), 95 % by default."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def uncalibrated(evidence: Evidence, member: MemberEvidence) -> np.ndarray | None:
    """Gives a member's probabilities (N, C) before its temperatures, or None where its logits are gone or others."""
    try:
        run = read_run(member.folder)
    except LogitsError:
        return None
    stored = np.round(run.shifts.astype(np.float64), 6)
    shifts = [float(shift) for shift in member.entry.get("shifts", [0.0])]
    places = [int(np.abs(stored - shift).argmin()) for shift in shifts]
    if not np.allclose(stored[places], shifts, atol=1e-5):
        return None
    order = np.argsort(run.clip_ids)
    if not np.array_equal(run.clip_ids[order], np.sort(evidence.clip_ids)):
        return None
    weights = np.asarray(member.entry.get("shift_weights") or np.full(len(places), 1 / len(places)))
    mean = np.tensordot(weights, run.logits[places][:, order], axes=1)  # (S,) x (S, N, C) -> (N, C)
    back = np.argsort(np.argsort(evidence.clip_ids))
    return softmax(mean[back])


def final_gaps(member: MemberEvidence) -> list[dict[str, Any]]:
    """Gives for each fold the last training figures, those of the held-out fold, and the gap between them in percent.

    Returns:
        For each fold with a history: `fold`, `epochs`, `train_loss`, `train_top1`, `other_loss`, `other_top1`,
        `loss_gap` (percent of the training loss) and `top1_gap` (percentage points); None where unknown. `other` is the
        selection split where there is one, at its best epoch, else the held-out fold.
    """
    rows = []
    for fold, history in sorted(member.histories.items()):
        last = len(history["epoch"]) - 1 if "epoch" in history else -1
        other_loss, other_top1 = None, None
        if "selection_loss" in history and np.isfinite(history["selection_loss"]).any():
            last = int(np.nanargmin(history["selection_loss"]))
            other_loss, other_top1 = _at(history, "selection_loss", last), _at(history, "selection_top1", last)
        elif member.metrics:
            held_out = member.metrics.get("folds", {}).get(str(fold), {})
            other_loss, other_top1 = held_out.get("log_loss"), held_out.get("top1")
        train_loss, train_top1 = _at(history, "train_loss", last), _at(history, "train_top1", last)
        both = train_loss and other_loss is not None
        rows.append(
            {
                "fold": fold,
                "epochs": last + 1 if last >= 0 else len(next(iter(history.values()))),
                "train_loss": train_loss,
                "train_top1": train_top1,
                "other_loss": other_loss,
                "other_top1": other_top1,
                "loss_gap": 100.0 * (other_loss - train_loss) / train_loss if both else None,  # type: ignore[operator]
                "top1_gap": 100.0 * (train_top1 - other_top1) if None not in (train_top1, other_top1) else None,  # type: ignore[operator]
            }
        )
    return rows


def has_selection(member: MemberEvidence) -> bool:
    """Whether a member's histories follow a selection split."""
    return any("selection_loss" in history for history in member.histories.values())


def _at(history: dict[str, np.ndarray], name: str, place: int) -> float | None:
    if name not in history or not np.isfinite(history[name][place]):
        return None
    return float(history[name][place])
