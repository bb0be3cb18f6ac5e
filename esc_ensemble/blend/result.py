"""What a blend is made of: its weights and temperatures, its scores, its predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esc_ensemble.blend.members import MemberLogits
from esc_ensemble.config import BlendConfig


@dataclass(frozen=True)
class ScoreRow:
    """One line of the table of scores."""

    name: str
    """`tuned_cross_fitted`, `chosen`, `uniform`, `uniform_no_tta`, `tuned_in_sample` or `member:RUN`."""
    title: str
    """The same in words."""
    cross_fitted: bool
    """Whether nothing in it was fitted on the clips it is scored on."""
    metrics: dict[str, float]
    """top1, top3, macro_f1, log_loss and ece over all labelled clips."""
    by_fold: dict[int, dict[str, float]]
    """The same for each fold."""
    over_folds: dict[str, dict[str, float]]
    """Each metric's mean and std over the folds."""
    top1_interval: tuple[float, float]
    """95 % interval of top1 over resampled sources."""


@dataclass(frozen=True, eq=False)
class BlendResult:
    """A blend and how good it is."""

    members: MemberLogits
    """The aligned runs."""
    config: BlendConfig
    """How it was made."""
    temperatures: np.ndarray
    """(M, K) of the deployed blend, for each member's fold models."""
    from_selection: tuple[bool, ...]
    """For each member, whether its temperatures come from selection splits; else they are cross-fitted."""
    weights: np.ndarray
    """(M,) of the deployed blend."""
    tuned_weights: np.ndarray
    """(M,) that the search found on all folds; equal to `weights` unless it fell back."""
    fold_weights: np.ndarray
    """(K, M) that the search found without each fold."""
    fallback: bool
    """Whether tuning did not pay, so that the weights are equal."""
    reason: str
    """Why the weights are what they are."""
    scores: tuple[ScoreRow, ...]
    """The table, the cross-fitted score first."""
    probabilities: np.ndarray
    """(N, C) cross-fitted probabilities of the deployed kind of weights."""
    member_predictions: np.ndarray
    """(M, N) each member's top class."""

    def score_table(self) -> tuple[list[str], list[list[str]]]:
        """Gives the scores as a header and rows of text."""
        header = ["", "top-1", "95 % interval", "over folds", "top-3", "macro F1", "log loss", "ECE"]
        return header, [_score_cells(row) for row in self.scores]

    def member_table(self) -> tuple[list[str], list[list[str]]]:
        """Gives each member's weight and temperatures as a header and rows of text."""
        rows = [
            [name, f"{weight:.3f}", f"{mean:.3f}", "selection split" if selected else "cross-fitted"]
            for name, weight, mean, selected in zip(
                self.members.names,
                self.weights,
                self.temperatures.mean(axis=1),
                self.from_selection,
                strict=True,
            )
        ]
        return ["run", "weight", "temperature", "from"], rows


def _score_cells(row: ScoreRow) -> list[str]:
    low, high = row.top1_interval
    top1 = row.over_folds["top1"]
    return [
        row.title,
        f"{row.metrics['top1']:.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{top1['mean']:.4f} ± {top1['std']:.4f}",
        *(f"{row.metrics[name]:.4f}" for name in ("top3", "macro_f1", "log_loss", "ece")),
    ]
