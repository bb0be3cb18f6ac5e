"""Folds and classes as plain tables, so that other frameworks train on the very same."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from esc_ensemble.data.catalog import Catalog
from esc_ensemble.files import atomic_path

COLUMNS = ("clip_id", "path", "class", "label", "fold", "source")


def write_folds(path: Path, catalog: Catalog) -> None:
    """Writes a CSV with a row a clip, in the data set's order: `COLUMNS`; the path is absolute, UTF-8.

    A clip whose class is unknown has an empty class and label -1.

    Raises:
        DiskError: the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for clip in catalog.clips:
            name = catalog.class_name(clip)
            writer.writerow([clip.clip_id, clip.path.resolve(), name, clip.label, clip.fold, clip.source])


def describe_folds(catalog: Catalog) -> dict[str, Any]:
    """Gives what a logits file has to say of its data: fingerprint, class names in the order of labels, folds."""
    return {
        "dataset_fingerprint": catalog.fingerprint,
        "class_names": list(catalog.class_names),
        "folds": list(catalog.fold_numbers),
        "n_clips": len(catalog.clips),
    }
