"""What a blend is made of: its weights and temperatures, its scores, its predictions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from esc_ensemble.blend.combine import Mixture
from esc_ensemble.blend.costs import Cost
from esc_ensemble.blend.diagnostics import Contribution
from esc_ensemble.blend.members import MemberLogits
from esc_ensemble.config import BlendConfig
from esc_ensemble.logits import describe_shared_rules
from esc_ensemble.significance import Comparison


@dataclass(frozen=True)
class ScoreRow:
    """One line of the table of scores."""

    name: str
    """`tuned_cross_fitted`, `chosen`, `uniform`, `uniform_no_tta`, `tuned_in_sample` or `member:RUN`.

    Method `uniform` has neither the first nor the third: its `chosen` is all three. So it is where only one fold has
    labels, and no selection split takes the others' place.
    """
    title: str
    """The same in words."""
    cross_fitted: bool
    """Whether nothing in it was fitted on the clips it is scored on."""
    metrics: dict[str, float]
    """top1, top3, macro_f1, log_loss and ece over all labelled clips."""
    uncalibrated: dict[str, float]
    """log_loss and ece before the last temperature: a member's own, or the blend's."""
    by_fold: dict[int, dict[str, float]]
    """The same for each fold."""
    over_folds: dict[str, dict[str, float]]
    """Each metric's mean and std over the folds."""
    top1_interval: tuple[float, float]
    """95 % interval of top1 over resampled sources."""
    selection: dict[str, float] = field(default_factory=dict)
    """selection_top1 and selection_log_loss, which are optimistic; empty where they make no sense."""


@dataclass(frozen=True)
class FrontPoint:
    """A choice of members than which none that was looked at is both cheaper and better."""

    shifts: dict[str, list[float]]
    """Seconds of the shifts of each member that takes part."""
    cost: Cost
    """`ms` of all shifts, `megabytes` of all weights."""
    metrics: dict[str, float]
    """Cross-fitted scores."""
    interval: tuple[float, float]
    """95 % interval of top1 over resampled sources."""


