from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.blend.budget import ALL_SHIFTS, OUT, PLAIN, choose, fit_within, front, losses, total_cost, within
from esc_ensemble.blend.costs import Cost, read_cost, read_costs, write_cost
from esc_ensemble.blend.objective import Evidence
from esc_ensemble.config import BlendConfig
from esc_ensemble.errors import LogitsError
from esc_ensemble.progress import stay_silent
from tests.blend.make_logits import make_labels, make_member

N, C = 200, 4
LABELS = make_labels(N, C)
CONFIG = BlendConfig(method="lbfgs", combiner="geometric")


def pool(*skills: float, n_shifts: int = 1, seed: int = 0) -> Evidence:
    members = [
        make_member(LABELS, C, skill=skill, seed=seed + n, n_shifts=n_shifts, shift_noise=0.7)
        for n, skill in enumerate(skills)
    ]
    return Evidence(members, np.ones((len(members), N)), LABELS)


def test_costs_by_hand():
    costs = [Cost(2.0, 10.0), Cost(3.0, 1.0), Cost(5.0, 4.0)]
    assert total_cost((ALL_SHIFTS, PLAIN, OUT), (4, 4, 4), costs) == Cost(2.0 * 4 + 3.0, 11.0)
    assert within((OUT, PLAIN, OUT), (4, 4, 4), costs, BlendConfig(max_ms=3.0, max_mb=1.0))
    assert not within((OUT, PLAIN, OUT), (4, 4, 4), costs, BlendConfig(max_ms=2.9))
    assert not within((OUT, PLAIN, PLAIN), (4, 4, 4), costs, BlendConfig(max_mb=4.9))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), limit=st.floats(1.0, 30.0))
def test_of_few_choices_the_best_is_found(seed, limit):
    rng = np.random.default_rng(seed)
    seen = pool(*rng.uniform(0.3, 2.0, size=3), n_shifts=2, seed=seed)
    costs = [Cost(ms, 1.0) for ms in rng.uniform(1.0, 8.0, size=3)]
    config = BlendConfig(max_ms=limit)
    every = [choice for choice in product((OUT, PLAIN, ALL_SHIFTS), repeat=3) if any(choice)]
    allowed = [choice for choice in every if within(choice, seen.n_shifts, costs, config)]
    found = choose(seen, (0, 0, 0), costs, lambda choice: within(choice, seen.n_shifts, costs, config))
    if not allowed:
        assert found == (OUT, OUT, OUT)
        return
    assert found in allowed
    loss_of = losses(seen, (0, 0, 0))
    assert loss_of(found) == min(map(loss_of, allowed))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), limit=st.floats(8.0, 40.0))
def test_climbing_ends_where_no_change_of_one_member_is_better(seed, limit):
    rng = np.random.default_rng(seed)
    seen = pool(*rng.uniform(0.3, 2.0, size=5), n_shifts=2, seed=seed)
    costs = [Cost(ms, 1.0) for ms in rng.uniform(1.0, 8.0, size=5)]
    config = BlendConfig(max_ms=limit)
    found = choose(seen, (0,) * 5, costs, lambda choice: within(choice, seen.n_shifts, costs, config))
    assert any(found)
    assert within(found, seen.n_shifts, costs, config)
    loss_of = losses(seen, (0,) * 5)
    near = [(*found[:m], level, *found[m + 1 :]) for m in range(5) for level in (OUT, PLAIN, ALL_SHIFTS)]
    allowed = [each for each in near if any(each) and within(each, seen.n_shifts, costs, config)]
    assert loss_of(found) <= min(map(loss_of, allowed)) + 1e-12


