from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.blend.crossfit import OofLogits, cross_fit_members
from esc_ensemble.blend.diagnostics import (
    contributions,
    error_correlation,
    gap_warning,
    leak_warnings,
    probability_warnings,
)
from esc_ensemble.config import BlendConfig
from esc_ensemble.metrics import clip_losses, softmax
from tests.blend.make_logits import make_labels, make_member

N, C, K = 400, 10, 5
LABELS = make_labels(N, C)
FOLDS = np.arange(N) // C % K
SOURCES = np.array([f"source {n // 2}" for n in range(N)])
CONFIG = BlendConfig(method="lbfgs", bootstrap=200)


def oof(*members: np.ndarray) -> OofLogits:
    unknown = np.full((len(members), K), np.nan)
    return OofLogits(members, LABELS, FOLDS, SOURCES, unknown, plain=(0,) * len(members))


def member(seed: int, skill: float = 1.8) -> np.ndarray:
    return make_member(LABELS, C, skill=skill, seed=seed)


@pytest.mark.parametrize("skill", [1.2, 1.8, 2.2])
@pytest.mark.parametrize("fold", [0, 3])
def test_a_member_that_knows_one_folds_labels_is_named_with_the_fold(skill, fold):
    leaky = member(7, skill).copy()
    leaky[:, fold == FOLDS] += 6 * np.eye(C, dtype=np.float32)[LABELS[fold == FOLDS]]
    log_probs = cross_fit_members(oof(member(0), member(1), member(2), leaky))
    found = leak_warnings(log_probs, LABELS, FOLDS + 1, SOURCES, ["a", "b", "c", "leaky"])
    assert len(found) == 1 and f"leaky is better on fold {fold + 1} " in found[0]


def test_honest_members_raise_no_alarm():
    for seed in range(20):
        members = oof(*(member(10 * seed + n, skill) for n, skill in enumerate((1.0, 1.5, 2.0, 2.5))))
        assert leak_warnings(cross_fit_members(members), LABELS, FOLDS, SOURCES, list("abcd")) == []


def test_a_fold_that_is_easy_for_all_is_no_leak():
    easy = [member(seed).copy() for seed in range(3)]
    for logits in easy:
        logits[:, FOLDS == 2] += 4 * np.eye(C, dtype=np.float32)[LABELS[FOLDS == 2]]
    assert leak_warnings(cross_fit_members(oof(*easy)), LABELS, FOLDS, SOURCES, list("abc")) == []
    assert leak_warnings(cross_fit_members(oof(easy[0])), LABELS, FOLDS, SOURCES, ["a"]) == []


def probabilities(seed: int) -> np.ndarray:
    return softmax(member(seed).astype(np.float64)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_probabilities_in_the_place_of_logits_are_named(dtype):
    wrong = np.stack([probabilities(0), probabilities(1)])[:, 0].astype(dtype).astype(np.float32)  # of two shifts
    (warning,) = probability_warnings([member(0), wrong], FOLDS, ["right", "wrong"])
    assert warning.startswith("The logits of wrong look like probabilities")
    assert "np.log(p + 1e-12)" in warning


def test_probabilities_in_some_folds_alone_are_named_with_the_folds():
    mixed = np.where((FOLDS == 3)[:, None], probabilities(0), member(0))
    (warning,) = probability_warnings([mixed], FOLDS, ["mixed"])
    assert "mixed (fold 3) look" in warning


def test_logits_and_log_probabilities_are_no_probabilities():
    given = probabilities(0)
    one_hot = np.eye(C, dtype=np.float32)[LABELS][None]
    shifted = np.concatenate([given, member(0)])  # probabilities at one shift alone
    fine = [member(0), np.log(given), np.log(one_hot + 1e-12), 1.01 * given, given - 0.5, shifted]
    assert probability_warnings(fine, FOLDS, list("abcdef")) == []
    assert len(probability_warnings([one_hot], FOLDS, ["sure"])) == 1


def test_gap_is_warned_of_beyond_one_folds_standard_error():
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.ones(C), size=N)
    losses = clip_losses(honest, LABELS)
    error = np.mean([losses[fold == FOLDS].std(ddof=1) / np.sqrt(N / K) for fold in range(K)])
    for share, warned in ((0.9, False), (1.1, True)):
        # Every clip's true probability is raised by the same factor, so that the log loss falls by its logarithm.
        better = honest * np.exp(share * error)
        found = gap_warning(better, honest, LABELS, FOLDS, "other folds")
        clipped = losses.mean() - clip_losses(better, LABELS).mean()
        assert (found is not None) == warned == (clipped > error)
    assert gap_warning(honest, honest, LABELS, np.zeros(N, dtype=np.int64), "other folds") is None


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), n_members=st.integers(2, 5))
def test_error_correlation_is_numpys_of_errors(seed, n_members):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 3, size=60)
    predictions = rng.integers(0, 3, size=(n_members, 60))
    wrong = (predictions != labels)[:, labels >= 0]
    found = error_correlation(predictions, labels)
    with np.errstate(invalid="ignore", divide="ignore"):
        np.testing.assert_allclose(found, np.corrcoef(wrong), atol=1e-12)
    predictions[0] = np.maximum(labels, 0)  # never wrong
    assert np.isnan(error_correlation(predictions, labels)[0]).all()


def test_contribution_is_what_is_lost_without_a_member():
    members = oof(member(0, 2.2), member(1, 1.5), np.zeros((1, N, C), dtype=np.float32))
    found = contributions(members, ("best", "second", "nothing"), CONFIG, "geometric")
    assert [item.run for item in found] == ["best", "second", "nothing"]
    lost = [-item.loss.log_loss for item in found]
    assert lost[0] > lost[1] > 0.05 and lost[2] == pytest.approx(0.0, abs=1e-3)
    assert contributions(oof(member(0)), ("only",), CONFIG, "geometric") == ()


def test_a_source_in_two_folds_counts_in_each_of_them():
    # Each source of fold 2 has as many clips in fold 0: neither fold takes over the other's losses.
    sources = SOURCES.copy()
    sources[FOLDS == 2] = sources[FOLDS == 0]
    leaky = member(7).copy()
    leaky[:, FOLDS == 2] += 6 * np.eye(C, dtype=np.float32)[LABELS[FOLDS == 2]]
    log_probs = cross_fit_members(oof(member(0), member(1), member(2), leaky))
    for order in (np.arange(N), np.arange(N)[::-1]):
        args = (log_probs[:, order], LABELS[order], FOLDS[order], sources[order])
        found = leak_warnings(*args, ["a", "b", "c", "leaky"])
        assert len(found) == 1 and "leaky is better on fold 2 " in found[0]
