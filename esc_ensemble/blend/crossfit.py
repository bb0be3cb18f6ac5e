"""Cross-fitting: temperatures and weights are fitted on the other folds and scored on this one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esc_ensemble.blend.calibrate import fit_temperature
from esc_ensemble.blend.combine import combine, log_probabilities, mean_over_shifts
from esc_ensemble.blend.members import MemberLogits
from esc_ensemble.blend.search import search_weights
from esc_ensemble.config import BlendConfig
from esc_ensemble.logits import RunLogits
from esc_ensemble.progress import Advance


@dataclass(frozen=True, eq=False)
class OofLogits:
    """What a blend is fitted on: one array of logits a member, and where each clip belongs."""

    logits: np.ndarray
    """(M, N, C) float32, already averaged over shifts."""
    labels: np.ndarray
    """(N,) int64, -1 where unknown."""
    fold_index: np.ndarray
    """(N,) int64, place of the clip's fold among the K folds."""
    selection_temperatures: np.ndarray
    """(M, K), fitted on each fold's selection split; NaN for members without one."""

    @property
    def n_folds(self) -> int:
        """K."""
        return int(self.selection_temperatures.shape[1])


@dataclass(frozen=True, eq=False)
class Fit:
    """A blend, ready to be applied to logits."""

    temperatures: np.ndarray
    """(M, K), for each member's fold models."""
    weights: np.ndarray
    """(M,), summing to 1."""


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Predictions of each fold by a blend that was fitted on the other folds."""

    log_probs: np.ndarray
    """(M, N, C) each member's calibrated log-probabilities."""
    weights: np.ndarray
    """(K, M) the weights used on each held-out fold."""
    uniform: np.ndarray
    """(N, C) probabilities of equal weights."""
    tuned: np.ndarray
    """(N, C) probabilities of the tuned weights."""


def oof_logits(members: MemberLogits, tta: bool) -> OofLogits:
    """Averages each member over its shifts and fits the temperatures of those with a selection split."""
    means = [
        mean_over_shifts(logits, shifts, tta) for logits, shifts in zip(members.logits, members.shifts, strict=True)
    ]
    return OofLogits(
        logits=np.stack(means),
        labels=members.labels,
        fold_index=np.searchsorted(members.fold_numbers, members.fold_of_clip),
        selection_temperatures=np.array([selection_temperatures(run, tta) for run in members.runs]),
    )


def selection_temperatures(run: RunLogits, tta: bool) -> list[float]:
    """Gives a temperature for each fold from its selection split, or NaN for all where a fold has none.

    A selection split holds no test clip of its fold, so this temperature may be used to score that fold.
    """
    parts = [fold.selection for fold in run.folds]
    if not all((part.labels >= 0).any() for part in parts):
        return [float("nan")] * len(parts)
    return [fit_temperature(mean_over_shifts(part.logits, run.shifts, tta), part.labels) for part in parts]


def fit_temperatures(oof: OofLogits, clips: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Gives a temperature for each member and fold that was fitted without looking beyond `clips`.

    Members with a selection split keep its temperatures; the others get one for all their folds, fitted on
    the OOF logits of `clips`, or 1 where none of those has a label.

    Args:
        oof: the members' logits.
        clips: (N,) bool, which clips may be used.
        start: (M, K) temperatures to begin at.

    Returns:
        (M, K).
    """
    temperatures = oof.selection_temperatures.copy()
    usable = clips & (oof.labels >= 0)
    for member in np.flatnonzero(np.isnan(temperatures).any(axis=1)):
        begin = 1.0 if start is None else float(start[member, 0])
        temperatures[member] = (
            fit_temperature(oof.logits[member, usable], oof.labels[usable], begin) if usable.any() else 1.0
        )
    return temperatures


def fit_blend(oof: OofLogits, config: BlendConfig, advance: Advance | None = None) -> Fit:
    """Fits temperatures and weights on all folds: the blend to deploy, whose own score is in-sample."""
    return _fit(oof, np.ones(len(oof.labels), dtype=bool), config, advance, None)


def cross_fit(
    oof: OofLogits, config: BlendConfig, advance: Advance | None = None, start: np.ndarray | None = None
) -> CrossFit:
    """Predicts each fold with temperatures and weights fitted on the other folds.

    Where the other folds hold no labelled clip, nothing can be fitted: temperatures are 1 and weights equal.

    Args:
        oof: the members' logits.
        config: search settings; each fold's search is as long as the final one.
        advance: moved on by one a trial.
        start: (M, K) temperatures to begin at, which only saves time.
    """
    n_members = len(oof.logits)
    equal = np.full(n_members, 1.0 / n_members)
    log_probs = np.empty_like(oof.logits)
    uniform = np.empty_like(oof.logits[0])
    tuned = np.empty_like(oof.logits[0])
    weights = np.empty((oof.n_folds, n_members))
    for fold in range(oof.n_folds):
        held_out = oof.fold_index == fold
        fit = _fit(oof, ~held_out, config, advance, start)
        weights[fold] = fit.weights
        log_probs[:, held_out] = apply_temperatures(oof, fit.temperatures, held_out)
        uniform[held_out] = combine(log_probs[:, held_out], equal, config.combiner)
        tuned[held_out] = combine(log_probs[:, held_out], fit.weights, config.combiner)
    return CrossFit(log_probs=log_probs, weights=weights, uniform=uniform, tuned=tuned)


def cross_fit_uniform(oof: OofLogits, config: BlendConfig) -> np.ndarray:
    """Gives the probabilities (N, C) of equal weights with cross-fitted temperatures, without any search."""
    n_members = len(oof.logits)
    uniform: np.ndarray = np.empty_like(oof.logits[0])
    for fold in range(oof.n_folds):
        held_out = oof.fold_index == fold
        log_probs = apply_temperatures(oof, fit_temperatures(oof, ~held_out), held_out)
        uniform[held_out] = combine(log_probs, np.full(n_members, 1.0 / n_members), config.combiner)
    return uniform


def apply_temperatures(oof: OofLogits, temperatures: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Gives the calibrated log-probabilities of some clips, each by the temperature of its own fold's model.

    Args:
        oof: the members' logits.
        temperatures: (M, K).
        clips: (N,) bool, which clips.

    Returns:
        (M, number of those clips, C).
    """
    by_clip = temperatures[:, oof.fold_index[clips]]  # (M, K) -> (M, number of those clips)
    return log_probabilities(oof.logits[:, clips], by_clip)


def _fit(
    oof: OofLogits, clips: np.ndarray, config: BlendConfig, advance: Advance | None, start: np.ndarray | None
) -> Fit:
    temperatures = fit_temperatures(oof, clips, start)
    usable = clips & (oof.labels >= 0)
    weights = search_weights(
        apply_temperatures(oof, temperatures, usable),
        oof.labels[usable],
        combiner=config.combiner,
        objective=config.objective,
        n_trials=config.trials,
        seed=config.seed,
        advance=advance,
    )
    return Fit(temperatures=temperatures, weights=weights)
