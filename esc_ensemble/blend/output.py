"""The files of a blend: blend.json, oof.csv and oof.npz, all of them or none."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.blend.plot import draw_front
from esc_ensemble.blend.result import BlendResult, FrontPoint, ScoreRow
from esc_ensemble.errors import WorkError
from esc_ensemble.files import atomic_path, write_json
from esc_ensemble.logits import seconds_of
from esc_ensemble.settings import identity

SCHEMA = 2
TOP = 3
FRONT_FILE = "front.png"
"""Is there where the members' costs are known."""
# blend.json last: a reader that finds the new one finds the new tables too.
FILES = ("oof.csv", "oof.npz", "blend.json")


def write_blend(result: BlendResult, out_dir: Path) -> None:
    """Writes a blend's files beside their place first and moves them in when all are there.

    A new folder appears whole; in an existing one each file is replaced whole.

    Raises:
        WorkError: the folder cannot be written.
    """
    staging = _staging(out_dir)
    try:
        folder = staging / "blend"  # made by mkdir, so that it has the usual permissions
        folder.mkdir()
        write_json(folder / "blend.json", describe(result, out_dir))
        _write_oof(folder / "oof.csv", result)
        with atomic_path(folder / "oof.npz") as temporary, temporary.open("wb") as handle:
            np.savez_compressed(handle, allow_pickle=False, **oof_arrays(result))
        if result.front:
            draw_front(folder / FRONT_FILE, result)
        if out_dir.exists():
            if not result.front:
                (out_dir / FRONT_FILE).unlink(missing_ok=True)
            for name in (FRONT_FILE, *FILES) if result.front else FILES:
                (folder / name).replace(out_dir / name)
        else:
            folder.rename(out_dir)
    except OSError as error:
        raise _unwritable(out_dir, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_place(out_dir: Path) -> None:
    """Sees to it beforehand that the blend can be written where it is to stand.

    Raises:
        WorkError: it cannot.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise WorkError(f"Cannot write {out_dir}: it is a file. Choose another name with --out.")
    _staging(out_dir).rmdir()


def _staging(out_dir: Path) -> Path:
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{out_dir.name}-", dir=out_dir.parent))
    except OSError as error:
        raise _unwritable(out_dir, error) from error


def _unwritable(out_dir: Path, error: OSError) -> WorkError:
    return WorkError(f"Cannot write {out_dir}: {error.strerror}. Choose another folder with --submissions.")


def describe(result: BlendResult, out_dir: Path) -> dict[str, Any]:
    """Gives the content of blend.json. Run folders are named relative to `out_dir`."""
    members, config, mixture = result.members, result.config, result.mixture
    # Folds, or the parts of the selection split, that weights were found without.
    left_out = (members.selection or members).fold_numbers if members.can_tune else ()
    return {
        "schema": SCHEMA,
        "name": out_dir.name,
        "members": [_member_entry(result, member, out_dir) for member in range(len(members.runs))],
        "method": config.method,
        "combiner": mixture.combiner,
        "temperature": mixture.temperature,
        "bias": None if mixture.bias is None else mixture.bias.tolist(),
        "tta": config.tta,
        "settings": identity(config),
        "fitted_on": members.fitted_on,
        "cost": None if result.cost is None else vars(result.cost),
        "class_names": list(members.class_names),
        "dataset_fingerprint": members.dataset_fingerprint,
        "fallback": result.fallback,
        "reason": result.reason,
        "warnings": list(result.warnings),
        "tuned_weights": result.tuned.weights.tolist(),
        "tuned_combiner": result.tuned.combiner,
        "fold_weights": {str(fold): row.tolist() for fold, row in zip(left_out, result.fold_weights, strict=True)},
        "best_member": result.best_member,
        "scores": [_score_entry(row) for row in result.scores],
        "comparisons": [_comparison_entry(result, name) for name in result.comparisons],
        "contributions": [
            {
                "run": item.run,
                "log_loss": -item.loss.log_loss,
                "log_loss_interval": [-item.loss.log_loss_interval[1], -item.loss.log_loss_interval[0]],
                "top1": item.loss.top1,
                "top1_interval": list(item.loss.top1_interval),
            }
            for item in result.contributions
        ],
        "error_correlation": [[None if np.isnan(r) else float(r) for r in row] for row in result.correlation],
        "front": [_front_entry(point) for point in result.front] or None,
    }


def _member_entry(result: BlendResult, member: int, out_dir: Path) -> dict[str, Any]:
    members, mixture = result.members, result.mixture
    run, folds = members.runs[member], members.fold_numbers
    by_class, cost = mixture.class_weights, result.costs[member]
    heard = mixture.shift_weights[member] > 0.0
    return {
        "run": run.name,
        "path": Path(os.path.relpath(run.path.resolve(), out_dir.resolve())).as_posix(),
        "config_hash": run.folds[0].config_hash,
        "folds": list(folds),
        "temperatures": {str(fold): float(t) for fold, t in zip(folds, result.temperatures[member], strict=True)},
        "temperature_from": "selection" if result.from_selection[member] else "cross-fit",
        "weight": float(mixture.weights[member]),
        "class_weights": None if by_class is None else by_class[member].tolist(),
        "shifts": seconds_of(result.shifts[member][heard]),
        "shift_weights": mixture.shift_weights[member][heard].tolist(),
        "shift_mode": run.shift_mode,
        "shared_recordings": run.shared_recordings,
        "stored_shifts": seconds_of(run.shifts),
        # Of all its shifts and fold models, so that a sum over members is the blend's.
        "cost": None if cost is None else {"ms": cost.ms * int(heard.sum()), "megabytes": cost.megabytes},
    }


def _comparison_entry(result: BlendResult, name: str) -> dict[str, Any]:
    found = result.comparisons[name]
    return {
        "against": name,
        "title": next(row.title for row in result.scores if row.name == name),
        "top1": found.top1,
        "top1_interval": list(found.top1_interval),
        "log_loss": found.log_loss,
        "log_loss_interval": list(found.log_loss_interval),
        "mcnemar_p": found.mcnemar_p,
        "only_blend_right": found.only_first_right,
        "only_other_right": found.only_second_right,
    }


def _front_entry(point: FrontPoint) -> dict[str, Any]:
    return {
        "members": [{"run": run, "shifts": shifts} for run, shifts in point.shifts.items()],
        "ms": point.cost.ms,
        "megabytes": point.cost.megabytes,
        "top1": point.metrics["top1"],
        "top1_interval": list(point.interval),
        "log_loss": point.metrics["log_loss"],
    }


def _score_entry(row: ScoreRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "cross_fitted": row.cross_fitted,
        "metrics": row.metrics,
        "uncalibrated": row.uncalibrated,
        "over_folds": row.over_folds,
        "by_fold": {str(fold): scores for fold, scores in row.by_fold.items()},
        "top1_interval": list(row.top1_interval),
        "selection": row.selection,
    }


def oof_arrays(result: BlendResult) -> dict[str, np.ndarray]:
    """Gives the content of oof.npz: every clip's cross-fitted probabilities, of the blend and of each member."""
    members = result.members
    return {
        "clip_ids": members.clip_ids,
        "labels": members.labels,
        "folds": members.fold_of_clip,
        "sources": members.sources,
        "probabilities": result.probabilities.astype(np.float32),  # (N, C)
        "member_probabilities": result.member_probabilities.astype(np.float32),  # (M, N, C)
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
    columns += list(names[result.member_probabilities.argmax(axis=2)])
    for rank in range(n_top):
        header += [f"top{rank + 1}", f"top{rank + 1}_probability"]
        columns += [names[order[:, rank]], [f"{value:.6f}" for value in top[:, rank]]]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(zip(*columns, strict=True))
