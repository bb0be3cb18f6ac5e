"""Folds by rule, for data that comes without any."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def assign_folds(sources: Sequence[str], classes: Sequence[str], n_folds: int) -> list[int]:
    """Deals whole sources to folds 1..n_folds so that every class is spread evenly.

    The rule of scikit-learn's StratifiedGroupKFold: sources go one by one, those with most clips of one
    class first, each to the fold that leaves the classes' counts over the folds the most even. Written out
    here because folds are part of a result: they must not change with the version of a library. Ties are
    broken by hashed name.

    Args:
        sources: the source of each clip.
        classes: the class of each clip.
        n_folds: how many folds to make.

    Returns:
        The fold of each clip.
    """
    source_names, source_index = np.unique(np.array(sources, dtype=np.str_), return_inverse=True)
    class_names, class_index = np.unique(np.array(classes, dtype=np.str_), return_inverse=True)
    counts = np.zeros((len(source_names), len(class_names)))  # clips a source and class
    np.add.at(counts, (source_index, class_index), 1)
    totals = counts.sum(axis=0)
    order = sorted(
        range(len(source_names)),
        key=lambda i: (-counts[i].max(), hashlib.sha256(str(source_names[i]).encode()).hexdigest()),
    )
    filled = np.zeros((n_folds, len(class_names)))
    fold_of_source = np.zeros(len(source_names), dtype=np.int64)
    for index in order:
        # What adding the source does to the sum of squares of each class's share in each fold.
        cost = ((2 * filled * counts[index] + counts[index] ** 2) / totals**2).sum(axis=1)
        fold = min(range(n_folds), key=lambda f: (round(float(cost[f]), 12), filled[f].sum(), f))
        filled[fold] += counts[index]
        fold_of_source[index] = fold + 1
    return [int(fold) for fold in fold_of_source[source_index]]
