from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from esc_ensemble.blend.combine import (
    blend_probabilities,
    chosen_shifts,
    combine,
    log_probabilities,
    mean_over_shifts,
)

SHIFTS = np.array([-0.1, 0.0, 0.1], dtype=np.float32)


def test_two_members_by_hand():
    log_probs = np.log([[[0.9, 0.1]], [[0.5, 0.5]]])
    half = np.array([0.5, 0.5])
    # Geometric: sqrt(0.45) : sqrt(0.05) = 3 : 1. Arithmetic: 0.7 : 0.3.
    np.testing.assert_allclose(combine(log_probs, half, "geometric"), [[0.75, 0.25]])
    np.testing.assert_allclose(combine(log_probs, half, "arithmetic"), [[0.7, 0.3]])


@pytest.mark.parametrize("combiner", ["geometric", "arithmetic"])
def test_weight_one_is_that_member(combiner):
    log_probs = scipy.special.log_softmax(np.random.default_rng(0).standard_normal((3, 5, 4)), axis=-1)
    np.testing.assert_allclose(combine(log_probs, np.array([0.0, 1.0, 0.0]), combiner), np.exp(log_probs[1]))


def test_shifts_that_count():
    assert chosen_shifts(SHIFTS, tta=False).tolist() == [False, True, False]
    assert chosen_shifts(SHIFTS, tta=True).all()
    logits = np.arange(6, dtype=np.float32).reshape(3, 1, 2)
    np.testing.assert_array_equal(mean_over_shifts(logits, SHIFTS, tta=False), [[2, 3]])
    np.testing.assert_array_equal(mean_over_shifts(logits[::-1], SHIFTS, tta=True), [[2, 3]])


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("combiner", ["geometric", "arithmetic"])
def test_short_way_equals_the_order_of_the_exported_graph(combiner, tta):
    rng = np.random.default_rng(1)
    logits = [(4 * rng.standard_normal((3, 20, 6))).astype(np.float32) for _ in range(3)]
    temperatures, weights = np.array([0.5, 1.0, 3.0]), np.array([0.2, 0.5, 0.3])

    # Written out with SciPy, step by step.
    members = []
    for values, temperature in zip(logits, temperatures, strict=True):
        used = values.astype(np.float64) if tta else values[1:2].astype(np.float64)
        members.append(scipy.special.log_softmax(used / temperature, axis=-1).mean(axis=0))
    if combiner == "geometric":
        wanted = scipy.special.softmax(np.tensordot(weights, members, axes=1), axis=-1)
    else:
        wanted = np.tensordot(weights, scipy.special.softmax(members, axis=-1), axes=1)

    means = np.stack([mean_over_shifts(values, SHIFTS, tta) for values in logits])
    short = combine(log_probabilities(means, temperatures[:, None]), weights, combiner)
    used_logits = [values[chosen_shifts(SHIFTS, tta)] for values in logits]
    long = blend_probabilities(used_logits, temperatures.tolist(), weights, combiner)
    np.testing.assert_allclose(short, wanted, atol=2e-6)
    np.testing.assert_allclose(long, wanted, atol=2e-6)


def test_a_temperature_for_each_clip():
    logits = np.array([[2.0, 0.0], [2.0, 0.0]])
    found = np.exp(log_probabilities(logits, np.array([1.0, 2.0])))
    np.testing.assert_allclose(found[:, 0], scipy.special.expit([2.0, 1.0]))