def test_exchange_leaves_a_dear_member_for_two_cheap_ones():
    # Alone the first is best, and fills the limit; the other two together are better and fit as well.
    # Four that are too dear make it a search: 128 choices.
    seen = pool(1.5, 1.3, 1.3, *[1.0] * 4)
    costs = [Cost(10.0, 1.0), Cost(5.0, 1.0), Cost(5.0, 1.0), *[Cost(11.0, 1.0)] * 4]
    loss_of = losses(seen, (0,) * 7)
    assert loss_of((ALL_SHIFTS, *[OUT] * 6)) < loss_of((OUT, ALL_SHIFTS, *[OUT] * 5))
    config = CONFIG.model_copy(update={"max_ms": 10.0})
    weights = fit_within(seen, (0,) * 7, costs, config, advance=stay_silent, study="").weights
    assert weights[0] == 0.0 and (weights[1:3] > 0.3).all() and weights.sum() == pytest.approx(1)


def test_a_member_heard_once_has_the_clip_as_it_is():
    seen = pool(1.5, n_shifts=3)
    mixture = fit_within(
        seen, (1,), [Cost(1.0, 1.0)], CONFIG.model_copy(update={"max_ms": 1.0}), advance=stay_silent, study=""
    )
    assert mixture.shift_weights[0].tolist() == [0.0, 1.0, 0.0]


def test_logistic_keeps_its_class_weights_within_a_limit():
    config = CONFIG.model_copy(update={"method": "logistic", "max_ms": 10.0})
    costs = [Cost(20.0, 1.0), Cost(5.0, 1.0), Cost(5.0, 1.0)]
    mixture = fit_within(pool(1.5, 1.3, 1.3), (0, 0, 0), costs, config, advance=stay_silent, study="")
    assert mixture.class_weights is not None and mixture.class_weights.shape == (3, C)
    assert (mixture.class_weights[0] == 0.0).all() and (mixture.class_weights[1:] > 0.0).any()


def test_without_labels_the_cheapest_take_part():
    seen = pool(1.0, 1.0, 1.0)
    nothing = Evidence([values[:, :0] for values in seen.logits], np.ones((3, 0)), LABELS[:0])
    costs = [Cost(4.0, 1.0), Cost(2.0, 1.0), Cost(1.0, 1.0)]
    config = CONFIG.model_copy(update={"max_ms": 3.5})
    mixture = fit_within(nothing, (0, 0, 0), costs, config, advance=stay_silent, study="")
    assert mixture.weights.tolist() == [0.0, 0.5, 0.5]


def test_front_rises_from_cheap_to_dear():
    seen = pool(0.8, 1.5, 1.5, n_shifts=2)
    costs = [Cost(1.0, 3.0), Cost(4.0, 2.0), Cost(8.0, 1.0)]
    for cost_of in (lambda cost: cost.ms, lambda cost: cost.megabytes):
        found = front(seen, (0, 0, 0), costs, cost_of)
        prices = [cost_of(total_cost(choice, seen.n_shifts, costs)) for choice in found]
        loss_of = losses(seen, (0, 0, 0))
        assert prices == sorted(prices) and len(set(prices)) == len(prices)
        values = [loss_of(choice) for choice in found]
        assert values == sorted(values, reverse=True)
    assert found[-1] == (ALL_SHIFTS, ALL_SHIFTS, ALL_SHIFTS)


def test_cost_files_come_back_and_odd_ones_are_refused(tmp_path):
    assert read_cost(tmp_path) is None
    write_cost(tmp_path, Cost(1.25, 3.5))
    assert read_cost(tmp_path) == Cost(1.25, 3.5)
    assert read_costs([tmp_path, tmp_path / "none"]) == {tmp_path: Cost(1.25, 3.5)}
    for text in ("{", "[]", '{"ms": 1}', '{"ms": "x", "megabytes": 1}', '{"ms": -1, "megabytes": 1}',
                 '{"ms": NaN, "megabytes": 1}'):  # fmt: skip
        (tmp_path / "cost.json").write_text(text)
        with pytest.raises(LogitsError, match=r"cost\.json"):
            read_cost(tmp_path)
