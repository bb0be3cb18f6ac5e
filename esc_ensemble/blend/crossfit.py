"""Cross-fitting: temperatures and weights are fitted on the other folds and scored on this one.

With one fixed split there are no other folds: the selection split takes their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from esc_ensemble.blend.budget import fit_within
from esc_ensemble.blend.calibrate import fit_temperature
from esc_ensemble.blend.combine import Mixture, blend_probabilities, log_probabilities, mean_over_shifts
from esc_ensemble.blend.costs import Cost
from esc_ensemble.blend.fit import fit_mixture
from esc_ensemble.blend.members import MemberLogits
from esc_ensemble.blend.objective import Evidence
from esc_ensemble.config import BlendConfig
from esc_ensemble.logits import RunLogits
from esc_ensemble.progress import Advance, stay_silent


@dataclass(frozen=True, eq=False)
class OofLogits:
    """What a blend is fitted on: each member's logits at the shifts that count, and where each clip belongs."""

    logits: tuple[np.ndarray, ...]
    """M arrays (S, N, C) float32."""
    labels: np.ndarray
    """(N,) int64, -1 where unknown."""
    fold_index: np.ndarray
    """(N,) int64, place of the clip's fold among the K folds."""
    sources: np.ndarray
    """(N,) str, the recording each clip was cut from."""
    selection_temperatures: np.ndarray
    """(M, K), fitted on each fold's selection split; NaN for members without one."""
    plain: tuple[int, ...]
    """For each member, which of its shifts is the clip as it is; the first where that does not count."""
    costs: tuple[Cost | None, ...] = ()
    """What each member costs, heard once, where that is known; needed where a limit is set."""
    selection: OofLogits | None = None
    """With one fixed split: the selection clips, their parts as folds; everything is fitted on them."""

    @property
    def basis(self) -> OofLogits:
        """Returns the clips that weights are fitted on: the selection split's, or else these, fold by fold."""
        return self if self.selection is None else self.selection

    @property
    def n_folds(self) -> int:
        """K."""
        return int(self.selection_temperatures.shape[1])

    @property
    def n_members(self) -> int:
        """M."""
        return len(self.logits)

    @cached_property
    def means(self) -> np.ndarray:
        """(M, N, C) float32 mean over shifts."""
        return np.stack([mean_over_shifts(values) for values in self.logits])


@dataclass(frozen=True, eq=False)
class Fit:
    """A blend, ready to be applied to logits."""

    temperatures: np.ndarray
    """(M, K), for each member's fold models."""
    mixture: Mixture
    """Weights and the rest."""


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Predictions of each fold by a blend that was fitted on the other folds, or on the selection split."""

    probabilities: np.ndarray
    """(N, C)."""
    before: np.ndarray
    """(N, C) the same without the blend's own temperature."""
    fits: tuple[Fit, ...]
    """K fits, each without its fold; with one fixed split the one fit on the selection split."""
    selection: np.ndarray | None = None
    """(number of selection clips, C): with one fixed split the same fit's probabilities of those."""

    @property
    def weights(self) -> np.ndarray:
        """(K, M) the weights used on each held-out fold."""
        return np.array([fit.mixture.weights for fit in self.fits])


def oof_logits(members: MemberLogits, config: BlendConfig, costs: tuple[Cost | None, ...] = ()) -> OofLogits:
    """Takes the shifts that count and fits the temperatures of members with a selection split.

    Raises:
        LogitsError: a shift is asked for that a member has not stored, or a member that is not there.
    """
    counting = members.counting_shifts(config)
    temperatures = np.array(
        [selection_temperatures(run, chosen) for run, chosen in zip(members.runs, counting, strict=True)]
    )
    return OofLogits(
        logits=tuple(logits[chosen] for logits, chosen in zip(members.logits, counting, strict=True)),
        labels=members.labels,
        fold_index=np.searchsorted(members.fold_numbers, members.fold_of_clip),
        sources=members.sources,
        # The parts of a selection split are of the same models, which have no other split: (M, 1) -> (M, K).
        selection_temperatures=np.broadcast_to(temperatures, (len(members.runs), len(members.fold_numbers))),
        plain=tuple(
            int(np.flatnonzero(shifts[chosen] == 0.0)[0]) if (shifts[chosen] == 0.0).any() else 0
            for shifts, chosen in zip(members.shifts, counting, strict=True)
        ),
        costs=costs,
        selection=None if members.selection is None else oof_logits(members.selection, config, costs),
    )


def selection_temperatures(run: RunLogits, chosen: np.ndarray) -> list[float]:
    """Gives a temperature for each fold from its selection split, or NaN for all where a fold has none.

    A selection split holds no test clip of its fold, so this temperature may be used to score that fold.

    Args:
        run: the member.
        chosen: (S,) bool, which of its shifts count.
    """
    parts = [fold.selection for fold in run.folds]
    if not all((part.labels >= 0).any() for part in parts):
        return [float("nan")] * len(parts)
    return [fit_temperature(mean_over_shifts(part.logits[chosen]), part.labels) for part in parts]


def take_members(oof: OofLogits, kept: Sequence[int], plain_only: Sequence[int] = ()) -> OofLogits:
    """Gives the logits of some members, of those in `plain_only` the clip as it is alone."""
    narrowed = {member: slice(oof.plain[member], oof.plain[member] + 1) for member in plain_only}
    return replace(
        oof,
        logits=tuple(oof.logits[member][narrowed.get(member, slice(None))] for member in kept),
        selection_temperatures=oof.selection_temperatures[list(kept)],
        plain=tuple(0 if member in plain_only else oof.plain[member] for member in kept),
        costs=tuple(oof.costs[member] for member in kept) if oof.costs else (),
        selection=None if oof.selection is None else take_members(oof.selection, kept, plain_only),
    )


