from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.blend.combine import (
    COMBINERS,
    Mixture,
    blend_probabilities,
    combine,
    evidence,
    log_probabilities,
    mean_over_shifts,
)


def mixture(combiner: Any, *weights: float, **more: Any) -> Mixture:
    return Mixture(combiner, np.array(weights), tuple(np.ones(1) for _ in weights), **more)


def test_two_members_by_hand():
    log_probs = np.log([[[0.9, 0.1]], [[0.5, 0.5]]])
    # Geometric: sqrt(0.45) : sqrt(0.05) = 3 : 1. Arithmetic: 0.7 : 0.3.
    np.testing.assert_allclose(combine(log_probs, mixture("geometric", 0.5, 0.5)), [[0.75, 0.25]])
    np.testing.assert_allclose(combine(np.exp(log_probs), mixture("arithmetic", 0.5, 0.5)), [[0.7, 0.3]])
    # Half the temperature squares the odds.
    warm = mixture("geometric", 0.5, 0.5, temperature=0.5)
    np.testing.assert_allclose(combine(log_probs, warm), [[0.9, 0.1]])
    warm = mixture("arithmetic", 0.5, 0.5, temperature=0.5)
    np.testing.assert_allclose(combine(np.exp(log_probs), warm), [[0.49 / 0.58, 0.09 / 0.58]])


def test_evidence_by_hand():
    logits = np.array([[2.0, 0.0, 1.0, 1.0]])
    np.testing.assert_allclose(evidence(logits, 5.0, "logits"), [[1.0, -1.0, 0.0, 0.0]])
    np.testing.assert_allclose(evidence(logits, 5.0, "rank"), [[3.0, 0.0, 1.5, 1.5]])
    np.testing.assert_allclose(evidence(logits, 2.0, "arithmetic"), scipy.special.softmax(logits / 2.0, axis=1))
    np.testing.assert_allclose(evidence(logits, 2.0, "geometric"), scipy.special.log_softmax(logits / 2.0, axis=1))


@pytest.mark.parametrize("combiner", COMBINERS)
def test_weight_one_is_that_member(combiner):
    logits = np.random.default_rng(0).standard_normal((3, 5, 4))
    said = evidence(logits, 1.0, combiner)
    found = combine(said, mixture(combiner, 0.0, 1.0, 0.0))
    wanted = said[1] if combiner == "arithmetic" else scipy.special.softmax(said[1], axis=1)
    np.testing.assert_allclose(found, wanted)


def test_class_weights_and_bias_by_hand():
    log_probs = np.log([[[0.8, 0.2]], [[0.4, 0.6]]])
    by_class = np.array([[1.0, 0.0], [0.0, 2.0]])
    bias = np.array([0.0, 0.5])
    found = combine(log_probs, mixture("geometric", 0.5, 0.5, class_weights=by_class, bias=bias))
    wanted = np.array([0.8, 0.36 * np.exp(0.5)])
    np.testing.assert_allclose(found[0], wanted / wanted.sum())


def test_mean_over_shifts():
    logits = np.arange(6, dtype=np.float32).reshape(3, 1, 2)
    np.testing.assert_array_equal(mean_over_shifts(logits), [[2, 3]])
    np.testing.assert_allclose(mean_over_shifts(logits, np.array([0.5, 0.0, 0.5])), [[2, 3]])
    np.testing.assert_allclose(mean_over_shifts(logits, np.array([0.0, 0.25, 0.75])), [[3.5, 4.5]])


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), combiner=st.sampled_from(COMBINERS), temperature=st.floats(0.2, 5.0))
def test_the_whole_line_written_out_with_scipy(seed, combiner, temperature):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, size=3)
    logits = [(4 * rng.standard_normal((count, 7, 6))).astype(np.float32) for count in counts]
    own = rng.uniform(0.3, 4.0, size=3)
    weights = rng.dirichlet(np.ones(3))
    shares = tuple(rng.dirichlet(np.ones(count)) for count in counts)
    scores = np.zeros((7, 6))
    for values, warmth, weight, share in zip(logits, own, weights, shares, strict=True):
        mean = np.tensordot(share, values.astype(np.float64), axes=1)
        said = {
            "geometric": scipy.special.log_softmax(mean / warmth, axis=1),
            "arithmetic": scipy.special.softmax(mean / warmth, axis=1),
            "logits": mean - mean.mean(axis=1, keepdims=True),
            "rank": scipy.stats.rankdata(mean, axis=1) - 1.0,
        }[combiner]
        scores += weight * said
    scores = np.log(scores) if combiner == "arithmetic" else scores
    wanted = scipy.special.softmax(scores / temperature, axis=1)
    found = blend_probabilities(logits, own.tolist(), Mixture(combiner, weights, shares, temperature))
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_a_temperature_for_each_clip():
    logits = np.array([[2.0, 0.0], [2.0, 0.0]])
    found = np.exp(log_probabilities(logits, np.array([1.0, 2.0])))
    np.testing.assert_allclose(found[:, 0], scipy.special.expit([2.0, 1.0]))
