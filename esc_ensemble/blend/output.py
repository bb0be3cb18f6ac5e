"""The files of a blend: blend.json, oof.csv and submission.csv, all of them or none."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.blend.combine import chosen_shifts
from esc_ensemble.blend.result import BlendResult, ScoreRow
from esc_ensemble.errors import WorkError
from esc_ensemble.files import atomic_path, write_json
from esc_ensemble.submission import write_submission

SCHEMA = 1
TOP = 3
# blend.json last: a reader that finds the new one finds the new tables too.
FILES = ("oof.csv", "submission.csv", "blend.json")


def write_blend(result: BlendResult, out_dir: Path) -> None:
    """Writes a blend's files beside their place first and moves them in when all are there.

    A new folder appears whole; in an existing one each file is replaced whole.

    Raises:
        WorkError: the folder cannot be written.
    """
    members = result.members
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}-", dir=out_dir.parent))
    except OSError as error:
        raise WorkError(f"Cannot write {out_dir}: {error.strerror}. Choose another folder with --out.") from error
    try:
        folder = staging / "blend"  # made by mkdir, so that it has the usual permissions
        folder.mkdir()
        write_json(folder / "blend.json", describe(result, out_dir))
        _write_oof(folder / "oof.csv", result)
        write_submission(folder / "submission.csv", members.clip_ids, result.probabilities, members.class_names)
        if out_dir.exists():
            for name in FILES:
                (folder / name).replace(out_dir / name)
        else:
            folder.rename(out_dir)
    except OSError as error:
        raise WorkError(f"Cannot write {out_dir}: {error.strerror}. Choose another folder with --out.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def describe(result: BlendResult, out_dir: Path) -> dict[str, Any]:
    """Gives the content of blend.json. Run folders are named relative to `out_dir`."""
    members, config = result.members, result.config
    folds = members.fold_numbers
    return {
        "schema": SCHEMA,
        "name": out_dir.name,
        "members": [
            {
                "run": run.name,
                "path": Path(os.path.relpath(run.path.resolve(), out_dir.resolve())).as_posix(),
                "config_hash": run.folds[0].config_hash,
                "folds": list(folds),
                "temperatures": {str(fold): float(t) for fold, t in zip(folds, temperatures, strict=True)},
                "temperature_from": "selection" if from_selection else "cross-fit",
                "weight": float(weight),
                # Stored as float32; six digits give back the number that was typed.
                "shifts": [round(float(s), 6) for s in run.shifts[chosen_shifts(run.shifts, config.tta)]],
                "stored_shifts": [round(float(s), 6) for s in run.shifts],
            }
            for run, temperatures, from_selection, weight in zip(
                members.runs, result.temperatures, result.from_selection, result.weights, strict=True
            )
        ],
        "combiner": config.combiner,
        "tta": config.tta,
        "objective": config.objective,
        "trials": config.trials,
        "seed": config.seed,
        "class_names": list(members.class_names),
        "dataset_fingerprint": members.dataset_fingerprint,
        "fallback": result.fallback,
        "reason": result.reason,
        "tuned_weights": result.tuned_weights.tolist(),
        "fold_weights": {str(fold): row.tolist() for fold, row in zip(folds, result.fold_weights, strict=True)},
        "scores": [_score_entry(row) for row in result.scores],
    }


def _score_entry(row: ScoreRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "cross_fitted": row.cross_fitted,
        "metrics": row.metrics,
        "over_folds": row.over_folds,
        "by_fold": {str(fold): scores for fold, scores in row.by_fold.items()},
        "top1_interval": list(row.top1_interval),
    }


def _write_oof(path: Path, result: BlendResult) -> None:
    members = result.members
    names = np.array([*members.class_names, ""], dtype=object)  # the label -1 picks the empty name at the end
    n_top = min(TOP, len(members.class_names))
    # Stable on the negated probabilities: of equal ones the lower class goes first, as in argmax.
    order = np.argsort(-result.probabilities, axis=1, kind="stable")[:, :n_top]  # (N, C) -> (N, 3)
    top = np.take_along_axis(result.probabilities, order, axis=1)
    header = ["clip_id", "fold", "true", *members.names]
    columns: list[Any] = [members.clip_ids, members.fold_of_clip, names[members.labels]]
    columns += list(names[result.member_predictions])
    for rank in range(n_top):
        header += [f"top{rank + 1}", f"top{rank + 1}_probability"]
        columns += [names[order[:, rank]], [f"{value:.6f}" for value in top[:, rank]]]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(zip(*columns, strict=True))
