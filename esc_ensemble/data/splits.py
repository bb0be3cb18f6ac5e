"""Training, selection and test part of each fold, by source."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from esc_ensemble.data.audits import GO_ON_RARE, GO_ON_SHARED
from esc_ensemble.data.catalog import Catalog
from esc_ensemble.data.clips import ALWAYS_TRAINED
from esc_ensemble.errors import DataError, list_problems

if TYPE_CHECKING:
    from esc_ensemble.config import DataConfig

NOTHING_HELD_OUT = -1
TRAIN = "train"
"""Name of the part of a named split that is trained on."""
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FoldSplit:
    """The parts of a data set while `fold` is held out: disjoint, sorted indices into `Catalog.clips`."""

    fold: int
    train: Indices
    selection: Indices
    test: Indices
    left_out: Indices
    """Clips of other folds that are not trained on, since a clip of their recording is tested or selects."""


def split_fold(catalog: Catalog, fold: int, data: DataConfig, seed: int) -> FoldSplit:
    """Holds out `fold` as test and splits a selection part off the other folds.

    Published folds may share recordings. By `data.shared_recordings` a clip whose recording is also in the test part is
    left out of the training (leave-out) or trained on (keep); of the selection part it is left out in both cases, since
    what is chosen there must not know the test.

    The selection part is the fold `data.selection_fold`, that of a named split, or a fraction of the other folds. Of a
    fraction whole recordings are drawn, so that none is in two parts. They are tried in an order drawn from `seed` and
    `fold`, and each is taken that brings the selection part's class counts nearer to `data.selection_fraction` of the
    training clips' and leaves every class a clip to train on. The order comes from hashed names: the same split on any
    machine, whatever the order of the metadata's rows.

    Args:
        catalog: the data set.
        fold: the fold to hold out.
        data: how to select, and the rule for shared recordings.
        seed: start of the random order.

    Raises:
        DataError: there is no such fold, a class has no clip to train on, or its sources are too few for a
            selection part.
    """
    folds, labels = catalog.folds, catalog.labels
    selection_fold = find_selection_fold(catalog, data, fold)
    for wanted in (fold, selection_fold):
        if wanted is not None and wanted not in catalog.fold_numbers:
            known = catalog.list_folds(catalog.fold_numbers)
            raise DataError(f'"{catalog.name}" has no fold {wanted}. Its folds: {known}.')
    test = np.flatnonzero(folds == fold)
    rest = np.flatnonzero((folds != fold) & (labels >= 0))  # a clip without a label can be predicted, not trained on
    with_test = np.isin(catalog.recordings[rest], catalog.recordings[test])
    if selection_fold is not None:
        selected = (folds[rest] == selection_fold) & ~with_test
        aside = (folds[rest] == selection_fold) & with_test
        shared = with_test | (~selected & np.isin(catalog.recordings[rest], catalog.recordings[rest[selected]]))
    else:
        may_select = ~with_test & (folds[rest] != ALWAYS_TRAINED)
        selected = np.zeros(len(rest), dtype=bool)
        selected[may_select] = _select_sources(catalog, rest[may_select], data.selection_fraction, f"{seed}/{fold}")
        aside, shared = np.zeros(len(rest), dtype=bool), with_test
    if data.shared_recordings == "keep":
        shared = aside
    left_out = (shared | aside) & ~selected
    train = rest[~selected & ~left_out]
    _require_every_class(catalog, labels[train], fold)
    if (selection_fold is not None or data.selection_fraction > 0.0) and not selected.any():
        raise DataError(
            f'A selection part of {data.selection_fraction:g} of "{catalog.name}" without fold {fold} would be '
            "empty: each class has too few sources. Use a larger data.selection_fraction, or 0 to train "
            "without one."
        )
    return FoldSplit(fold, train, rest[selected], test, rest[left_out])


def find_selection_fold(catalog: Catalog, data: DataConfig, fold: int) -> int | None:
    """Returns the fold that is the selection part while `fold` is held out: the one that is set, or a named split's.

    Raises:
        DataError: it is the fold that is held out, or that is a part of a named split which cannot be the test.
    """
    if data.selection_fold >= 0 and data.selection_fold == fold:
        problem = f"data.selection_fold is {fold}, which is held out as test."
        if catalog.fold_names:
            raise DataError(f"{problem} Without it, {_describe_split(catalog)}.")
        raise DataError(
            f"{problem} Name the folds to test with --fold, as in "
            f"--data.selection-fold {fold} --fold {next((n for n in catalog.fold_numbers if n != fold), fold)}."
        )
    if catalog.fold_names.get(fold) == TRAIN:
        raise DataError(
            f'"{catalog.name}" is a named split, whose part {TRAIN} is there to train on, not to test. '
            f"Without --fold, {_describe_split(catalog)}."
        )
    if data.selection_fold >= 0:
        return data.selection_fold
    if data.selection_fraction:
        return None
    if catalog.selection_fold == fold:
        raise DataError(
            f'"{catalog.name}" is a named split, whose part {catalog.fold_title(fold)} selects, and so cannot be the '
            f"test. Without --fold, {_describe_split(catalog)}. To test on {catalog.fold_title(fold)} nevertheless, "
            f"select on a part of the others, as in --data.selection-fraction 0.15 --fold {fold}."
        )
    return catalog.selection_fold


def _describe_split(catalog: Catalog) -> str:
    """Says in the rest of a sentence what a named split tests, and selects on, by itself."""
    tested = " and ".join(map(catalog.fold_label, catalog.test_folds))
    selects = catalog.selection_fold
    return f"{tested} is tested" + ("" if selects is None else f", with selection on {catalog.fold_label(selects)}")


def folds_to_test(catalog: Catalog, data: DataConfig, chosen: Sequence[int] = ()) -> tuple[int, ...]:
    """Returns the folds that a command goes through: those chosen, else all that may be tested."""
    folds = tuple(dict.fromkeys(chosen)) or tuple(fold for fold in catalog.test_folds if fold != data.selection_fold)
    if not folds:
        find_selection_fold(catalog, data, data.selection_fold)  # names the fold that is both
    return folds


def describe_protocol(catalog: Catalog, data: DataConfig, otherwise: str) -> str:
    """Says in a few words how folds are trained: how the selection is made, and what becomes of shared recordings.

    Args:
        catalog: the clips.
        data: the settings.
        otherwise: what holds without a selection part, such as "epochs fixed beforehand".
    """
    fold = data.selection_fold if data.selection_fold >= 0 else catalog.selection_fold
    if data.selection_fraction:
        protocol = "selection split"
    elif fold is not None:
        protocol = f"selection on {catalog.fold_title(fold)}"
    else:
        protocol = otherwise
    if catalog.shared_recordings:
        kept = data.shared_recordings == "keep"
        protocol += f"; recordings shared by folds {'trained on' if kept else 'left out of training'}"
    return protocol


def shared_facts(catalog: Catalog, data: DataConfig, splits: Sequence[FoldSplit]) -> dict[str, Any]:
    """Returns what a manifest records of recordings that folds share: the rule, the folds of each, and what it cost.

    Nothing where folds share none.
    """
    if not catalog.shared_recordings:
        return {}
    first = {number: place for place, number in reversed(list(enumerate(catalog.recordings.tolist())))}
    shared = {catalog.clips[first[number]].source: list(folds) for number, folds in catalog.shared_recordings.items()}
    left_out = {str(split.fold): catalog.clip_ids[split.left_out].tolist() for split in splits if split.left_out.size}
    return {"shared_recordings": {"rule": data.shared_recordings, "folds": shared, "left_out_of_training": left_out}}


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
    return FoldSplit(NOTHING_HELD_OUT, rest[~selected], rest[selected], rest[:0], rest[:0])


def _require_every_class(catalog: Catalog, labels: Indices, fold: int) -> None:
    absent = sorted(set(range(len(catalog.class_names))) - set(labels.tolist()))
    if absent:
        of_shared = bool(np.isin(absent, catalog.labels[catalog.folds != fold]).any())
        advice = f"Go on with {GO_ON_SHARED if of_shared else GO_ON_RARE}."
        problems = [
            f'class "{catalog.class_names[label]}" has no clip outside {catalog.fold_title(fold)}'
            f"{' whose recording is not in it' if of_shared else ''}"
            for label in absent
        ]
        headline = f'"{catalog.name}" cannot be trained with {catalog.fold_title(fold)} held out:'
        raise DataError(list_problems(headline, problems, advice))


def _select_sources(catalog: Catalog, rest: Indices, fraction: float, salt: str) -> npt.NDArray[np.bool_]:
    """Marks the clips of `rest` that go to the selection part."""
    if fraction == 0.0:
        return np.zeros(len(rest), dtype=bool)
    _, first, group = np.unique(catalog.recordings[rest], return_index=True, return_inverse=True)
    sources = catalog.sources[rest[first]]
    counts = np.zeros((len(sources), len(catalog.class_names)), dtype=np.int64)  # clips a source and class
    np.add.at(counts, (group, catalog.labels[rest]), 1)
    totals = counts.sum(axis=0)
    target = fraction * totals

    def distance(taken: npt.NDArray[np.int64]) -> float:
        # Divided by the totals, a clip too many weighs the more the rarer its class.
        return float((((taken - target) ** 2) / np.maximum(totals, 1)).sum())

    taken = np.zeros_like(totals)
    selected = np.zeros(len(sources), dtype=bool)
    for index in sorted(range(len(sources)), key=lambda i: _draw(salt, str(sources[i]))):
        candidate = taken + counts[index]
        if (candidate < np.maximum(totals, 1)).all() and distance(candidate) < distance(taken):
            taken, selected[index] = candidate, True
    return selected[group]


def _draw(salt: str, name: str) -> str:
    """Gives a sort key that is random in `salt` and the same everywhere."""
    return hashlib.sha256(f"{salt}/{name}".encode()).hexdigest()
