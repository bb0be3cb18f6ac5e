"""Folds and classes as plain tables, so that other frameworks train on the very same."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from esc_ensemble.data.catalog import Catalog
from esc_ensemble.files import atomic_path

COLUMNS = ("clip_id", "path", "class", "label", "fold", "source", "not_in_training_of")


def write_folds(path: Path, catalog: Catalog) -> None:
    """Writes a CSV with a row a clip, in the data set's order: `COLUMNS`; the path is absolute, UTF-8.

    A clip whose class is unknown has an empty class and label -1. `not_in_training_of` names the other folds, with
    spaces between, that test a clip of the same recording: it is left out of their training.

    Raises:
        DiskError: the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for clip, recording in zip(catalog.clips, catalog.recordings.tolist(), strict=True):
            name = catalog.class_name(clip)
            others = [str(fold) for fold in catalog.shared_recordings.get(recording, ()) if fold != clip.fold]
            row = [clip.clip_id, clip.path.resolve(), name, clip.label, clip.fold, clip.source, " ".join(others)]
            writer.writerow(row)


def describe_folds(catalog: Catalog) -> dict[str, Any]:
    """Gives what a logits file has to say of its data: fingerprint, class names in the order of labels, folds."""
    return {
        "dataset_fingerprint": catalog.fingerprint,
        "class_names": list(catalog.class_names),
        "folds": list(catalog.fold_numbers),
        "test_folds": list(catalog.test_folds),
        "fold_names": {str(fold): name for fold, name in catalog.fold_names.items()},
        "n_clips": len(catalog.clips),
    }
