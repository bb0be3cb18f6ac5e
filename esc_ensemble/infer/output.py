"""Predictions on disk: CSV, JSON, and the timeline of recordings."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from esc_ensemble.files import atomic_path
from esc_ensemble.infer.classifier import Prediction, top_classes


def write_predictions(path: Path, predictions: Sequence[Prediction], k: int = 3, threshold: float = 0.0) -> None:
    """Writes predictions atomically: `.json` as a list of objects, else CSV with a row a file.

    CSV columns: file, top1, top1_probability, ... up to `k` (empty below `threshold`), then each class's probability.
    """
    if path.suffix.lower() == ".json":
        text = json.dumps([to_json(each, k, threshold) for each in predictions], indent=2, ensure_ascii=False)
        with atomic_path(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8", errors="surrogateescape")  # names as they are on disk
        return
    names = predictions[0].class_names if predictions else ()
    with _csv(path) as writer:
        writer.writerow(["file", *_columns(names, k)])
        for each in predictions:
            writer.writerow([str(each.path), *_cells(each.class_names, each.probabilities, k, threshold)])


def write_timeline(path: Path, predictions: Sequence[Prediction], k: int = 3, threshold: float = 0.0) -> None:
    """Writes what was heard in each window of each recording, atomically, as CSV with a row a window.

    Columns: file, start_seconds, end_seconds, then those of `write_predictions`.
    """
    names = predictions[0].class_names if predictions else ()
    with _csv(path) as writer:
        writer.writerow(["file", "start_seconds", "end_seconds", *_columns(names, k)])
        for each in predictions:
            for window in each.windows:
                cells = _cells(each.class_names, window.probabilities, k, threshold)
                writer.writerow([str(each.path), f"{window.start:.3f}", f"{window.end:.3f}", *cells])


def to_json(prediction: Prediction, k: int, threshold: float = 0.0) -> dict[str, Any]:
    """Gives a prediction as plain values: file, seconds, top `k`, every class's probability, and windows if any."""
    values = {
        "file": str(prediction.path),
        "seconds": round(prediction.seconds, 3),
        **_values(prediction.class_names, prediction.probabilities, k, threshold),
    }
    if prediction.windows:
        values["windows"] = [
            {
                "start": round(window.start, 3),
                "end": round(window.end, 3),
                **_values(prediction.class_names, window.probabilities, k, threshold),
            }
            for window in prediction.windows
        ]
    return values


def _values(names: Sequence[str], probabilities: Any, k: int, threshold: float) -> dict[str, Any]:
    return {
        "top": [
            {"class": name, "probability": round(p, 6)} for name, p in top_classes(names, probabilities, k, threshold)
        ],
        "probabilities": {name: round(float(p), 6) for name, p in zip(names, probabilities, strict=True)},
    }


def _columns(names: Sequence[str], k: int) -> list[str]:
    k = min(k, len(names)) if names else k
    return [*(column for rank in range(1, k + 1) for column in (f"top{rank}", f"top{rank}_probability")), *names]


def _cells(names: Sequence[str], probabilities: Any, k: int, threshold: float) -> list[str]:
    best = [cell for name, p in top_classes(names, probabilities, k, threshold) for cell in (name, f"{p:.6f}")]
    best += [""] * (2 * min(k, len(names)) - len(best))
    return [*best, *(f"{p:.6f}" for p in probabilities)]


@contextmanager
def _csv(path: Path) -> Iterator[Any]:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        yield csv.writer(file)
