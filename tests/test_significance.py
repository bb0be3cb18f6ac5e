from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.significance import compare_predictions, mcnemar


def probabilities(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Two classes, the true one at 0.8 where right and at 0.2 where not."""
    true = np.where(right, 0.8, 0.2)
    return np.where(np.arange(2) == labels[:, None], true[:, None], 1.0 - true[:, None])


def test_mcnemar_by_hand():
    # Of 10 clips that one alone gets right 9 are the first's: (C(10,0) + C(10,1)) / 2^10, both sides.
    assert mcnemar(9, 1) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == pytest.approx(1.0)


@settings(deadline=None)
@given(first=st.integers(0, 300), second=st.integers(0, 300))
def test_mcnemar_is_scipys_binomial_test_both_ways(first, second):
    assert mcnemar(first, second) == mcnemar(second, first)
    if first + second:
        tail = scipy.stats.binom.cdf(min(first, second), first + second, 0.5)
        assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail), rel=1e-6)


def test_comparison_by_hand():
    labels = np.array([0, 1, 0, 1, -1])
    first = probabilities(np.array([True, True, True, False, True]), labels)
    second = probabilities(np.array([True, False, False, False, False]), labels)
    found = compare_predictions(first, second, labels, np.array(list("abcde")))
    assert found.top1 == pytest.approx(0.5)
    assert (found.only_first_right, found.only_second_right) == (2, 0)
    assert found.mcnemar_p == pytest.approx(0.5)
    assert found.log_loss == pytest.approx(0.5 * (np.log(0.2) - np.log(0.8)))


def test_interval_is_near_the_normal_one_and_wider_for_clips_that_fail_together():
    rng = np.random.default_rng(0)
    labels = np.zeros(2000, dtype=np.int64)
    right = rng.random((2, 500)) < [[0.9], [0.85]]
    together = np.repeat(right, 4, axis=1)  # four clips of each recording, all right or all wrong
    first, second = (probabilities(part, labels) for part in together)
    sources = np.repeat(np.arange(500), 4).astype(str)
    found = compare_predictions(first, second, labels, sources, n_draws=4000)
    gain = right[0].astype(float) - right[1]
    half = NormalDist().inv_cdf(0.975) * gain.std() / np.sqrt(500)
    assert found.top1_interval == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.004)
    alone = compare_predictions(first, second, labels, np.arange(2000).astype(str), n_draws=4000)
    ratio = np.subtract(*found.top1_interval) / np.subtract(*alone.top1_interval)
    assert ratio == pytest.approx(2.0, rel=0.1)


def test_same_predictions_differ_by_nothing():
    labels = np.array([0, 1, 0])
    same = probabilities(np.array([True, False, True]), labels)
    found = compare_predictions(same, same, labels, labels.astype(str))
    assert found.top1 == found.log_loss == 0.0 and found.top1_interval == (0.0, 0.0) and found.mcnemar_p == 1.0
