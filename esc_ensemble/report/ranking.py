"""Which clips are worth a look: the surest wrong answers, the least sure right ones."""

from __future__ import annotations

import numpy as np

from esc_ensemble.report.evidence import Evidence


def ranked_wrong(evidence: Evidence) -> np.ndarray:
    """Gives the places of the wrong answers, the surest first."""
    wrong = np.flatnonzero(evidence.known & (evidence.predicted != evidence.labels))
    sure = evidence.probabilities[wrong].max(axis=1)
    return np.asarray(wrong[np.argsort(-sure, kind="stable")])


def ranked_unsure(evidence: Evidence) -> np.ndarray:
    """Gives the places of the right answers, the least sure first."""
    right = np.flatnonzero(evidence.known & (evidence.predicted == evidence.labels))
    sure = evidence.probabilities[right].max(axis=1)
    return np.asarray(right[np.argsort(sure, kind="stable")])


def choose_clips(evidence: Evidence, n_clips: int, n_listed: int) -> list[int]:
    """Gives the places of `n_clips` clips: those listed first, then the other wrong ones, then the unsure.

    Args:
        evidence: from `load`.
        n_clips: how many.
        n_listed: clips of each of the two lists, of the surest wrong and the least sure right answers.
    """
    wrong, unsure = ranked_wrong(evidence).tolist(), ranked_unsure(evidence).tolist()
    rest = [*wrong[n_listed:], *unsure[n_listed:], *np.flatnonzero(~evidence.known).tolist()]
    # By turns, so that a small number of clips still fills both lists.
    first = [
        place for pair in zip(*_even(wrong[:n_listed], unsure[:n_listed]), strict=True) for place in pair if place >= 0
    ]
    return [*first, *rest][:n_clips]


def _even(*lists: list[int]) -> list[list[int]]:
    longest = max(map(len, lists))
    return [each + [-1] * (longest - len(each)) for each in lists]
