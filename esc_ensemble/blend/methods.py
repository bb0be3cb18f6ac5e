"""Ways to find weights that need no study: equal, greedy, downhill, one for each class, a simplex that walks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from esc_ensemble.blend.calibrate import MAX_TEMPERATURE, MIN_TEMPERATURE
from esc_ensemble.blend.combine import Mixture
from esc_ensemble.blend.objective import Evidence, Judge
from esc_ensemble.config import BlendConfig

Shares = tuple[np.ndarray, ...]
GREEDY_STEPS = 50
DESCENT_STEPS = 200
# A member without which the log loss is no worse than this, in nats, is left out: one that says the same of all classes
# would keep any weight else.
THRIFT = 1e-5
# Of amounts and inverse temperatures: beyond, a blend would be all but certain.
LARGEST = 1.0 / MIN_TEMPERATURE


def uniform(judge: Judge, config: BlendConfig) -> np.ndarray:  # noqa: ARG001 - the methods' common shape
    """Gives equal weights (M,)."""
    return np.full(judge.n_members, 1.0 / judge.n_members)


def greedy(judge: Judge, config: BlendConfig) -> np.ndarray:
    """Gives weights (M,) by choosing member after member, any of them again (Caruana et al. 2004).

    Each choice adds to the blend's evidence, whose sum stands at the inverse of L-BFGS's temperature after
    `GREEDY_STEPS` choices: were the sum held fixed, a member that says nothing would dilute the others at no price.
    Of the choices the best beginning counts. Means of probabilities are diluted for good reason and stay means.
    """
    n_members = judge.n_members
    temperature = judge.best_temperature(lbfgs(judge, config))
    counts = np.zeros(n_members)
    best_loss, best = np.inf, counts
    for n_chosen in range(1, 2 * GREEDY_STEPS + 1):
        warmth = temperature if judge.combiner == "arithmetic" else temperature * GREEDY_STEPS / n_chosen
        tried = counts + np.eye(n_members)
        found = [judge.loss(amounts / n_chosen, warmth, config.objective) for amounts in tried]
        member = int(np.argmin(found))
        counts = tried[member]
        if found[member] < best_loss - THRIFT:
            best_loss, best = found[member], counts / n_chosen
        elif n_chosen > GREEDY_STEPS:
            break
    return best


def lbfgs(judge: Judge, config: BlendConfig, pull: float = 0.0) -> np.ndarray:  # noqa: ARG001 - the methods' shape
    """Gives the weights (M,) of least log loss by L-BFGS-B (Byrd et al. 1995; SciPy's).

    Amounts need not sum to 1: what they sum to is the inverse of the blend's temperature, so that the log loss is
    convex in them but for the arithmetic mean, whose temperature is found beside them. Members that bring nothing are
    left out, unless a `pull` to equal amounts keeps them: it counts as in `fit_logistic`.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 - a quarter of a second that only searches need

    n_members = judge.n_members
    arithmetic = judge.combiner == "arithmetic"

    def loss_and_slope(values: np.ndarray) -> tuple[float, np.ndarray]:
        amounts, inverse = (values[:-1], float(values[-1])) if arithmetic else (values, 1.0)
        loss, by_amounts, by_inverse = judge.log_loss_and_slope(amounts, inverse)
        if arithmetic:
            return loss, np.append(by_amounts, by_inverse)
        away = values - start
        return loss + 0.5 * strength * float(away @ away), by_amounts + strength * away

    equal = np.full(n_members, 1.0 / n_members)
    inverse = 1.0 / judge.best_temperature(equal)
    start = np.append(equal, inverse) if arithmetic else equal * inverse
    strength = pull / len(judge.labels)
    bounds = [(0.0, LARGEST)] * n_members + [(1.0 / MAX_TEMPERATURE, LARGEST)] * arithmetic
    options = {"maxiter": DESCENT_STEPS, "ftol": 1e-9, "gtol": 1e-6}
    found = minimize(loss_and_slope, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options).x
    for member in np.argsort(found[:n_members]) if not pull else ():  # the least first
        without = found.copy()
        without[member] = 0.0
        if without[:n_members].any() and loss_and_slope(without)[0] < loss_and_slope(found)[0] + THRIFT:
            found = without
    return _normalised(found[:n_members])


def nelder_mead(judge: Judge, config: BlendConfig) -> np.ndarray:
    """Gives weights (M,) by the downhill simplex of Nelder & Mead (SciPy's), on a softmax with one anchor."""
    from scipy.optimize import minimize  # noqa: PLC0415 - as above

    def weights_of(values: np.ndarray) -> np.ndarray:
        raw = np.exp(np.append(0.0, values[:-1]) - max(0.0, *values[:-1]))
        return np.asarray(raw / raw.sum())

    def loss(values: np.ndarray) -> float:
        temperature = float(np.clip(np.exp(values[-1]), MIN_TEMPERATURE, MAX_TEMPERATURE))
        return judge.loss(weights_of(values), temperature, config.objective)

    start = np.zeros(judge.n_members)
    start[-1] = np.log(judge.best_temperature(uniform(judge, config)))
    simplex = np.vstack([start, start + np.eye(judge.n_members)])  # steps of 1: those of SciPy are too small at 0
    options = {"maxfev": config.trials, "initial_simplex": simplex, "adaptive": True}
    return weights_of(minimize(loss, start, method="Nelder-Mead", options=options).x)


WEIGHTS: dict[str, Callable[[Judge, BlendConfig], np.ndarray]] = {
    "uniform": uniform,
    "greedy": greedy,
    "lbfgs": lbfgs,
    "nelder-mead": nelder_mead,
}
"""The methods that give one weight a member."""


def fit_logistic(evidence: Evidence, shares: Shares, l2: float) -> Mixture:
    """Gives a weight for each member and class, and a bias for each class: a logistic regression on log-probabilities.

    The sum of the clips' log losses plus `l2` / 2 times the squared distance from equal weights is made small, so that
    few clips leave the weights near equal. Weights stay at least 0.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 - as above

    table = evidence.weighed("geometric", shares).astype(np.float64)  # (M, C, N)
    n_members, n_classes, n_clips = table.shape
    clips = np.arange(n_clips)
    equal = np.full(n_members, 1.0 / n_members)
    even = 1.0 / Judge(table.astype(np.float32), evidence.labels, "geometric").best_temperature(equal) / n_members
    start = np.concatenate([np.full(n_members * n_classes, even), np.zeros(n_classes)])

    def loss_and_slope(values: np.ndarray) -> tuple[float, np.ndarray]:
        by_class, bias = values[: n_members * n_classes].reshape(n_members, n_classes), values[-n_classes:]
        scores = np.einsum("mc,mcn->cn", by_class, table) + bias[:, None]
        top = scores.max(axis=0)
        powers = np.exp(scores - top)
        total = powers.sum(axis=0)
        loss = (np.log(total) + top - scores[evidence.labels, clips]).sum()
        powers /= total
        powers[evidence.labels, clips] -= 1.0
        slope = np.concatenate([np.einsum("mcn,cn->mc", table, powers).ravel(), powers.sum(axis=1)])
        away = values - start
        return float(loss + 0.5 * l2 * away @ away), slope + l2 * away

    bounds = [(0.0, LARGEST)] * (n_members * n_classes) + [(None, None)] * n_classes
    found = minimize(
        loss_and_slope, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": DESCENT_STEPS}
    ).x
    by_class = found[: n_members * n_classes].reshape(n_members, n_classes)
    return Mixture(
        "geometric",
        weights=_normalised(by_class.mean(axis=1)),
        shift_weights=shares,
        class_weights=by_class,
        bias=found[-n_classes:],
    )


def weigh_shifts(evidence: Evidence, l2: float) -> Shares:
    """Gives weights of each member's shifts (S,): those of its own least log loss, pulled to equal ones by `l2`."""
    shares = []
    for logits, temperatures in zip(evidence.logits, evidence.temperatures, strict=True):
        calibrated = logits / temperatures[:, None].astype(logits.dtype)  # (S, N, C), as if each shift were a member
        judge = Judge(np.ascontiguousarray(calibrated.transpose(0, 2, 1)), evidence.labels, "geometric")
        shares.append(lbfgs(judge, BlendConfig(), pull=l2))
    return tuple(shares)


def with_temperature(evidence: Evidence, mixture: Mixture) -> Mixture:
    """Gives the mixture with the blend temperature of least log loss; one member has one of its own already."""
    if evidence.n_members == 1 and mixture.combiner in ("geometric", "arithmetic"):
        return replace(mixture, temperature=1.0)
    judge = evidence.judge(mixture.combiner, mixture.shift_weights)
    return replace(mixture, temperature=judge.best_temperature(mixture.weights, mixture.temperature))


def _normalised(amounts: np.ndarray) -> np.ndarray:
    total = amounts.sum()
    return np.asarray(amounts / total if total > 0.0 else np.full(len(amounts), 1.0 / len(amounts)))
