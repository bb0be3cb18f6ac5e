"""The whole blend: read the runs, calibrate, search, cross-fit, decide, score, write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from esc_ensemble.blend.combine import combine
from esc_ensemble.blend.crossfit import (
    CrossFit,
    OofLogits,
    apply_temperatures,
    cross_fit,
    cross_fit_uniform,
    fit_blend,
    oof_logits,
)
from esc_ensemble.blend.members import MemberLogits, align_members
from esc_ensemble.blend.output import write_blend
from esc_ensemble.blend.result import BlendResult, ScoreRow
from esc_ensemble.config import BlendConfig
from esc_ensemble.errors import LogitsError
from esc_ensemble.logits import read_run
from esc_ensemble.metrics import (
    bootstrap_interval,
    clip_losses,
    mean_and_std,
    per_fold_scores,
    score,
    top1_interval,
)
from esc_ensemble.progress import progress

IN_SAMPLE = "tuned_in_sample"


def blend_runs(run_dirs: Sequence[Path], config: BlendConfig, out_dir: Path) -> BlendResult:
    """Blends runs from their logits files alone and writes blend.json, oof.csv and submission.csv.

    Args:
        run_dirs: the run folders; one is enough.
        config: how to search and combine.
        out_dir: the blend's folder, written only once everything has succeeded.

    Raises:
        LogitsError: a run has no usable logits, or the runs do not fit together.
        WorkError: the folder cannot be written.
    """
    result = fit_runs(align_members([read_run(run_dir) for run_dir in run_dirs]), config)
    write_blend(result, out_dir)
    return result


def fit_runs(members: MemberLogits, config: BlendConfig) -> BlendResult:
    """Fits, cross-fits and scores a blend of aligned members; writes nothing.

    Raises:
        LogitsError: no clip has a label.
    """
    if not (members.labels >= 0).any():
        raise LogitsError(f"Runs {', '.join(members.names)} cannot be blended: no clip has a label.")
    oof = oof_logits(members, config.tta)
    with progress("Blend weights", config.trials * (oof.n_folds + 1), unit="trials") as advance:
        fit = fit_blend(oof, config, advance)
        crossed = cross_fit(oof, config, advance, start=fit.temperatures)
    keep_tuned, reason = decide(oof, crossed, members.sources, config)
    everything = np.ones(len(oof.labels), dtype=bool)
    in_sample = combine(apply_temperatures(oof, fit.temperatures, everything), fit.weights, config.combiner)
    n_members = len(members.names)
    return BlendResult(
        members=members,
        config=config,
        temperatures=fit.temperatures,
        from_selection=tuple(bool(known) for known in ~np.isnan(oof.selection_temperatures).any(axis=1)),
        weights=fit.weights if keep_tuned else np.full(n_members, 1.0 / n_members),
        tuned_weights=fit.weights,
        fold_weights=crossed.weights,
        fallback=not keep_tuned,
        reason=reason,
        scores=_score_table(members, config, in_sample, crossed, keep_tuned),
        probabilities=crossed.tuned if keep_tuned else crossed.uniform,
        member_predictions=crossed.log_probs.argmax(axis=2),
    )


def decide(oof: OofLogits, crossed: CrossFit, sources: np.ndarray, config: BlendConfig) -> tuple[bool, str]:
    """Says whether the tuned weights beat equal ones by more than their noise, and why.

    Both are cross-fitted and compared clip by clip on what was tuned (log loss or error); the 95 % interval
    of the mean gain over resampled sources must lie above 0.

    Args:
        oof: the members' logits.
        crossed: the cross-fitted predictions.
        sources: (N,) the recording each clip was cut from.
        config: objective, number of resamples, seed.

    Returns:
        Whether the tuned weights stay, and one sentence.
    """
    if len(oof.logits) == 1:
        return True, "One member has nothing to tune."
    known = oof.labels >= 0
    if len(np.unique(oof.fold_index[known])) < 2:
        return False, "Equal weights: with labels in one fold only, tuned weights cannot be scored honestly."
    labels = oof.labels[known]
    gain = _losses(crossed.uniform[known], labels, config) - _losses(crossed.tuned[known], labels, config)
    low, high = bootstrap_interval(gain, sources[known], config.bootstrap, config.seed)
    what = "log loss" if config.objective == "log_loss" else "error"
    numbers = f"cross-fitted gain in {what} over equal weights {gain.mean():.4f}, 95 % interval {low:.4f} to {high:.4f}"
    if low > 0.0:
        return True, f"Tuned weights: {numbers}."
    return False, f"Equal weights: tuning does not beat them by more than its noise ({numbers})."


def _losses(probabilities: np.ndarray, labels: np.ndarray, config: BlendConfig) -> np.ndarray:
    if config.objective == "error":
        return np.asarray(probabilities.argmax(axis=1) != labels, dtype=np.float64)
    return clip_losses(probabilities, labels)


def _score_table(
    members: MemberLogits, config: BlendConfig, in_sample: np.ndarray, crossed: CrossFit, keep_tuned: bool
) -> tuple[ScoreRow, ...]:
    rows = [
        ("tuned_cross_fitted", "Tuned weights, cross-fitted", crossed.tuned),
        ("chosen", "Chosen weights, cross-fitted", crossed.tuned if keep_tuned else crossed.uniform),
        ("uniform", "Equal weights", crossed.uniform),
    ]
    if config.tta:
        plain = cross_fit_uniform(oof_logits(members, tta=False), config)
        rows.append(("uniform_no_tta", "Equal weights, without TTA", plain))
    rows.append((IN_SAMPLE, "Tuned weights, in-sample (too good)", in_sample))
    rows += [
        (f"member:{name}", name, np.exp(log_probs))
        for name, log_probs in zip(members.names, crossed.log_probs, strict=True)
    ]
    return tuple(score_row(name, title, probabilities, members, config) for name, title, probabilities in rows)


def score_row(name: str, title: str, probabilities: np.ndarray, members: MemberLogits, config: BlendConfig) -> ScoreRow:
    """Scores one set of predictions (N, C) of the members' clips: overall, by fold, and with its interval."""
    by_fold = per_fold_scores(probabilities, members.labels, members.fold_of_clip)
    return ScoreRow(
        name=name,
        title=title,
        cross_fitted=name != IN_SAMPLE,
        metrics=score(probabilities, members.labels),
        by_fold=by_fold,
        over_folds=mean_and_std(by_fold),
        top1_interval=top1_interval(probabilities, members.labels, members.sources, config.bootstrap, config.seed),
    )
