"""Runs side by side: the same clips in the same order, or a refusal that says which run does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from esc_ensemble.config import BlendConfig
from esc_ensemble.data.folding import assign_folds
from esc_ensemble.errors import LogitsError, list_problems
from esc_ensemble.logits import RunLogits, empty_part, join_folds, logits_path

MAX_NAMED = 5
FittedOn = Literal["other folds", "selection"]
"""What the weights and temperatures that a clip is scored with are fitted on."""
SELECTION_PARTS = 5
"""Parts of a selection split that weights are cross-validated on."""


@dataclass(frozen=True, eq=False)
class MemberLogits:
    """The members of a blend, aligned by clip id."""

    runs: tuple[RunLogits, ...]
    """M runs, as read; their own clip order may differ from this one's."""
    clip_ids: np.ndarray
    """(N,) str, sorted."""
    labels: np.ndarray
    """(N,) int64, -1 where unknown."""
    fold_of_clip: np.ndarray
    """(N,) int64."""
    sources: np.ndarray
    """(N,) str."""
    logits: tuple[np.ndarray, ...]
    """M arrays (S, N, C) float32; S is each member's own number of shifts."""
    selection: MemberLogits | None = None
    """With a single test fold: the selection split of its members, dealt to parts (`fold_of_clip`) by source."""
    selection_problem: str = ""
    """Why members of which some have a selection split cannot be fitted on it; empty where nothing is wrong."""

    @property
    def names(self) -> tuple[str, ...]:
        """M run names."""
        return tuple(run.name for run in self.runs)

    @property
    def class_names(self) -> tuple[str, ...]:
        """C class names."""
        return self.runs[0].class_names

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """K fold numbers, rising."""
        return tuple(int(fold) for fold in np.unique(self.fold_of_clip))

    @property
    def fitted_on(self) -> FittedOn:
        """What a blend of these members is fitted on."""
        return "other folds" if self.selection is None else "selection"

    @property
    def can_tune(self) -> bool:
        """Whether there are clips to fit on beside those that are scored: other folds', or the selection split's."""
        return self.selection is not None or len(np.unique(self.fold_of_clip[self.labels >= 0])) > 1

    @property
    def shifts(self) -> tuple[np.ndarray, ...]:
        """M arrays (S,) float32 seconds."""
        return tuple(run.shifts for run in self.runs)

    def counting_shifts(self, config: BlendConfig) -> tuple[np.ndarray, ...]:
        """Gives for each member which of its stored shifts count, M arrays (S,) bool: 0.0 alone without tta.

        Raises:
            LogitsError: a shift is asked for that a member has not stored, or shifts of a run that is no member.
        """
        if not config.tta:
            return tuple(shifts == 0.0 for shifts in self.shifts)
        problems = [f'"{name}" is no member' for name in config.member_shifts if name not in self.names]
        chosen = []
        for run in self.runs:
            asked = config.member_shifts.get(run.name, config.shifts)
            wanted = np.array(asked if asked else run.shifts, dtype=np.float32)
            absent = wanted[~np.isin(wanted, run.shifts)]
            if absent.size:
                problems.append(f"{run.path} has no shift {_seconds(absent)}; it has {_seconds(run.shifts)}")
            chosen.append(np.isin(run.shifts, wanted))
        if problems:
            raise LogitsError(list_problems("These time shifts cannot be blended:", problems))
        return tuple(chosen)

    @property
    def dataset_fingerprint(self) -> str:
        """Fingerprint of the data that all members were trained on."""
        return self.runs[0].folds[0].dataset_fingerprint


def align_members(runs: Sequence[RunLogits]) -> MemberLogits:
    """Puts the clips of all runs in one order, sorted by clip id.

    Raises:
        LogitsError: no run is given, one twice, or they differ in data, classes, folds, clips or labels.
    """
    if not runs:
        raise LogitsError("There is nothing to blend: name at least one run, as in: esc-ens blend RUN")
    # In this order: a run on other data differs in all the rest too, and one cause is enough to name.
    for headline, find in (
        ("A run can be blended only once:", _repeated),
        ("Runs trained on different data cannot be blended:", _other_data),
        ("Runs with different classes, or classes in another order, cannot be blended:", _other_classes),
        ("Runs must hold the same folds to be blended:", _missing_folds),
        ("Runs must hold the same clips in the same folds with the same labels to be blended:", _other_clips),
    ):
        problems = find(runs)
        if problems:
            raise LogitsError(list_problems(headline, problems))
    selection, selection_problem = _align_selection(runs)
    return replace(_in_one_order(runs), selection=selection, selection_problem=selection_problem)


