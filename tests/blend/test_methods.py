from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import scipy.optimize
import sklearn.metrics

from esc_ensemble.blend.combine import COMBINERS, Mixture, blend_probabilities, combine, evidence
from esc_ensemble.blend.fit import fit_mixture
from esc_ensemble.blend.methods import fit_logistic, greedy, lbfgs, nelder_mead, weigh_shifts
from esc_ensemble.blend.objective import Evidence
from esc_ensemble.config import BlendConfig
from esc_ensemble.config.blend import Method
from esc_ensemble.metrics import log_loss
from tests.blend.make_logits import make_labels, make_member

N, C = 400, 5
LABELS = make_labels(N, C)
METHODS = get_args(Method)


def pool(*skills: float, n_shifts: int = 1, labels: np.ndarray = LABELS) -> Evidence:
    members = [
        make_member(LABELS, C, skill=skill, seed=seed, n_shifts=n_shifts, shift_noise=0.3)
        for seed, skill in enumerate(skills)
    ]
    return Evidence(members, np.ones((len(members), N)), labels)


def useless(scale: float = 3.0) -> np.ndarray:
    return (scale * np.random.default_rng(9).standard_normal((1, N, C))).astype(np.float32)


def with_member(seen: Evidence, logits: np.ndarray) -> Evidence:
    return Evidence([*seen.logits, logits], np.ones((seen.n_members + 1, N)), seen.labels)


def loss_of(seen: Evidence, found: Mixture) -> float:
    return log_loss(blend_probabilities(seen.logits, list(seen.temperatures), found), seen.labels)


def config(**more: Any) -> BlendConfig:
    return BlendConfig(**({"trials": 40} | more))


@pytest.mark.parametrize("combiner", COMBINERS)
def test_fast_losses_equal_scikit_learns(combiner):
    seen = pool(1, 2, 3)
    weights, temperature = np.array([0.2, 0.3, 0.5]), 0.7
    judge = seen.judge(combiner, seen.equal_shifts)
    said = evidence(np.stack([values[0] for values in seen.logits]).astype(np.float64), 1.0, combiner)
    probabilities = combine(said, Mixture(combiner, weights, seen.equal_shifts, temperature))
    assert judge.log_loss(weights, temperature) == pytest.approx(
        sklearn.metrics.log_loss(LABELS, probabilities, labels=range(C)), rel=1e-5
    )
    wrong = 1.0 - sklearn.metrics.accuracy_score(LABELS, probabilities.argmax(axis=1))
    assert judge.error(weights) == pytest.approx(wrong)


@pytest.mark.parametrize("combiner", COMBINERS)
def test_slopes_equal_finite_differences(combiner):
    seen = pool(1, 2, 3)
    judge = seen.judge(combiner, seen.equal_shifts)
    judge.table = judge.table.astype(np.float64)
    values = np.array([0.5, 0.9, 0.3, 0.8])
    _, by_amounts, by_inverse = judge.log_loss_and_slope(values[:3], values[3])
    wanted = scipy.optimize.approx_fprime(values, lambda at: judge.log_loss_and_slope(at[:3], at[3])[0], 1e-3)
    np.testing.assert_allclose([*by_amounts, by_inverse], wanted, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("combiner", COMBINERS)
def test_lbfgs_finds_what_scipys_slsqp_finds(combiner):
    seen = pool(1, 2, 2, 0.2)
    judge = seen.judge(combiner, seen.equal_shifts)

    def loss(values: np.ndarray) -> float:
        return judge.log_loss(np.asarray(values[:4]), float(np.exp(values[4])))

    start = np.append(np.full(4, 0.25), np.log(judge.best_temperature(np.full(4, 0.25))))
    reference = scipy.optimize.minimize(
        loss,
        start,
        bounds=[(0, 1)] * 4 + [(-3, 3)],
        constraints={"type": "eq", "fun": lambda values: values[:4].sum() - 1},
        method="SLSQP",
        options={"eps": 1e-4},
    )
    weights = lbfgs(judge, config())
    assert (weights >= 0).all() and weights.sum() == pytest.approx(1.0)
    assert judge.log_loss(weights, judge.best_temperature(weights)) <= reference.fun + 1e-4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("combiner", ["auto", "arithmetic"])
def test_every_method_gives_a_mixture_no_worse_than_equal_weights(method, combiner):
    seen = pool(1, 1.5, 2)
    if method == "logistic" and combiner == "arithmetic":
        pytest.skip("refused by the settings")
    found = fit_mixture(seen, config(method=method, combiner=combiner))
    assert (found.weights >= 0).all() and found.weights.sum() == pytest.approx(1.0)
    assert combiner in ("auto", found.combiner)
    plain = fit_mixture(seen, config(method="uniform", combiner=combiner))
    np.testing.assert_allclose(plain.weights, 1 / 3)
    assert loss_of(seen, found) <= loss_of(seen, plain) + 1e-5


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("lbfgs", "logistic")])
def test_the_error_can_be_tuned(method):
    seen = pool(0.5, 1, 1.2)
    found = fit_mixture(seen, config(method=method, objective="error"))
    plain = fit_mixture(seen, config(method="uniform", objective="error"))
    errors = [
        (blend_probabilities(seen.logits, list(seen.temperatures), each).argmax(axis=1) != LABELS).mean()
        for each in (found, plain)
    ]
    assert errors[0] <= errors[1]


