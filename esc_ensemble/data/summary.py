"""A data set at a glance: how many clips of which class in which fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from esc_ensemble.data.catalog import Catalog
from esc_ensemble.data.clips import ALWAYS_TRAINED
from esc_ensemble.data.tables import plural


@dataclass(frozen=True)
class Summary:
    """Counts of a catalog."""

    catalog: Catalog
    counts: np.ndarray
    """(C, K) clips of each class in each of `folds`."""

    def table(self) -> tuple[str, list[str], list[list[str]]]:
        """Gives title, header and rows: a row a class, a column a fold."""
        catalog = self.catalog
        n_sources = len(np.unique(catalog.sources))
        title = (
            f"{catalog.name}: {len(catalog.clips)} clips of {plural(n_sources, 'source')}, "
            f"{len(catalog.class_names)} classes, fingerprint {catalog.fingerprint}"
        )
        header = ["class", *map(self.title, self.folds), "all"]
        rows = [
            [name, *(str(count) for count in row), str(row.sum())]
            for name, row in zip(catalog.class_names, self.counts, strict=True)
        ]
        return (
            title,
            header,
            [*rows, ["all", *(str(n) for n in self.counts.sum(axis=0)), str(self.counts.sum())]],
        )

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds of the columns; last, where there are any, the clips that are always trained on."""
        always = (self.catalog.folds == ALWAYS_TRAINED).any() and not self.catalog.whole
        return (*self.catalog.fold_numbers, *((ALWAYS_TRAINED,) if always else ()))

    def title(self, fold: int) -> str:
        """Returns the heading of a column."""
        return "always trained" if fold == ALWAYS_TRAINED else self.catalog.fold_title(fold)

    def to_json(self) -> dict[str, Any]:
        """Gives the same as plain values."""
        catalog = self.catalog
        folds = ["always" if fold == ALWAYS_TRAINED else str(fold) for fold in self.folds]
        first = {number: place for place, number in reversed(list(enumerate(catalog.recordings.tolist())))}
        return {
            "name": catalog.name,
            "root": str(catalog.root),
            "n_clips": len(catalog.clips),
            "n_sources": len(np.unique(catalog.sources)),
            "fingerprint": catalog.fingerprint,
            "class_names": list(catalog.class_names),
            "fold_names": {str(fold): name for fold, name in catalog.fold_names.items()},
            "folds_published": catalog.published,
            "shared_recordings": {
                catalog.clips[first[number]].source: list(shared)
                for number, shared in catalog.shared_recordings.items()
            },
            "skipped": list(catalog.skipped),
            "clips": {
                name: dict(zip(folds, row.tolist(), strict=True))
                for name, row in zip(catalog.class_names, self.counts, strict=True)
            },
        }


def summarise(catalog: Catalog) -> Summary:
    """Counts the labelled clips of each class and fold."""
    folds = Summary(catalog, np.zeros((0, 0))).folds
    known = (catalog.labels >= 0) & np.isin(catalog.folds, folds)
    counts = np.stack(
        [np.bincount(catalog.labels[known & (catalog.folds == f)], minlength=len(catalog.class_names)) for f in folds]
    )
    return Summary(catalog, counts.T)  # (K, C) -> (C, K)