def _align_selection(runs: Sequence[RunLogits]) -> tuple[MemberLogits | None, str]:
    """Returns the selection split of runs with one fixed split, and why there is none where some run has one."""
    if len(runs[0].folds) > 1:
        return None, ""
    splits = [_selection_run(run) for run in runs]
    without = [run.name for run, split in zip(runs, splits, strict=True) if not (split.labels >= 0).any()]
    if without:
        named = f"{', '.join(without)} {'has' if len(without) == 1 else 'have'}"
        return None, "" if len(without) == len(runs) else f"{named} no labeled selection split"
    problems = _other_clips(splits)
    if problems:
        return None, f"the members' selection splits differ: {problems[0]}"
    aligned = _in_one_order(splits)
    parts = assign_folds(aligned.sources.tolist(), aligned.labels.astype(str).tolist(), SELECTION_PARTS)
    return replace(aligned, fold_of_clip=np.array(parts)), ""


def _selection_run(run: RunLogits) -> RunLogits:
    """Returns a run whose test clips are the selection clips of this run's only fold."""
    (fold,) = run.folds
    empty = empty_part(len(fold.shifts), len(fold.class_names))
    return join_folds(run.path, [replace(fold, test=fold.selection, selection=empty)])


def _in_one_order(runs: Sequence[RunLogits]) -> MemberLogits:
    orders = [np.argsort(run.clip_ids) for run in runs]
    first, order = runs[0], orders[0]
    # Trainers other than ours may name no sources; those that do were checked to see the same data.
    pairs = list(zip(runs, orders, strict=True))
    grouped = next((pair for pair in pairs if _names_sources(pair[0])), pairs[0])
    return MemberLogits(
        runs=tuple(runs),
        clip_ids=first.clip_ids[order],
        labels=first.labels[order],
        fold_of_clip=first.fold_of_clip[order],
        sources=grouped[0].sources[grouped[1]],
        logits=tuple(run.logits[:, by_id] for run, by_id in pairs),
    )


def _names_sources(run: RunLogits) -> bool:
    return not np.array_equal(run.sources, run.clip_ids)


def _repeated(runs: Sequence[RunLogits]) -> list[str]:
    names = [run.name for run in runs]
    return [
        f'run "{name}" is given {names.count(name)} times: '
        + ", ".join(str(run.path) for run in runs if run.name == name)
        for name in sorted(set(names))
        if names.count(name) > 1
    ]


def _other_data(runs: Sequence[RunLogits]) -> list[str]:
    prints = [run.folds[0].dataset_fingerprint for run in runs]
    if len(set(prints)) == 1:
        return []
    return [f"{run.path} has dataset fingerprint {found}" for run, found in zip(runs, prints, strict=True)]


def _other_classes(runs: Sequence[RunLogits]) -> list[str]:
    first = runs[0]
    problems = []
    for run in runs[1:]:
        if run.class_names == first.class_names:
            continue
        files = f"{_any_file(run)} and {_any_file(first)}"
        extra = sorted(set(run.class_names) ^ set(first.class_names))
        if extra:
            problems.append(f"{files} do not both have: {_named(extra)}")
        else:
            problems.append(f"{files} have the same classes in another order")
    return problems


def _missing_folds(runs: Sequence[RunLogits]) -> list[str]:
    wanted = {fold for run in runs for fold in run.fold_numbers}
    problems = []
    for run in runs:
        missing = ",".join(str(fold) for fold in sorted(wanted - set(run.fold_numbers)))
        if missing:
            problems.append(
                f"{run.path} lacks fold {missing}. Finish it: esc-ens train-a --data DIR --run {run.path.name} "
                f"--fold {missing} (or the trainer it was made with)"
            )
    return problems


def _other_clips(runs: Sequence[RunLogits]) -> list[str]:
    first = runs[0]
    order = np.argsort(first.clip_ids)
    problems = []
    for run in runs[1:]:
        differing = np.setxor1d(run.clip_ids, first.clip_ids)
        if differing.size:
            problems.append(f"{run.path} and {first.path} do not both have clip {_named(differing)}")
            continue
        by_id = np.argsort(run.clip_ids)
        for what, of_run, of_first in (
            ("fold", run.fold_of_clip[by_id], first.fold_of_clip[order]),
            ("label", run.labels[by_id], first.labels[order]),
        ):
            wrong = run.clip_ids[by_id][of_run != of_first]
            if wrong.size:
                problems.append(f"{run.path} and {first.path} give another {what} to clip {_named(wrong)}")
    return problems


def _seconds(shifts: np.ndarray) -> str:
    return ", ".join(f"{shift:g}" for shift in shifts)


def _any_file(run: RunLogits) -> str:
    return str(logits_path(run.path, run.fold_numbers[0]))


def _named(values: Sequence[str] | np.ndarray) -> str:
    more = f" and {len(values) - MAX_NAMED} more" if len(values) > MAX_NAMED else ""
    return ", ".join(str(value) for value in values[:MAX_NAMED]) + more
