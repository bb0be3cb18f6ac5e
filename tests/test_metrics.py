from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble import metrics
from esc_ensemble.errors import DataError

cases = st.tuples(st.integers(2, 40), st.integers(2, 8), st.integers(0, 10_000))


def _draw(case: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    n_clips, n_classes, seed = case
    rng = np.random.default_rng(seed)
    return metrics.softmax(3 * rng.standard_normal((n_clips, n_classes))), rng.integers(0, n_classes, n_clips)


@given(cases)
@settings(max_examples=60, deadline=None)
def test_scores_agree_with_scikit_learn(case):
    probabilities, labels = _draw(case)
    classes = np.arange(probabilities.shape[1])
    found = metrics.score(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    assert found["top1"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
    assert found["log_loss"] == pytest.approx(sklearn.metrics.log_loss(labels, probabilities, labels=classes))
    assert found["macro_f1"] == pytest.approx(
        sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    )
    for k in range(1, len(classes)):
        if len(classes) > 2:  # scikit-learn takes two classes as one score
            reference = sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=k, labels=classes)
            assert metrics.top_k_accuracy(probabilities, labels, k) == pytest.approx(reference)
    assert metrics.top_k_accuracy(probabilities, labels, len(classes)) == 1.0


@given(cases)
@settings(max_examples=30, deadline=None)
def test_softmax_agrees_with_scipy(case):
    values = 50 * np.random.default_rng(case[2]).standard_normal(case[:2])
    np.testing.assert_allclose(metrics.softmax(values, 0), scipy.special.softmax(values, 0), rtol=1e-12)
    np.testing.assert_allclose(metrics.log_softmax(values), scipy.special.log_softmax(values, -1), rtol=1e-12)


def test_softmax_keeps_float32_and_survives_large_logits():
    values = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    assert metrics.softmax(values).dtype == np.float32
    np.testing.assert_array_equal(metrics.softmax(values), [[1, 0, 0]])
    np.testing.assert_array_equal(metrics.log_softmax(values), [[0, -2e4, -1e4]])


def test_ties_go_to_the_lower_class():
    scores = np.full((4, 4), 0.25)
    labels = np.array([0, 1, 2, 3])
    assert metrics.top_k_accuracy(scores, labels, 1) == 0.25
    assert metrics.top_k_accuracy(scores, labels, 3) == 0.75


def test_certain_mistake_has_finite_loss():
    assert metrics.log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(np.finfo(float).eps))


def test_ece_by_hand():
    # Two bins with half the clips each. 0.5, 0.5, one right: gap 0. 0.9, 0.7, one right: |0.5 - 0.8| = 0.3.
    probabilities = np.array([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1], [0.3, 0.7]])
    labels = np.array([0, 1, 0, 0])
    assert metrics.expected_calibration_error(probabilities, labels, n_bins=2) == pytest.approx(0.15)


def test_ece_puts_an_edge_into_the_bin_below():
    # 0.6 is an edge of 5 bins. (0.4, 0.6]: 0.6 right, 0.5 wrong: |1 - 1.1| = 0.1. (0.6, 0.8]: 0.7 right: 0.3.
    probabilities = np.array([[0.6, 0.4], [0.5, 0.5], [0.7, 0.3]])
    labels = np.array([0, 1, 0])
    assert metrics.expected_calibration_error(probabilities, labels, n_bins=5) == pytest.approx(0.4 / 3)


def test_ece_is_small_where_probabilities_are_true():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1.0, 20_000)
    labels = (rng.uniform(size=len(p)) > p).astype(np.int64)
    assert metrics.expected_calibration_error(np.stack([p, 1 - p], axis=1), labels) < 0.01
    # Always certain and right half the time: the gap is one half.
    certain = np.tile([1.0, 0.0], (10, 1))
    assert metrics.expected_calibration_error(certain, np.arange(10) % 2) == 0.5


def test_unlabelled_clips_do_not_count():
    probabilities, labels = _draw((30, 4, 1))
    half = np.where(np.arange(30) % 2, labels, -1)
    assert metrics.score(probabilities, half) == metrics.score(probabilities[1::2], labels[1::2])
    with pytest.raises(DataError, match="no clip has a label"):
        metrics.score(probabilities, np.full(30, -1))


def test_folds_mean_and_std_by_hand():
    probabilities = np.eye(2)[[0, 0, 1, 1]]
    by_fold = metrics.per_fold_scores(probabilities, np.array([0, 0, 1, 0]), np.array([3, 3, 7, 7]))
    assert {fold: scores["top1"] for fold, scores in by_fold.items()} == {3: 1.0, 7: 0.5}
    over = metrics.mean_and_std(by_fold)["top1"]
    assert over == {"mean": 0.75, "std": pytest.approx(np.sqrt(0.125))}
    some = metrics.mean_and_std({1: {"top1": 0.5}, 2: {"top1": 1.0, "selection_top1": 0.25}})
    assert list(some) == ["top1", "selection_top1"] and some["selection_top1"] == {"mean": 0.25, "std": 0.0}
    assert metrics.mean_and_std({1: {"top1": 0.5}}) == {"top1": {"mean": 0.5, "std": 0.0}}


def test_bootstrap_agrees_with_scipy_where_each_clip_is_a_source():
    hits = (np.random.default_rng(0).uniform(size=300) < 0.8).astype(float)
    low, high = metrics.bootstrap_interval(hits, np.arange(300).astype(str), n_draws=4000)
    reference = scipy.stats.bootstrap((hits,), np.mean, n_resamples=4000, method="percentile", rng=0)
    assert low == pytest.approx(reference.confidence_interval.low, abs=0.006)
    assert high == pytest.approx(reference.confidence_interval.high, abs=0.006)


def test_bootstrap_widens_where_clips_share_a_source():
    hits = np.repeat(np.arange(40) % 2, 10).astype(float)
    alone = metrics.bootstrap_interval(hits, np.arange(400).astype(str))
    shared = metrics.bootstrap_interval(hits, np.repeat(np.arange(40), 10).astype(str))
    # Ten clips of a source fail together: the width grows by about the root of ten.
    assert 2.5 < (shared[1] - shared[0]) / (alone[1] - alone[0]) < 4.0


def test_bootstrap_weighs_sources_by_their_clips_and_is_seeded():
    values, sources = np.array([1.0, 1.0, 1.0, 0.0]), np.array(["a", "a", "a", "b"])
    draws = metrics.bootstrap_means(values, sources, 500, seed=3)
    assert set(np.unique(draws)) == {0.0, 0.75, 1.0}
    np.testing.assert_array_equal(draws, metrics.bootstrap_means(values, sources, 500, seed=3))
    assert (draws != metrics.bootstrap_means(values, sources, 500, seed=4)).any()


def test_bootstrap_in_blocks_draws_them_all(monkeypatch):
    monkeypatch.setattr(metrics, "BOOTSTRAP_BLOCK", 40)
    assert metrics.bootstrap_means(np.ones(10), np.arange(10), 33).shape == (33,)
