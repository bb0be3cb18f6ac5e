"""The whole blend: read the runs, calibrate, find weights, cross-fit, decide, score, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from esc_ensemble.blend.budget import ALL_SHIFTS, front, total_cost
from esc_ensemble.blend.combine import COMBINERS
from esc_ensemble.blend.costs import Cost
from esc_ensemble.blend.crossfit import (
    CrossFit,
    OofLogits,
    apply_fit,
    cross_fit,
    cross_fit_members,
    fit_blend,
    fit_temperatures,
    oof_logits,
    take_members,
)
from esc_ensemble.blend.diagnostics import (
    contributions,
    error_correlation,
    gap_warning,
    leak_warnings,
    missing_folds_warning,
    probability_warnings,
)
from esc_ensemble.blend.members import MemberLogits, align_members
from esc_ensemble.blend.objective import Evidence
from esc_ensemble.blend.output import check_place, write_blend
from esc_ensemble.blend.result import BlendResult, FrontPoint, ScoreRow
from esc_ensemble.config import BlendConfig
from esc_ensemble.config.blend import TRYING
from esc_ensemble.errors import LogitsError
from esc_ensemble.logits import read_run, seconds_of
from esc_ensemble.metrics import (
    bootstrap_means,
    clip_losses,
    mean_and_std,
    per_fold_scores,
    score,
    softmax,
    top1_interval,
)
from esc_ensemble.progress import Advance, progress, stay_silent
from esc_ensemble.significance import compare_predictions

IN_SAMPLE = "tuned_in_sample"


def blend_runs(
    run_dirs: Sequence[Path], config: BlendConfig, out_dir: Path, costs: Mapping[Path, Cost] | None = None
) -> BlendResult:
    """Blends runs from their logits files alone and writes the blend's files.

    Args:
        run_dirs: the run folders; one is enough.
        config: how to find weights and combine.
        out_dir: the blend's folder, written only once everything has succeeded.
        costs: what each run costs, heard once; needed for a limit and for the front of what accuracy costs.

    Raises:
        LogitsError: a run has no usable logits, the runs do not fit together, or none fits the limits.
        WorkError: the folder or the studies' storage cannot be written.
    """
    members = align_members([read_run(run_dir) for run_dir in run_dirs])
    check_place(out_dir)
    known = costs or {}
    result = fit_runs(members, config, tuple(known.get(run.path) for run in members.runs), study=out_dir.name)
    write_blend(result, out_dir)
    return result


def fit_runs(
    members: MemberLogits, config: BlendConfig, costs: tuple[Cost | None, ...] = (), study: str = "blend"
) -> BlendResult:
    """Fits, cross-fits and scores a blend of aligned members; writes nothing.

    Args:
        members: the aligned runs.
        config: how to find weights and combine.
        costs: what each member costs, heard once, where that is known.
        study: name of the Optuna studies in a shared storage.

    Raises:
        LogitsError: no clip has a label, or no member fits the limits.
    """
    if not (members.labels >= 0).any():
        raise LogitsError(f"Runs {', '.join(members.names)} cannot be blended: no clip has a label.")
    costs = costs or (None,) * len(members.names)
    oof = oof_logits(members, config, costs)
    equal = config.model_copy(update={"method": "uniform", "storage": ""})
    with _progress(config, oof.n_folds + 1) as advance:
        tuned_fit = fit_blend(oof, config, advance=advance, study=f"{study}-all")
        tuned = cross_fit(oof, config, advance, study)
    uniform = cross_fit(oof, equal)
    keep_tuned, reason = decide(oof, tuned, uniform, members.sources, config)
    fit, crossed = (tuned_fit, tuned) if keep_tuned else (fit_blend(oof, equal), uniform)
    log_probs = cross_fit_members(oof)
    everything = np.ones(len(oof.labels), dtype=bool)
    in_sample = apply_fit(oof, tuned_fit, everything)
    general = (
        missing_folds_warning(members.fold_numbers),
        gap_warning(in_sample, tuned.probabilities, oof.labels, oof.fold_index),
    )
    table = _score_table(
        members,
        config,
        oof,
        tuned=tuned,
        uniform=uniform,
        in_sample=in_sample,
        log_probs=log_probs,
        keep_tuned=keep_tuned,
    )
    against = {"uniform": uniform.probabilities} if keep_tuned and config.method != "uniform" else {}
    against |= {f"member:{name}": np.exp(own) for name, own in zip(members.names, log_probs, strict=True)}
    return BlendResult(
        members=members,
        config=config,
        shifts=tuple(
            shifts[chosen] for shifts, chosen in zip(members.shifts, members.counting_shifts(config), strict=True)
        ),
        temperatures=fit.temperatures,
        from_selection=tuple(bool(known) for known in ~np.isnan(oof.selection_temperatures).any(axis=1)),
        mixture=fit.mixture,
        tuned=tuned_fit.mixture,
        fold_weights=tuned.weights,
        fallback=not keep_tuned,
        reason=reason,
        warnings=(
            *probability_warnings(members.logits, members.fold_of_clip, members.names),
            *(warning for warning in general if warning),
            *leak_warnings(log_probs, oof.labels, members.fold_of_clip, members.sources, members.names),
        ),
        scores=table,
        comparisons={
            name: compare_predictions(
                crossed.probabilities, other, oof.labels, members.sources, n_draws=config.bootstrap, seed=config.seed
            )
            for name, other in against.items()
            if len(members.names) > 1
        },
        contributions=contributions(
            oof, members.names, members.sources, config if keep_tuned else equal, fit.mixture.combiner
        ),
        correlation=error_correlation(log_probs.argmax(axis=2), oof.labels),
        probabilities=crossed.probabilities,
        member_probabilities=np.exp(log_probs),
        costs=costs,
        front=_front(oof, members, config),
    )


def decide(
    oof: OofLogits, tuned: CrossFit, uniform: CrossFit, sources: np.ndarray, config: BlendConfig
) -> tuple[bool, str]:
    """Says whether the tuned weights beat equal ones by more than their noise, and why.

    Both are cross-fitted and compared clip by clip on what was tuned (log loss or error). As in the rule of one
    standard error (Breiman et al. 1984) equal weights win unless the mean gain is above its standard error over
    resampled sources. A 95 % interval asks for more than some hundred clips can show, and keeps members that drag.

    Args:
        oof: the members' logits.
        tuned: the cross-fitted predictions of tuned weights.
        uniform: those of equal weights.
        sources: (N,) the recording each clip was cut from.
        config: objective, number of resamples, seed.

    Returns:
        Whether the tuned weights stay, and one sentence.
    """
    if oof.n_members == 1:
        return True, "One member has nothing to tune."
    if config.method == "uniform":
        return True, "Equal weights, as asked for."
    known = oof.labels >= 0
    if len(np.unique(oof.fold_index[known])) < 2:
        return False, "Equal weights: with labels in one fold only, tuned weights cannot be scored honestly."
    labels = oof.labels[known]
    gain = _losses(uniform.probabilities[known], labels, config) - _losses(tuned.probabilities[known], labels, config)
    error = float(bootstrap_means(gain, sources[known], config.bootstrap, config.seed).std())
    what = "log loss" if config.objective == "log_loss" else "error"
    numbers = f"cross-fitted gain in {what} over equal weights {gain.mean():.4f}, standard error {error:.4f}"
    if gain.mean() > error:
        return True, f"Tuned weights: {numbers}."
    return False, f"Equal weights: tuning does not beat them by more than its noise ({numbers})."


def _progress(config: BlendConfig, n_fits: int) -> AbstractContextManager[Advance]:
    """Shows the trials of methods that try; the others are done in a moment."""
    if config.method not in TRYING:
        return nullcontext(stay_silent)
    return progress("Blend weights", config.trials * n_fits, unit="trials")


def _losses(probabilities: np.ndarray, labels: np.ndarray, config: BlendConfig) -> np.ndarray:
    if config.objective == "error":
        return np.asarray(probabilities.argmax(axis=1) != labels, dtype=np.float64)
    return clip_losses(probabilities, labels)


def _score_table(
    members: MemberLogits,
    config: BlendConfig,
    oof: OofLogits,
    *,
    tuned: CrossFit,
    uniform: CrossFit,
    in_sample: np.ndarray,
    log_probs: np.ndarray,
    keep_tuned: bool,
) -> tuple[ScoreRow, ...]:
    chosen = tuned if keep_tuned else uniform
    tunes = config.method != "uniform"
    rows = [("chosen", f"{'Chosen' if tunes else 'Equal'} weights, cross-fitted", chosen.probabilities, chosen.before)]
    if tunes:
        rows.insert(0, ("tuned_cross_fitted", "Tuned weights, cross-fitted", tuned.probabilities, tuned.before))
        rows.append(("uniform", "Equal weights", uniform.probabilities, uniform.before))
    if config.tta:
        off = {"method": "uniform", "storage": "", "tta": False, "shifts": (), "member_shifts": {}}
        without = config.model_copy(update=off)
        plain = cross_fit(oof_logits(members, without, oof.costs), without)
        rows.append(("uniform_no_tta", "Equal weights, without TTA", plain.probabilities, plain.before))
    rows.append((IN_SAMPLE, f"{'Tuned' if tunes else 'Equal'} weights, in-sample (too good)", in_sample, in_sample))
    rows += [
        (f"member:{name}", name, np.exp(own), softmax(raw))
        for name, own, raw in zip(members.names, log_probs, oof.means, strict=True)
    ]
    return tuple(
        score_row(name, title, probabilities, before, members=members, config=config)
        for name, title, probabilities, before in rows
    )


def score_row(
    name: str, title: str, probabilities: np.ndarray, before: np.ndarray, *, members: MemberLogits, config: BlendConfig
) -> ScoreRow:
    """Scores predictions (N, C) of the members' clips: overall, by fold, with its interval, and before calibration."""
    by_fold = per_fold_scores(probabilities, members.labels, members.fold_of_clip)
    uncalibrated = score(before, members.labels)
    return ScoreRow(
        name=name,
        title=title,
        cross_fitted=name != IN_SAMPLE,
        metrics=score(probabilities, members.labels),
        uncalibrated={metric: uncalibrated[metric] for metric in ("log_loss", "ece")},
        by_fold=by_fold,
        over_folds=mean_and_std(by_fold),
        top1_interval=top1_interval(probabilities, members.labels, members.sources, config.bootstrap, config.seed),
    )


