"""A data set at a glance: how many clips of which class in which fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from esc_ensemble.data.catalog import Catalog


@dataclass(frozen=True)
class Summary:
    """Counts of a catalog."""

    catalog: Catalog
    counts: np.ndarray
    """(C, K) clips of each class in each fold."""

    def table(self) -> tuple[str, list[str], list[list[str]]]:
        """Gives title, header and rows: a row a class, a column a fold."""
        catalog = self.catalog
        n_sources = len(np.unique(catalog.sources))
        title = (
            f"{catalog.name}: {len(catalog.clips)} clips of {n_sources} sources, {len(catalog.class_names)} classes, "
            f"fingerprint {catalog.fingerprint}"
        )
        header = ["class", *(f"fold {fold}" for fold in catalog.fold_numbers), "all"]
        rows = [
            [name, *(str(count) for count in row), str(row.sum())]
            for name, row in zip(catalog.class_names, self.counts, strict=True)
        ]
        return (
            title,
            header,
            [*rows, ["all", *(str(n) for n in self.counts.sum(axis=0)), str(self.counts.sum())]],
        )

    def to_json(self) -> dict[str, Any]:
        """Gives the same as plain values."""
        catalog = self.catalog
        folds = [str(fold) for fold in catalog.fold_numbers]
        return {
            "name": catalog.name,
            "root": str(catalog.root),
            "n_clips": len(catalog.clips),
            "n_sources": len(np.unique(catalog.sources)),
            "fingerprint": catalog.fingerprint,
            "class_names": list(catalog.class_names),
            "clips": {
                name: dict(zip(folds, row.tolist(), strict=True))
                for name, row in zip(catalog.class_names, self.counts, strict=True)
            },
        }


def summarise(catalog: Catalog) -> Summary:
    """Counts the labelled clips of each class and fold."""
    counts = np.zeros((len(catalog.class_names), len(catalog.fold_numbers)), dtype=np.int64)
    known = catalog.labels >= 0
    fold_index = np.searchsorted(catalog.fold_numbers, catalog.folds[known])
    np.add.at(counts, (catalog.labels[known], fold_index), 1)
    return Summary(catalog, counts)
