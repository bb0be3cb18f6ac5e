"""Blends to report on: the blender's own of real runs, and made-up ones of any shape."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.blend.ensemble import blend_runs
from esc_ensemble.blend.output import SCHEMA
from esc_ensemble.config import BlendConfig
from esc_ensemble.metrics import log_loss, mean_and_std, per_fold_scores, score, softmax, top1_interval


def write_made_up(
    folder: Path,
    member_probabilities: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    class_names: Sequence[str],
    *,
    clip_ids: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    members: dict[str, str] | None = None,
    **over: Any,
) -> Path:
    """Blends (M, N, C) with weights that fall from member to member; `members` are names and paths of runs."""
    n_members, n_clips, _ = member_probabilities.shape
    clip_ids = [f"clip-{n}.wav" for n in range(n_clips)] if clip_ids is None else clip_ids
    sources = clip_ids if sources is None else sources
    members = members or {f"run {n}": f"../../runs/gone-{n}" for n in range(n_members)}
    weights = np.arange(n_members, 0, -1, dtype=float)
    weights /= weights.sum()
    log_probs = np.log(np.maximum(member_probabilities, 1e-9))
    blended = softmax(np.tensordot(weights, log_probs, axes=1)).astype(np.float32)
    numbers = sorted({int(fold) for fold in folds})
    known = labels >= 0

    def row(name: str, title: str, values: np.ndarray, *, cross_fitted: bool = True) -> dict[str, Any]:
        by_fold = per_fold_scores(values, labels, folds)
        metrics = score(values, labels)
        return {
            "name": name,
            "title": title,
            "cross_fitted": cross_fitted,
            "metrics": metrics,
            "uncalibrated": {"log_loss": metrics["log_loss"] * 1.3, "ece": metrics["ece"] * 1.5},
            "over_folds": mean_and_std(by_fold),
            "by_fold": {str(fold): scores for fold, scores in by_fold.items()},
            "top1_interval": list(top1_interval(values, labels, np.asarray(sources), 200)),
        }

    uniform = softmax(log_probs.mean(axis=0))
    rows = [
        row("tuned_cross_fitted", "Tuned weights, cross-fitted", blended),
        row("chosen", "Chosen weights, cross-fitted", blended),
        row("uniform", "Equal weights", uniform),
        row("tuned_in_sample", "Tuned weights, in-sample (too good)", blended, cross_fitted=False),
        *(row(f"member:{name}", name, each) for name, each in zip(members, member_probabilities, strict=True)),
    ]
    hit = blended.argmax(axis=1) == labels
    comparisons, contributions = [], []
    for number, name in enumerate(members):
        other = member_probabilities[number].argmax(axis=1) == labels
        loss = log_loss(blended[known], labels[known])
        gain = loss - log_loss(member_probabilities[number][known], labels[known])
        top1 = float(hit[known].mean() - other[known].mean())
        comparisons.append(
            {
                "against": f"member:{name}",
                "title": name,
                "top1": top1,
                "top1_interval": [top1 - 0.02, top1 + 0.02],
                "log_loss": gain,
                "log_loss_interval": [gain - 0.05, gain + 0.05],
                "mcnemar_p": 0.03 if number else 0.4,
                "only_blend_right": int((hit & ~other & known).sum()),
                "only_other_right": int((~hit & other & known).sum()),
            }
        )
        if n_members > 1:
            rest = softmax(np.delete(log_probs, number, axis=0).mean(axis=0))
            lost = log_loss(rest[known], labels[known]) - loss
            top1 = float(hit[known].mean() - (rest.argmax(axis=1) == labels)[known].mean())
            contributions.append(
                {
                    **{"run": name, "log_loss": lost, "log_loss_interval": [lost - 0.02, lost + 0.03]},
                    **{"top1": top1, "top1_interval": [top1 - 0.01, top1 + 0.012]},
                }
            )
    errors = np.array([(each.argmax(axis=1) != labels)[known] for each in member_probabilities], dtype=float)
    sound = errors.std(axis=1) > 0
    table = [
        [float(np.corrcoef(a, b)[0, 1]) if sound[i] and sound[j] else None for j, b in enumerate(errors)]
        for i, a in enumerate(errors)
    ]
    rng = np.random.default_rng(0)
    blend = {
        "schema": SCHEMA,
        "name": folder.name,
        "members": [
            {
                "run": name,
                "path": path,
                "config_hash": "0123456789ab",
                "folds": numbers,
                "temperatures": {str(fold): 1.1 for fold in numbers},
                "temperature_from": "cross-fit",
                "weight": float(weight),
                "class_weights": None,
                "shifts": [0.0],
                "shift_weights": [1.0],
                "shift_mode": "cyclic",
                "stored_shifts": [0.0],
                "cost": {"ms": 8.0 + 3 * number, "megabytes": 2.5},
            }
            for number, ((name, path), weight) in enumerate(zip(members.items(), weights, strict=True))
        ],
        "method": "optuna",
        "combiner": "geometric",
        "temperature": 0.97,
        "bias": None,
        "tta": False,
        "objective": "log_loss",
        "trials": 300,
        "seed": 0,
        "class_names": list(class_names),
        "dataset_fingerprint": "0123456789ab",
        "fallback": False,
        "reason": "Tuned weights: cross-fitted gain in log loss over equal weights 0.0210.",
        "warnings": [],
        "tuned_weights": weights.tolist(),
        "fold_weights": {
            str(fold): (noisy / noisy.sum()).tolist()
            for fold in numbers
            for noisy in [np.maximum(weights + rng.normal(0, 0.06, n_members), 0.01)]
        },
        "scores": rows,
        "comparisons": comparisons,
        "contributions": contributions,
        "error_correlation": table,
        "front": None,
        **over,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "blend.json").write_text(json.dumps(blend), encoding="utf-8")
    np.savez(
        folder / "oof.npz",
        clip_ids=np.array(clip_ids, dtype=np.str_),
        labels=labels.astype(np.int64),
        folds=folds.astype(np.int64),
        sources=np.array(sources, dtype=np.str_),
        probabilities=blended,
        member_probabilities=member_probabilities.astype(np.float32),
    )
    return folder


def blend_real(folder: Path, runs: Sequence[Path], **over: Any) -> Path:
    """The blender's own blend of runs, with `over` written over its blend.json."""
    blend_runs(runs, BlendConfig(trials=5, bootstrap=20, tta=True), folder)
    path = folder / "blend.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | over), encoding="utf-8")
    return folder


def made_up(
    *, n_members: int = 2, n_clips: int = 60, n_classes: int = 4, n_folds: int = 3, skill: float = 2.5
) -> dict[str, Any]:
    """Probabilities (M, N, C), labels and folds of members that are often right."""
    rng = np.random.default_rng(0)
    labels = np.arange(n_clips) % n_classes
    logits = rng.normal(size=(n_members, n_clips, n_classes))
    logits[:, np.arange(n_clips), labels] += skill
    return {
        "member_probabilities": softmax(logits).astype(np.float32),
        "labels": labels,
        "folds": 1 + (np.arange(n_clips) // n_classes) % n_folds,
        "class_names": [f"class {n}" for n in range(n_classes)],
    }
