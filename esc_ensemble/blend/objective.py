"""What weights are fitted on, and how good some weights are: fast losses, and their slope."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from esc_ensemble.blend.calibrate import fit_temperature
from esc_ensemble.blend.combine import evidence, mean_over_shifts
from esc_ensemble.config.blend import Combiner, Objective

TINY = np.finfo(np.float32).tiny
LINEAR: tuple[Combiner, ...] = ("geometric", "logits")
"""Combiners whose scores are linear in the members' logits."""


class Evidence:
    """Members' logits of labelled clips, and what they come to for each combiner."""

    def __init__(self, logits: Sequence[np.ndarray], temperatures: np.ndarray, labels: np.ndarray) -> None:
        """Takes (S, N, C) of M members, their temperatures (M, N), and labels (N,) in 0..C-1."""
        self.logits = tuple(logits)
        self.temperatures = temperatures
        self.labels = labels
        self._judges: dict[tuple[object, ...], Judge] = {}

    @property
    def n_members(self) -> int:
        """M."""
        return len(self.logits)

    @property
    def n_shifts(self) -> tuple[int, ...]:
        """Each member's number of shifts S."""
        return tuple(len(values) for values in self.logits)

    @property
    def equal_shifts(self) -> tuple[np.ndarray, ...]:
        """M arrays (S,): equal weights of each member's shifts."""
        return tuple(np.full(count, 1.0 / count) for count in self.n_shifts)

    def weighed(self, combiner: Combiner, shift_weights: Sequence[np.ndarray]) -> np.ndarray:
        """Gives the evidence with shifts weighed so, classes before clips: (M, C, N) float32.

        Sums and maxima over classes then run along memory, several times faster.
        """
        means = [mean_over_shifts(values, shares) for values, shares in zip(self.logits, shift_weights, strict=True)]
        said = evidence(np.stack(means), self.temperatures, combiner)
        return np.ascontiguousarray(said.transpose(0, 2, 1), dtype=np.float32)

    def judge(self, combiner: Combiner, shift_weights: Sequence[np.ndarray]) -> Judge:
        """Gives what tells the loss of weights with shifts weighed so; kept, since many ask for the same."""
        key = (combiner, *(shares.tobytes() for shares in shift_weights))
        if key not in self._judges:
            self._judges[key] = Judge(self.weighed(combiner, shift_weights), self.labels, combiner)
        return self._judges[key]

    def judge_shifts(self, combiner: Combiner) -> Judge:
        """Gives what tells the loss of weights of all shifts of all members, one after the other; kept.

        Only for combiners that average what is linear in logits: log-probabilities, since what makes them sum to 1 is
        the same for all classes, and logits.
        """
        if combiner not in LINEAR:
            raise ValueError(f"the {combiner} mean is not linear in logits")
        key = (combiner, "shifts")
        if key not in self._judges:
            scale = 1.0 / self.temperatures if combiner == "geometric" else np.ones_like(self.temperatures)
            table = np.concatenate(
                [values * own[:, None].astype(values.dtype) for values, own in zip(self.logits, scale, strict=True)]
            )  # (sum of S, N, C)
            self._judges[key] = Judge(np.ascontiguousarray(table.transpose(0, 2, 1)), self.labels, combiner)
        return self._judges[key]


class Judge:
    """The loss of weights (M,) and a blend temperature, with all that does not depend on them done beforehand."""

    def __init__(self, table: np.ndarray, labels: np.ndarray, combiner: Combiner) -> None:
        """Takes evidence (M, C, N) and labels (N,)."""
        self.table = table
        self.labels = labels
        self.combiner = combiner
        self.clips = np.arange(len(labels))

    @property
    def n_members(self) -> int:
        """M."""
        return len(self.table)

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """Gives the blend's scores of classes before its temperature, log-probabilities up to a constant: (C, N).

        Not by BLAS: at this size its threads cost more than they bring, on a busy machine twenty times as much.
        """
        mixed = np.einsum("m,mcn->cn", weights.astype(np.float32), self.table)
        return np.asarray(_log(mixed) if self.combiner == "arithmetic" else mixed)

    def best_temperature(self, weights: np.ndarray, start: float = 1.0) -> float:
        """Gives the blend temperature of least log loss under these weights."""
        return fit_temperature(self.scores(weights).T, self.labels, start)

    def error(self, weights: np.ndarray) -> float:
        """Gives the part of clips whose top class is wrong."""
        return float((self.scores(weights).argmax(axis=0) != self.labels).mean())

    def log_loss(self, weights: np.ndarray, temperature: float) -> float:
        """Gives the mean log loss in nats."""
        return self.log_loss_of(self.scores(weights), temperature)

    def log_loss_of(self, scores: np.ndarray, temperature: float) -> float:
        """Gives the mean log loss of scores (C, N)."""
        scaled = scores * np.float32(1.0 / temperature)
        _, top, total = _exponentials(scaled)
        return float((np.log(total) + top - scaled[self.labels, self.clips]).mean(dtype=np.float64))

    def loss(self, weights: np.ndarray, temperature: float, objective: Objective) -> float:
        """Gives what is to be made small."""
        return self.error(weights) if objective == "error" else self.log_loss(weights, temperature)

    def log_loss_and_slope(self, amounts: np.ndarray, inverse: float) -> tuple[float, np.ndarray, float]:
        """Gives the log loss of raw amounts of members (which need not sum to 1), and its slope.

        Args:
            amounts: (M,) not negative.
            inverse: one over the blend temperature.

        Returns:
            The loss, its derivatives by the amounts (M,), and its derivative by `inverse`.
        """
        mixed = np.einsum("m,mcn->cn", amounts.astype(np.float32), self.table)
        scores = _log(mixed) if self.combiner == "arithmetic" else mixed
        scaled = scores * np.float32(inverse)
        powers, top, total = _exponentials(scaled)
        true = scaled[self.labels, self.clips]
        loss = (np.log(total) + top - true).mean(dtype=np.float64)
        powers /= total
        powers[self.labels, self.clips] -= 1.0  # (C, N): derivative of each clip's loss by its scaled scores
        by_inverse = np.einsum("cn,cn->n", powers, scores).mean(dtype=np.float64)
        if self.combiner == "arithmetic":
            powers /= np.maximum(mixed, TINY)
        by_clip = np.einsum("mcn,cn->mn", self.table, powers)
        return float(loss), by_clip.mean(axis=1, dtype=np.float64) * inverse, float(by_inverse)


def _log(mixed: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.maximum(mixed, TINY)))


def _exponentials(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives exp(scores - top) (C, N), top (N,) and the sum of exponentials (N,)."""
    top = scaled.max(axis=0)
    powers = np.exp(scaled - top)
    return powers, top, powers.sum(axis=0)
