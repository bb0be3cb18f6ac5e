"""The whole blend: read the runs, calibrate, find weights, cross-fit, decide, score, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from esc_ensemble.blend.budget import ALL_SHIFTS, front, total_cost
from esc_ensemble.blend.combine import COMBINERS, mean_over_shifts
from esc_ensemble.blend.costs import Cost
from esc_ensemble.blend.crossfit import (
    CrossFit,
    OofLogits,
    cross_fit,
    cross_fit_members,
    fit_blend,
    fit_temperatures,
    oof_logits,
    predict_all,
    take_members,
)
from esc_ensemble.blend.diagnostics import (
    contributions,
    error_correlation,
    gap_warning,
    leak_warnings,
    missing_folds_warning,
    probability_warnings,
    selection_warning,
)
from esc_ensemble.blend.members import FittedOn, MemberLogits, align_members
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
    selection_scores,
    softmax,
    top1_interval,
)
from esc_ensemble.progress import Advance, progress, stay_silent
from esc_ensemble.significance import compare_predictions

IN_SAMPLE = "tuned_in_sample"
HOW_SCORED: dict[FittedOn, str] = {
    "other folds": "cross-fitted",
    "selection": "fitted on selection, scored on test",
}
HOW_IN_SAMPLE: dict[FittedOn, str] = {
    "other folds": "in-sample (too good)",
    "selection": "scored on selection itself (too good)",
}


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
    # The clips that weights are fitted on also decide: with one fixed split the test chooses nothing.
    seen = oof.basis
    with _progress(config, seen.n_folds + 1) as advance:
        tuned_fit = fit_blend(oof, config, advance=advance, study=f"{study}-all")
        tuned_on_seen = cross_fit(seen, config, advance, study)
    keep_tuned, reason = decide(oof, tuned_on_seen, cross_fit(seen, equal), config)
    tuned = tuned_on_seen if seen is oof else predict_all(oof, tuned_fit)
    uniform = cross_fit(oof, equal)
    fit, crossed = (tuned_fit, tuned) if keep_tuned else (fit_blend(oof, equal), uniform)
    log_probs = cross_fit_members(oof)
    fitted = predict_all(oof, tuned_fit)
    in_sample = fitted.probabilities if fitted.selection is None else fitted.selection
    general = (
        missing_folds_warning(members.fold_numbers),
        selection_warning(members.selection_problem),
        gap_warning(in_sample, tuned_on_seen.probabilities, seen.labels, seen.fold_index, members.fitted_on),
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
        fold_weights=tuned_on_seen.weights if members.can_tune else np.empty((0, len(members.names))),
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
        contributions=contributions(oof, members.names, config if keep_tuned else equal, fit.mixture.combiner),
        correlation=error_correlation(log_probs.argmax(axis=2), oof.labels),
        probabilities=crossed.probabilities,
        member_probabilities=np.exp(log_probs),
        costs=costs,
        front=_front(oof, members, config),
    )


def decide(oof: OofLogits, tuned: CrossFit, uniform: CrossFit, config: BlendConfig) -> tuple[bool, str]:
    """Says whether the tuned weights beat equal ones by more than their noise, and why.

    Both are cross-fitted, with one fixed split over parts of the selection split, and compared clip by clip on what
    was tuned (log loss or error). As in the rule of one standard error (Breiman et al. 1984) equal weights win unless
    the mean gain is above its standard error over resampled sources. A 95 % interval asks for more than some hundred
    clips can show, and keeps members that drag.

    Args:
        oof: the members' logits.
        tuned: the cross-fitted predictions by tuned weights of the clips that these are fitted on (`oof.basis`).
        uniform: those by equal weights.
        config: objective, number of resamples, seed.

    Returns:
        Whether the tuned weights stay, and one sentence.
    """
    if oof.n_members == 1:
        return True, "One member has nothing to tune."
    if config.method == "uniform":
        return True, "Equal weights, as asked for."
    seen, on_selection = oof.basis, oof.selection is not None
    known = seen.labels >= 0
    if len(np.unique(seen.fold_index[known])) < 2:
        where = "of one source only in the selection split" if on_selection else "in one fold only"
        return False, f"Equal weights: with labels {where}, tuned weights cannot be scored honestly."
    labels = seen.labels[known]
    gain = _losses(uniform.probabilities[known], labels, config) - _losses(tuned.probabilities[known], labels, config)
    error = float(bootstrap_means(gain, seen.sources[known], config.bootstrap, config.seed).std())
    what = "log loss" if config.objective == "log_loss" else "error"
    where = f", over {seen.n_folds} parts of the selection split" if on_selection else ""
    numbers = f"cross-fitted gain in {what} over equal weights {gain.mean():.4f}, standard error {error:.4f}{where}"
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
    how = f", {HOW_SCORED[members.fitted_on]}" if members.can_tune else ""
    compares = tunes and members.can_tune  # else the weights are equal, and nothing shows how good tuned ones are
    rows = [("chosen", f"{'Chosen' if compares else 'Equal'} weights{how}", chosen)]
    if compares:
        rows.insert(0, ("tuned_cross_fitted", f"Tuned weights{how}", tuned))
        rows.append(("uniform", "Equal weights", uniform))
    if config.tta:
        off = {"method": "uniform", "storage": "", "tta": False, "shifts": (), "member_shifts": {}}
        without = config.model_copy(update=off)
        plain = cross_fit(oof_logits(members, without, oof.costs), without)
        rows.append(("uniform_no_tta", "Equal weights, without TTA", plain))
    table = []
    for name, title, crossed in rows:
        row = score_row(name, title, crossed.probabilities, crossed.before, members=members, config=config)
        if crossed.selection is not None:
            row = replace(row, selection=selection_scores(crossed.selection, oof.basis.labels))
        table.append(row)
    in_sample_title = f"{'Tuned' if tunes else 'Equal'} weights, {HOW_IN_SAMPLE[members.fitted_on]}"
    seen = members
    if members.selection is not None:  # its parts are not folds
        only = np.full(len(members.selection.labels), members.fold_numbers[0])
        seen = replace(members.selection, fold_of_clip=only)
    table.append(score_row(IN_SAMPLE, in_sample_title, in_sample, in_sample, members=seen, config=config))
    for member, (name, own, raw) in enumerate(zip(members.names, log_probs, oof.means, strict=True)):
        row = score_row(f"member:{name}", name, np.exp(own), softmax(raw), members=members, config=config)
        table.append(
            replace(row, selection=_selection_scores(members, member, oof.selection_temperatures[member], config))
        )
    return tuple(table)


def _selection_scores(
    members: MemberLogits, member: int, temperatures: np.ndarray, config: BlendConfig
) -> dict[str, float]:
    """Scores a member on its selection splits, on the mean over folds; nothing where a fold has none.

    Args:
        members: the aligned runs.
        member: which of them.
        temperatures: (K,) fitted on the selection splits, NaN where there are none.
        config: which shifts count.
    """
    if np.isnan(temperatures).any():
        return {}
    chosen = members.counting_shifts(config)[member]
    by_fold = {
        fold.fold: selection_scores(
            softmax(mean_over_shifts(fold.selection.logits[chosen]) / temperature), fold.selection.labels
        )
        for fold, temperature in zip(members.runs[member].folds, temperatures, strict=True)
    }
    return {name: value["mean"] for name, value in mean_and_std(by_fold).items()}


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
    basis = oof.basis
    known = basis.labels >= 0
    by_clip = fit_temperatures(basis, known)[:, basis.fold_index[known]]
    seen = Evidence([logits[:, known] for logits in basis.logits], by_clip, basis.labels[known])
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
