"""Training, selection and test part of each fold, by source."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from esc_ensemble.data.catalog import Catalog
from esc_ensemble.errors import DataError, list_problems

NOTHING_HELD_OUT = -1
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FoldSplit:
    """Where each clip stands while `fold` is held out: disjoint, sorted indices into `Catalog.clips`."""

    fold: int
    train: Indices
    selection: Indices
    test: Indices


def split_fold(catalog: Catalog, fold: int, selection_fraction: float, seed: int) -> FoldSplit:
    """Holds out `fold` as test and splits a selection part off the other folds.

    Whole sources go to the selection part, so that no recording stands on both sides. They are tried in an
    order drawn from `seed` and `fold`, and each is taken that brings the selection part's class counts
    nearer to `selection_fraction` of the training clips' and leaves every class a clip to train on. The
    order comes from hashed names: the same split on any machine, whatever the order of the metadata's rows.

    Args:
        catalog: the data set.
        fold: the official fold to hold out.
        selection_fraction: part of the other folds' clips, in [0, 1); 0 leaves the selection part empty.
        seed: start of the random order.

    Raises:
        DataError: there is no such fold, a class has no clip to train on, or its sources are too few for a
            selection part.
    """
    folds, labels = catalog.folds, catalog.labels
    if fold not in catalog.fold_numbers:
        known = ", ".join(map(str, catalog.fold_numbers))
        raise DataError(f'"{catalog.name}" has no fold {fold}. Its folds: {known}.')
    test = np.flatnonzero(folds == fold)
    rest = np.flatnonzero(folds != fold)
    rest = rest[labels[rest] >= 0]  # a clip without a label can be predicted, not trained on
    _require_every_class(catalog, labels[rest], fold)
    selected = _select_sources(catalog, rest, selection_fraction, f"{seed}/{fold}")
    if selection_fraction > 0.0 and not selected.any():
        raise DataError(
            f'A selection part of {selection_fraction:g} of "{catalog.name}" without fold {fold} would be '
            "empty: each class has too few sources. Use a larger data.selection_fraction, or 0 to train "
            "without one."
        )
    return FoldSplit(fold=fold, train=rest[~selected], selection=rest[selected], test=test)


def split_all(catalog: Catalog, selection_fraction: float, seed: int) -> FoldSplit:
    """Holds out nothing: all labelled clips are trained on, but for a selection part that is split off as above.

    Raises:
        DataError: there are too few sources for a selection part.
    """
    rest = np.flatnonzero(catalog.labels >= 0)
    selected = _select_sources(catalog, rest, selection_fraction, f"{seed}/all")
    if selection_fraction > 0.0 and not selected.any():
        raise DataError(
            f'A selection part of {selection_fraction:g} of "{catalog.name}" would be empty: each class has too few '
            "sources. Use a larger data.selection_fraction, or 0 to train without one."
        )
    return FoldSplit(fold=NOTHING_HELD_OUT, train=rest[~selected], selection=rest[selected], test=rest[:0])


def _require_every_class(catalog: Catalog, labels: Indices, fold: int) -> None:
    absent = sorted(set(range(len(catalog.class_names))) - set(labels.tolist()))
    if absent:
        problems = [f'class "{catalog.class_names[label]}" has no clip outside fold {fold}' for label in absent]
        raise DataError(list_problems(f'"{catalog.name}" cannot be trained with fold {fold} held out:', problems))


def _select_sources(catalog: Catalog, rest: Indices, fraction: float, salt: str) -> npt.NDArray[np.bool_]:
    """Marks the clips of `rest` that go to the selection part."""
    sources, group = np.unique(catalog.sources[rest], return_inverse=True)
    counts = np.zeros((len(sources), len(catalog.class_names)), dtype=np.int64)  # clips a source and class
    np.add.at(counts, (group, catalog.labels[rest]), 1)
    totals = counts.sum(axis=0)
    target = fraction * totals

    def distance(taken: npt.NDArray[np.int64]) -> float:
        # Divided by the totals, a clip too many weighs the more the rarer its class.
        return float((((taken - target) ** 2) / totals).sum())

    taken = np.zeros_like(totals)
    selected = np.zeros(len(sources), dtype=bool)
    for index in sorted(range(len(sources)), key=lambda i: _draw(salt, str(sources[i]))):
        candidate = taken + counts[index]
        if (candidate < totals).all() and distance(candidate) < distance(taken):
            taken, selected[index] = candidate, True
    return selected[group]


def _draw(salt: str, name: str) -> str:
    """Gives a sort key that is random in `salt` and the same everywhere."""
    return hashlib.sha256(f"{salt}/{name}".encode()).hexdigest()