@pytest.mark.parametrize("method", ["optuna", "greedy", "lbfgs"])
def test_a_useless_member_gets_next_to_nothing(method):
    found = fit_mixture(with_member(pool(2, 2), useless()), config(method=method, combiner="geometric"))
    assert found.weights[2] <= 0.02
    assert found.weights[0] == pytest.approx(found.weights[1], abs=0.3)


@pytest.mark.parametrize("method", ["optuna", "greedy", "lbfgs"])
def test_a_member_that_says_the_same_of_all_clips_gets_nothing(method):
    constant = np.zeros((1, N, C), dtype=np.float32)
    found = fit_mixture(with_member(pool(2, 2), constant), config(method=method, combiner="geometric"))
    assert found.weights[2] <= 1e-3


def test_greedy_counts_are_whole_choices():
    seen = pool(2, 1, 0.5)
    weights = greedy(seen.judge("arithmetic", seen.equal_shifts), config())
    shares = weights / weights[weights > 0].min()
    np.testing.assert_allclose(shares, shares.round(), atol=0.51)  # parts of one whole number
    assert weights[0] > weights[1] >= weights[2]


def test_nelder_mead_comes_near_lbfgs():
    seen = pool(1, 2, 2, 0.2)
    judge = seen.judge("geometric", seen.equal_shifts)
    found = [find(judge, config(trials=400)) for find in (nelder_mead, lbfgs)]
    losses = [judge.log_loss(weights, judge.best_temperature(weights)) for weights in found]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_logistic_shrinks_to_equal_weights_and_weighs_classes_without_penalty():
    # Each member hears two of the classes only: one weight a member cannot say so, one for each class can.
    rng = np.random.default_rng(3)
    seen = 3.0 * np.eye(C)[LABELS] + rng.standard_normal((2, N, C))
    seen[0, LABELS < 2] = rng.standard_normal((int((LABELS < 2).sum()), C))
    members = Evidence([m[None].astype(np.float32) for m in seen], np.ones((2, N)), LABELS)
    strong = fit_logistic(members, members.equal_shifts, l2=1e6)
    assert strong.class_weights is not None and strong.bias is not None
    np.testing.assert_allclose(strong.class_weights, strong.class_weights.mean(), rtol=1e-2)
    np.testing.assert_allclose(strong.bias, 0.0, atol=1e-2)
    free = fit_logistic(members, members.equal_shifts, l2=1.0)
    assert free.class_weights is not None
    assert (free.class_weights[0, :2] < free.class_weights[1, :2]).all()
    best_of_members = fit_mixture(members, config(method="lbfgs", combiner="geometric"))
    assert loss_of(members, free) < loss_of(members, best_of_members)


def test_shift_weights_follow_the_better_shifts():
    seen = pool(2, 2, n_shifts=3)
    deaf = [values.copy() for values in seen.logits]
    for values in deaf:
        values[0] = useless(1.0)[0]
    heard = Evidence(deaf, seen.temperatures, LABELS)
    for shares, pulled in zip(weigh_shifts(heard, l2=0.0), weigh_shifts(heard, l2=1e5), strict=True):
        assert shares[0] < 0.05 and shares.sum() == pytest.approx(1.0)
        np.testing.assert_allclose(pulled, 1 / 3, atol=0.02)
    # Optuna begins with them, and is never worse.
    tuned = fit_mixture(heard, config(combiner="geometric", tta=True, tta_weights="tuned"))
    flat = fit_mixture(heard, config(combiner="geometric", tta=True, tta_weights="equal"))
    assert loss_of(heard, tuned) < loss_of(heard, flat)
    assert all(shares[0] < 0.2 for shares in tuned.shift_weights)


def test_no_labelled_clip_gives_equal_weights():
    seen = pool(1, 2)
    nothing = Evidence([values[:, :0] for values in seen.logits], np.ones((2, 0)), LABELS[:0])
    for method in METHODS:
        moved: list[int] = []
        found = fit_mixture(nothing, config(method=method), lambda n=1, note="", moved=moved: moved.append(n))
        assert found.weights.tolist() == [0.5, 0.5] and found.temperature == 1.0 and sum(moved) == 40


@pytest.mark.parametrize("method", METHODS)
def test_progress_moves_by_the_trials_whatever_the_method(method):
    moved: list[int] = []
    fit_mixture(pool(1, 2), config(method=method, trials=60), lambda n=1, note="": moved.append(n))
    assert sum(moved) == 60 and 0 not in moved