def _front(oof: OofLogits, members: MemberLogits, config: BlendConfig) -> tuple[FrontPoint, ...]:
    """What accuracy costs, in megabytes where only those are limited, else in milliseconds; cross-fitted scores."""
    costs = [cost for cost in oof.costs if cost is not None]
    if len(costs) < oof.n_members or oof.n_members < 2:
        return ()
    known = oof.labels >= 0
    everything = np.ones(len(known), dtype=bool)
    by_clip = fit_temperatures(oof, everything)[:, oof.fold_index[known]]
    seen = Evidence([logits[:, known] for logits in oof.logits], by_clip, oof.labels[known])
    in_megabytes = config.max_mb > 0.0 and not config.max_ms
    quick = config.model_copy(
        update={
            **{"method": "lbfgs", "objective": "log_loss", "combiner": COMBINERS[0]},
            **{"tta_weights": "equal", "storage": "", "max_ms": 0.0, "max_mb": 0.0},
        }
    )
    shifts = [stored[chosen] for stored, chosen in zip(members.shifts, members.counting_shifts(config), strict=True)]
    points = []
    for choice in front(seen, oof.plain, costs, lambda cost: cost.megabytes if in_megabytes else cost.ms):
        kept = [member for member, level in enumerate(choice) if level]
        plain_only = [member for member in kept if choice[member] != ALL_SHIFTS]
        probabilities = cross_fit(take_members(oof, kept, plain_only), quick).probabilities
        points.append(
            FrontPoint(
                shifts={
                    members.names[m]: seconds_of(shifts[m] if level == ALL_SHIFTS else shifts[m][[oof.plain[m]]])
                    for m, level in enumerate(choice)
                    if level
                },
                cost=total_cost(choice, seen.n_shifts, costs),
                metrics=score(probabilities, oof.labels),
                interval=top1_interval(probabilities, oof.labels, members.sources, config.bootstrap, config.seed),
            )
        )
    return tuple(points)
