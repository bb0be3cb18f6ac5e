"""Weights on the simplex: an in-memory Optuna study, a matrix-vector product a trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np

from esc_ensemble.blend.combine import Combiner
from esc_ensemble.progress import Advance

if TYPE_CHECKING:
    from optuna.trial import Trial

Objective = Literal["log_loss", "error"]

# -log(u) of the lowest u is the largest raw weight, 20.7: any ratio of weights that matters can be reached.
LOWEST_U = 1e-9
# Share of random weightings before TPE models them; a TPE trial costs ten random ones. The error needs half of
# them to be TPE's; of the log loss, which is convex, descent has found the least before.
STARTUP_SHARE: dict[Objective, float] = {"error": 0.5, "log_loss": 0.9}
DESCENT_STEPS = 60


def loss_of_weights(
    log_probs: np.ndarray, labels: np.ndarray, combiner: Combiner, objective: Objective
) -> Callable[[np.ndarray], float]:
    """Gives a function from weights (M,) to the loss, with all that does not depend on them done beforehand.

    Args:
        log_probs: (M, N, C) calibrated log-probabilities of labelled clips.
        labels: (N,) in 0..C-1.
        combiner: how members are averaged.
        objective: mean log loss in nats, or the part of clips whose top class is wrong.
    """
    clips = np.arange(len(labels))
    if combiner == "arithmetic" and objective == "log_loss":
        true = np.exp(log_probs[:, clips, labels].astype(np.float64))  # (M, N)
        return lambda weights: float(-np.log(np.maximum(_mix(weights, true), np.finfo(np.float64).eps)).mean())

    table = _class_major(log_probs, combiner)

    def error(weights: np.ndarray) -> float:
        mixed = _mix(weights.astype(np.float32), table)  # (C, N)
        return float((mixed.argmax(axis=0) != labels).mean())

    def log_loss(weights: np.ndarray) -> float:
        mixed = _mix(weights.astype(np.float32), table)  # (C, N)
        true = mixed[labels, clips]
        top = mixed.max(axis=0)
        mixed -= top
        np.exp(mixed, out=mixed)
        return float((np.log(mixed.sum(axis=0)) + top - true).mean(dtype=np.float64))

    return error if objective == "error" else log_loss


def search_weights(
    log_probs: np.ndarray,
    labels: np.ndarray,
    *,
    combiner: Combiner = "geometric",
    objective: Objective = "log_loss",
    n_trials: int = 200,
    seed: int = 0,
    advance: Advance | None = None,
) -> np.ndarray:
    """Gives the best weights found on these clips.

    The study draws u_i in (0, 1] and takes -log(u_i), normalised: exponential draws over their sum are
    uniform on the simplex (Dirichlet(1, ..., 1)), where uniform draws over their sum crowd its middle. It
    begins with equal weights, the weights that `descend` finds, and each single member, so the result is
    never worse than those. Of equal losses the first tried wins, which makes equal weights the answer when
    nothing speaks against them.

    Args:
        log_probs: (M, N, C) calibrated log-probabilities.
        labels: (N,), -1 where unknown; those clips do not count.
        combiner: how members are averaged.
        objective: what is minimised.
        n_trials: weightings tried, the M + 2 first ones included.
        seed: start of the sampler's random numbers.
        advance: moved on by 1 after each trial.

    Returns:
        (M,) float64, not negative, summing to 1.
    """
    n_members = len(log_probs)
    known = labels >= 0
    if n_members == 1 or not known.any():
        if advance is not None:
            advance(n_trials)
        return np.full(n_members, 1.0 / n_members)
    loss = loss_of_weights(log_probs[:, known], labels[known], combiner, objective)
    downhill = descend(log_probs[:, known], labels[known], combiner)
    starts = [np.full(n_members, 1.0 / n_members), downhill, *np.eye(n_members)]
    names = [f"u_{member}" for member in range(n_members)]

    def trial_loss(trial: Trial) -> float:
        # Moved on from here: a callback of the study costs a deep copy of each trial.
        if advance is not None:
            advance(1)
        return loss(_to_weights(np.array([trial.suggest_float(name, LOWEST_U, 1.0) for name in names])))

    with _quiet_optuna():
        import optuna  # noqa: PLC0415 - a quarter of a second that only searches need

        startup = max(10, int(STARTUP_SHARE[objective] * n_trials))
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup))
        for start in starts:
            # exp(-w) undoes -log(u): weight 0 is u = 1.
            study.enqueue_trial(dict(zip(names, np.exp(-start).tolist(), strict=True)))
        study.optimize(trial_loss, n_trials=n_trials)
        best = study.best_params
    return _to_weights(np.array([best[name] for name in names]))


def descend(log_probs: np.ndarray, labels: np.ndarray, combiner: Combiner) -> np.ndarray:
    """Gives weights of (nearly) least log loss by exponentiated gradient descent (Kivinen & Warmuth 1997).

    Both combiners' log losses are convex in the weights, so going downhill from equal weights ends at the
    best ones, in less time than ten trials of the study.

    Args:
        log_probs: (M, N, C) calibrated log-probabilities of labelled clips.
        labels: (N,) in 0..C-1.
        combiner: how members are averaged.

    Returns:
        (M,) float64, not negative, summing to 1.
    """
    n_members, n_clips, _ = log_probs.shape
    true = log_probs[:, np.arange(n_clips), labels].astype(np.float64)  # (M, N)
    if combiner == "arithmetic":
        true = np.exp(true)
    table = _class_major(log_probs, combiner) if combiner == "geometric" else None

    def loss_and_slope(weights: np.ndarray) -> tuple[float, np.ndarray]:
        if table is None:
            mixed = np.maximum(_mix(weights, true), np.finfo(np.float64).tiny)
            return float(-np.log(mixed).mean()), -(true / mixed).mean(axis=1)
        scores = _mix(weights.astype(np.float32), table)  # (C, N)
        top = scores.max(axis=0)
        powers = np.exp(scores - top)
        total = powers.sum(axis=0)
        by_class = np.einsum("mcn,cn->mc", table, powers / total)
        expected = by_class.sum(axis=1, dtype=np.float64) / n_clips  # (M,) mean log-probability under the blend
        loss = (np.log(total) + top - _mix(weights, true)).mean(dtype=np.float64)
        return float(loss), expected - true.mean(axis=1)

    weights = np.full(n_members, 1.0 / n_members)
    loss, slope = loss_and_slope(weights)
    rate = 1.0
    for _ in range(DESCENT_STEPS):
        proposed = weights * np.exp(-rate * (slope - slope.min()))
        proposed /= proposed.sum()
        new_loss, new_slope = loss_and_slope(proposed)
        if new_loss < loss:
            weights, loss, slope, rate = proposed, new_loss, new_slope, rate * 1.5
        else:
            rate /= 3.0
    return weights


def _class_major(log_probs: np.ndarray, combiner: Combiner) -> np.ndarray:
    """Gives what is averaged, classes before clips: (M, N, C) -> (M, C, N) float32.

    Sums and maxima over classes then run along memory, several times faster.
    """
    table = np.ascontiguousarray(log_probs.transpose(0, 2, 1), dtype=np.float32)
    if combiner == "arithmetic":
        np.exp(table, out=table)
    return table


def _mix(weights: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Gives the weighted sum over members: (M,), (M, ...) -> (...).

    Not by BLAS: at this size its threads cost more than they bring, on a busy machine twenty times as much.
    """
    return np.asarray(np.einsum("m,m...->...", weights, table))


def _to_weights(u: np.ndarray) -> np.ndarray:
    raw = np.abs(np.log(u))  # u never exceeds 1; abs spares a weight of -0.0
    total = raw.sum()
    # All u at 1 leave nothing to normalise: no member is preferred.
    return raw / total if total > 0.0 else np.full(len(u), 1.0 / len(u))


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from logging each trial, and gives its level back afterwards."""
    from optuna import logging  # noqa: PLC0415

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)
