"""The finished folds of a run, and the scores over them in `metrics.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.errors import LogitsError
from esc_ensemble.files import write_json
from esc_ensemble.logits import FoldLogits, logits_path, read_logits
from esc_ensemble.metrics import mean_and_std, score, selection_scores, softmax, top_k_accuracy


def read_finished(run_dir: Path, fold: int, config_hash: str, dataset_fingerprint: str) -> FoldLogits | None:
    """Reads a fold's logits, or gives None where they are not there, not whole, or not from this very run."""
    try:
        found = read_logits(logits_path(run_dir, fold))
    except LogitsError:
        return None
    same = (found.config_hash, found.dataset_fingerprint) == (config_hash, dataset_fingerprint)
    return found if same else None


def remove_half_written(folder: Path) -> None:
    """Removes the half-written files that a killed process left in a fold's folder."""
    for half_written in folder.glob(".*.part.*"):
        half_written.unlink()


def write_metrics(run_dir: Path, finished: Sequence[FoldLogits], protocol: str) -> dict[str, Any]:
    """Scores each fold's unshifted logits, and the mean over its shifts by top-1, and writes `metrics.json`.

    Folds with a labeled selection split get its scores too (`selection_top1`, `selection_log_loss`).

    Args:
        run_dir: the run's folder.
        finished: its folds that are done, in the order of the table.
        protocol: which clean way they were trained by.

    Returns:
        What was written: `protocol`, `folds`, and `mean` and `std` over them.

    Raises:
        DataError: a fold holds no clip with a label.
        DiskError: the file cannot be written.
    """
    folds: dict[str, dict[str, float]] = {}
    for logits in finished:
        test = logits.test
        centre = int(np.flatnonzero(logits.shifts == 0.0)[0])
        folds[str(logits.fold)] = {
            **score(softmax(test.logits[centre]), test.labels),
            "top1_tta": top_k_accuracy(test.logits.mean(axis=0), test.labels, 1),
            **selection_scores(softmax(logits.selection.logits[centre]), logits.selection.labels),
        }
    over_folds = mean_and_std({int(fold): scores for fold, scores in folds.items()}) if folds else {}
    metrics = {
        "protocol": protocol,
        "folds": folds,
        "mean": {name: values["mean"] for name, values in over_folds.items()},
        "std": {name: values["std"] for name, values in over_folds.items()},
    }
    write_json(run_dir / "metrics.json", metrics)
    return metrics
