from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.blend.calibrate import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature
from esc_ensemble.errors import LogitsError
from esc_ensemble.metrics import log_loss, softmax
from tests.blend.make_logits import make_labels, make_member


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_planted_temperature_is_found(temperature):
    labels = make_labels(4000, 5)
    logits = make_member(labels, 5, skill=1.5, seed=1, temperature=temperature)[0]
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.08)


@given(st.integers(0, 1000), st.floats(0.3, 4.0), st.floats(0.1, 10.0))
@settings(max_examples=25, deadline=None)
def test_agrees_with_scipy(seed, skill, start):
    labels = make_labels(60, 4, seed)
    logits = make_member(labels, 4, skill=skill, seed=seed, temperature=2.0)[0].astype(np.float64)
    reference = scipy.optimize.minimize_scalar(
        lambda log_t: log_loss(softmax(logits / np.exp(log_t)), labels),
        bounds=(np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    found = fit_temperature(logits, labels, start)
    assert log_loss(softmax(logits / found), labels) <= reference.fun + 1e-9


def test_two_classes_by_hand():
    # Margin 2 and right three times in four: softmax(2 / T) must be 3/4, so T = 2 / log 3.
    logits = np.tile([2.0, 0.0], (4, 1))
    assert fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(2 / np.log(3), rel=1e-6)


def test_ends_of_the_range():
    logits = np.eye(3)[[0, 1, 2]]
    assert fit_temperature(logits, np.array([0, 1, 2])) == MIN_TEMPERATURE
    assert fit_temperature(logits, np.array([1, 2, 0])) == MAX_TEMPERATURE
    assert fit_temperature(np.zeros((3, 3)), np.array([0, 1, 2])) == MAX_TEMPERATURE


def test_unlabelled_clips_do_not_count():
    labels = make_labels(200, 4)
    logits = make_member(labels, 4, skill=1, seed=0)[0]
    hidden = np.where(np.arange(200) < 100, labels, -1)
    assert fit_temperature(logits, hidden) == fit_temperature(logits[:100], labels[:100])
    with pytest.raises(LogitsError, match="no clip has a label"):
        fit_temperature(logits, np.full(200, -1))