def clips_to_fit_on(fold_index: np.ndarray, sources: np.ndarray, fold: int) -> np.ndarray:
    """Selects the clips of the other folds whose source is not in this fold too, as training does.

    Args:
        fold_index: (N,) the fold of each clip.
        sources: (N,) the recording each clip was cut from.
        fold: the fold that is scored.

    Returns:
        (N,) bool.
    """
    return ~np.isin(sources, sources[fold_index == fold])


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
            fit_temperature(oof.means[member, usable], oof.labels[usable], begin) if usable.any() else 1.0
        )
    return temperatures


def fit_blend(
    oof: OofLogits,
    config: BlendConfig,
    clips: np.ndarray | None = None,
    advance: Advance = stay_silent,
    study: str = "",
) -> Fit:
    """Fits temperatures and weights on some clips, or on all: the blend to deploy, whose own score is in-sample.

    With one fixed split the blend to deploy is fitted on the selection split.

    Args:
        oof: the members' logits.
        config: method and the rest.
        clips: (N,) bool, which clips may be looked at; all, or the selection split, where not given.
        advance: moved on by `config.trials`.
        study: name of the Optuna study in a shared storage.
    """
    if clips is None and oof.selection is not None:
        fit = fit_blend(oof.selection, config, advance=advance, study=study)
        return replace(fit, temperatures=oof.selection_temperatures)
    clips = np.ones(len(oof.labels), dtype=bool) if clips is None else clips
    temperatures = fit_temperatures(oof, clips)
    usable = clips & (oof.labels >= 0)
    seen = Evidence(
        [logits[:, usable] for logits in oof.logits],
        temperatures[:, oof.fold_index[usable]],  # (M, K) -> (M, number of those clips)
        oof.labels[usable],
    )
    if config.limited:
        return Fit(temperatures, fit_within(seen, oof.plain, oof.costs, config, advance=advance, study=study))
    return Fit(temperatures, fit_mixture(seen, config, advance, study))


def cross_fit(oof: OofLogits, config: BlendConfig, advance: Advance = stay_silent, study: str = "") -> CrossFit:
    """Predicts each fold with temperatures and weights fitted on the other folds.

    With one fixed split they are fitted on the selection split. Without one, where the other folds hold no labelled
    clip, nothing can be fitted: temperatures are 1 and weights equal.

    Args:
        oof: the members' logits.
        config: each fold's search is as long as the final one.
        advance: moved on by `config.trials` a fold.
        study: name of the Optuna studies in a shared storage.
    """
    if oof.selection is not None:
        return predict_all(oof, fit_blend(oof, config, advance=advance, study=f"{study}-all"))
    probabilities, before = np.empty_like(oof.means[0]), np.empty_like(oof.means[0])
    fits = []
    for fold in range(oof.n_folds):
        held_out = oof.fold_index == fold
        fit = fit_blend(
            oof, config, clips_to_fit_on(oof.fold_index, oof.sources, fold), advance, f"{study}-without-{fold}"
        )
        probabilities[held_out] = apply_fit(oof, fit, held_out)
        before[held_out] = apply_fit(oof, fit, held_out, warm=False)
        fits.append(fit)
    return CrossFit(probabilities, before, tuple(fits))


def predict_all(oof: OofLogits, fit: Fit) -> CrossFit:
    """Predicts all clips, and the selection clips where everything was fitted on them, by one fit."""
    everything = np.ones(len(oof.labels), dtype=bool)
    selection = None
    if oof.selection is not None:
        of_parts = replace(fit, temperatures=np.repeat(fit.temperatures, oof.selection.n_folds, axis=1))
        selection = predict_all(oof.selection, of_parts).probabilities
    return CrossFit(
        apply_fit(oof, fit, everything), apply_fit(oof, fit, everything, warm=False), (fit,), selection=selection
    )


def cross_fit_members(oof: OofLogits) -> np.ndarray:
    """Gives each member's calibrated log-probabilities (M, N, C), its temperature fitted without their fold."""
    log_probs = np.empty_like(oof.means)
    for fold in range(oof.n_folds):
        held_out = oof.fold_index == fold
        temperatures = fit_temperatures(oof, clips_to_fit_on(oof.fold_index, oof.sources, fold))
        log_probs[:, held_out] = log_probabilities(oof.means[:, held_out], temperatures[:, [fold]])
    return log_probs


def apply_fit(oof: OofLogits, fit: Fit, clips: np.ndarray, *, warm: bool = True) -> np.ndarray:
    """Gives a blend's probabilities of some clips, each by the temperatures of its own fold's models.

    Args:
        oof: the members' logits.
        fit: the blend.
        clips: (N,) bool, which clips.
        warm: whether the blend's own temperature is applied.

    Returns:
        (number of those clips, C).
    """
    mixture = fit.mixture if warm else replace(fit.mixture, temperature=1.0)
    by_clip = fit.temperatures[:, oof.fold_index[clips]]  # (M, K) -> (M, number of those clips)
    return blend_probabilities([logits[:, clips] for logits in oof.logits], list(by_clip), mixture)
