from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from esc_ensemble.baseline.classify import class_log_frequencies, fit_regression, regression_logits
from esc_ensemble.config import BaselineModelConfig


def points(n_classes: int, n_clips: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n_clips) % n_classes
    return rng.normal(labels[:, None], 1.0, (n_clips, 4)) * [1.0, 100.0, 0.01, 1.0] + [0, 5, 0, -3], labels


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_it_is_scikit_learn_s_pipeline(n_classes: int, c: float) -> None:
    features, labels = points(n_classes)
    others, _ = points(n_classes, 25, seed=1)
    expected = Pipeline([("scale", StandardScaler()), ("classify", LogisticRegression(C=c, max_iter=1000))])
    expected.fit(features, labels)
    logits = regression_logits(fit_regression(features, labels, BaselineModelConfig(c=c)), others)
    assert logits.shape == (25, n_classes)
    assert logits.dtype == np.float32
    powers = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), expected.predict_proba(others), atol=1e-5)


def test_shifts_and_clips_keep_their_places() -> None:
    features, labels = points(3)
    pipeline = fit_regression(features, labels, BaselineModelConfig())
    stacked = np.stack([features, features[::-1]])  # (S, N, D)
    logits = regression_logits(pipeline, stacked)
    np.testing.assert_allclose(logits[0], logits[1, ::-1], rtol=1e-5)
    np.testing.assert_allclose(logits[0], regression_logits(pipeline, features), rtol=1e-5)


def test_logits_are_finite_where_probabilities_are_not_told_from_0() -> None:
    features, labels = points(3)
    far = regression_logits(fit_regression(features, labels, BaselineModelConfig(c=1e6)), 1e6 * np.ones((2, 4)))
    assert np.isfinite(far).all()


def test_features_that_are_all_the_same_are_no_hindrance() -> None:
    labels = np.arange(12) % 3
    logits = regression_logits(fit_regression(np.zeros((12, 4)), labels, BaselineModelConfig()), np.zeros((2, 4)))
    np.testing.assert_allclose(logits - logits.mean(axis=1, keepdims=True), 0.0, atol=1e-3)


def test_a_solver_stopped_too_soon_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    features, labels = points(3)
    fit_regression(features, labels, BaselineModelConfig(max_iter=1))
    assert "raise model.max_iter" in capsys.readouterr().err
    fit_regression(features, labels, BaselineModelConfig())
    assert capsys.readouterr().err == ""


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=12), st.randoms())
def test_the_majority_is_how_often_each_class_occurs(counts: list[int], random: object) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    random.shuffle(labels)  # type: ignore[attr-defined]
    found = class_log_frequencies(labels, len(counts))
    np.testing.assert_allclose(np.exp(found), np.array(counts) / sum(counts), rtol=1e-5)
    assert found.argmax() == counts.index(max(counts))