@dataclass(frozen=True, eq=False)
class BlendResult:
    """A blend and how good it is."""

    members: MemberLogits
    """The aligned runs."""
    config: BlendConfig
    """How it was made."""
    shifts: tuple[np.ndarray, ...]
    """M arrays (S,) seconds, of the shifts that the mixture's shift weights are for."""
    temperatures: np.ndarray
    """(M, K) of the deployed blend, for each member's fold models."""
    from_selection: tuple[bool, ...]
    """For each member, whether its temperatures come from selection splits; else they are cross-fitted."""
    mixture: Mixture
    """Weights and the rest of the deployed blend."""
    tuned: Mixture
    """What the method found on all folds or the selection split; the same unless it fell back to equal weights."""
    fold_weights: np.ndarray
    """(K, M) that the method found without each fold; with one fixed split without each part of the selection split.

    (0, M) where there is neither another fold nor a selection split.
    """
    fallback: bool
    """Whether tuning did not pay, so that the weights are equal."""
    reason: str
    """Why the weights are what they are."""
    warnings: tuple[str, ...]
    """What looks wrong, a sentence or two each."""
    scores: tuple[ScoreRow, ...]
    """The table, cross-fitted scores first."""
    comparisons: dict[str, Comparison]
    """The chosen blend against equal weights and each member, by the names of their rows in `scores`."""
    contributions: tuple[Contribution, ...]
    """What is lost without each member."""
    correlation: np.ndarray
    """(M, M) of the members' errors, NaN where undefined."""
    probabilities: np.ndarray
    """(N, C) cross-fitted probabilities of the deployed kind of weights."""
    member_probabilities: np.ndarray
    """(M, N, C) each member's, its temperature cross-fitted."""
    costs: tuple[Cost | None, ...]
    """What each member costs, heard once, where that is known."""
    front: tuple[FrontPoint, ...]
    """What accuracy costs, from cheap to dear; empty where a cost is not known."""

    @property
    def weights(self) -> np.ndarray:
        """(M,) of the deployed blend."""
        return self.mixture.weights

    @property
    def best_member(self) -> str:
        """Name of the member of least cross-fitted log loss (or error, where that was tuned)."""
        rows = [row for row in self.scores if row.name.startswith("member:")]
        by_error = self.config.objective == "error"
        best = min(rows, key=lambda row: -row.metrics["top1"] if by_error else row.metrics["log_loss"])
        return best.name.removeprefix("member:")

    @property
    def cost(self) -> Cost | None:
        """What the deployed blend costs: ms of all shifts that count; None where a member's cost is not known."""
        used = [member for member, weight in enumerate(self.weights) if weight > 0.0]
        costs = {member: self.costs[member] for member in used}
        known = {member: cost for member, cost in costs.items() if cost is not None}
        if len(known) < len(used):
            return None
        heard = {member: int((self.mixture.shift_weights[member] > 0.0).sum()) for member in used}
        return Cost(
            ms=sum(heard[member] * cost.ms for member, cost in known.items()),
            megabytes=sum(cost.megabytes for cost in known.values()),
        )

    def summary(self) -> str:
        """Gives the deployed blend in a sentence: combiner, temperature, cost where it is known."""
        text = f"{self.mixture.combiner.capitalize()} mean, temperature {self.mixture.temperature:.3f}."
        cost = self.cost
        return f"{text} {cost.ms:.3g} ms a clip with all its shifts, {cost.megabytes:.3g} MB." if cost else text

    def score_table(self) -> tuple[list[str], list[list[str]]]:
        """Gives the scores as a header and rows of text."""
        header = [
            "",
            "top-1",
            "95 % interval",
            "over folds",
            "top-3",
            "macro F1",
            "log loss",
            "ECE",
            "before: log loss",
            "ECE",
            "selection top-1",
            "selection log loss",
        ]
        best = f"member:{self.best_member}" if len(self.members.names) > 1 else ""
        return _without_empty_columns(
            header,
            [_score_cells(row, f"{row.title} (best member)" if row.name == best else row.title) for row in self.scores],
        )

    @property
    def selection_note(self) -> str:
        """What to know of the selection scores in the table; empty where there are none."""
        if not any(row.selection for row in self.scores):
            return ""
        weights = " and weights" if self.members.fitted_on == "selection" else ""
        return (
            f"Selection scores are optimistic: the selection split chose temperatures{weights}, and epochs where "
            "training followed it."
        )

    def comparison_table(self) -> tuple[list[str], list[list[str]]]:
        """Gives the chosen blend's gain over equal weights and each member as a header and rows of text."""
        titles = {row.name: row.title for row in self.scores}
        header = ["against", "top-1", "95 % interval", "log loss", "95 % interval", "only it / only the other right"]
        return [*header, "McNemar p"], [
            [
                titles[name],
                f"{found.top1:+.4f}",
                _interval(found.top1_interval),
                f"{found.log_loss:+.4f}",
                _interval(found.log_loss_interval),
                f"{found.only_first_right} / {found.only_second_right}",
                f"{found.mcnemar_p:.3f}" if found.mcnemar_p >= 0.0005 else "< 0.001",
            ]
            for name, found in self.comparisons.items()
        ]

    @property
    def shared_recordings(self) -> str:
        """What became of recordings that folds share, in a sentence; empty where folds share none."""
        return describe_shared_rules({run.name: run.shared_recordings for run in self.members.runs})

    def member_table(self) -> tuple[list[str], list[list[str]]]:
        """Gives each member's weight, temperature and contribution as a header and rows of text."""
        lost = {item.run: item.loss for item in self.contributions}
        own = "cross-fitted" if self.members.can_tune else "the test fold"
        rows = []
        for member, name in enumerate(self.members.names):
            cost = self.costs[member] if self.costs else None
            rows.append(
                [
                    name,
                    f"{self.weights[member]:.3f}",
                    f"{self.fold_weights[:, member].min():.3f} to {self.fold_weights[:, member].max():.3f}"
                    if self.config.method != "uniform" and len(self.fold_weights)
                    else "",
                    f"{self.temperatures[member].mean():.3f}",
                    "selection split" if self.from_selection[member] else own,
                    f"{-lost[name].log_loss:+.4f} ({-lost[name].log_loss_interval[1]:+.4f} to "
                    f"{-lost[name].log_loss_interval[0]:+.4f})"
                    if name in lost
                    else "",
                    f"{cost.ms:.3g} ms, {cost.megabytes:.3g} MB" if cost else "",
                ]
            )
        header = [
            "run",
            "weight",
            "tuned in each part" if self.members.fitted_on == "selection" else "tuned in each fold",
            "temperature",
            "from",
            "log loss without it",
            "cost, heard once",
        ]
        return _without_empty_columns(header, rows)


def _without_empty_columns(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    kept = [column for column in range(len(header)) if any(row[column] for row in rows)]
    return [header[column] for column in kept], [[row[column] for column in kept] for row in rows]


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:+.4f} to {ends[1]:+.4f}"


def _score_cells(row: ScoreRow, title: str) -> list[str]:
    low, high = row.top1_interval
    top1 = row.over_folds["top1"]
    return [
        title,
        f"{row.metrics['top1']:.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{top1['mean']:.4f} ± {top1['std']:.4f}" if len(row.by_fold) > 1 else "",
        *(f"{row.metrics[name]:.4f}" for name in ("top3", "macro_f1", "log_loss", "ece")),
        *(f"{row.uncalibrated[name]:.4f}" for name in ("log_loss", "ece")),
        *([f"{value:.4f}" for value in row.selection.values()] or ["", ""]),
    ]
