from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from esc_ensemble.blend.calibrate import fit_temperature
from esc_ensemble.blend.crossfit import (
    OofLogits,
    apply_fit,
    cross_fit,
    cross_fit_members,
    fit_blend,
    fit_temperatures,
    oof_logits,
    selection_temperatures,
)
from esc_ensemble.blend.members import align_members
from esc_ensemble.config import BlendConfig
from esc_ensemble.config.blend import Method
from esc_ensemble.errors import LogitsError
from esc_ensemble.logits import read_run
from esc_ensemble.metrics import log_loss, log_softmax, softmax
from tests.blend.make_logits import SHIFTS, make_labels, make_member, write_run

N, C, K = 600, 4, 3
LABELS = make_labels(N, C)
FOLDS = np.arange(N) // C % K
CONFIG = BlendConfig(trials=15)
ALL = np.ones(N, dtype=bool)


def _oof(*members: np.ndarray, labels: np.ndarray = LABELS, **changes: Any) -> OofLogits:
    logits = tuple(member[:1] for member in members)
    return replace(
        OofLogits(
            logits=logits,
            labels=labels,
            fold_index=FOLDS,
            sources=np.arange(N).astype(str),
            selection_temperatures=np.full((len(logits), K), np.nan),
            plain=(0,) * len(logits),
        ),
        **changes,
    )


def _member(skill: float, seed: int, temperature: float = 1.0) -> np.ndarray:
    return make_member(LABELS, C, skill=skill, seed=seed, temperature=temperature)


def test_planted_temperatures_are_recovered():
    oof = _oof(_member(1.5, 0, 0.5), _member(1.5, 1, 4.0))
    found = fit_temperatures(oof, ALL)
    assert found.shape == (2, K)
    np.testing.assert_allclose(found, [[0.5] * K, [4.0] * K], rtol=0.2)
    for fold in range(K):
        others = np.asarray(fold != FOLDS)
        one = fit_temperatures(oof, others)
        np.testing.assert_allclose(one, [[0.5] * K, [4.0] * K], rtol=0.25)
        assert one[0, 0] == fit_temperature(oof.means[0, others], LABELS[others])


def test_held_out_fold_chooses_nothing():
    oof = _oof(_member(1.5, 0), _member(1.0, 1), _member(0.5, 2))
    before = cross_fit(oof, CONFIG)
    # Other labels on fold 1 change what is fitted for the other folds, never its own predictions.
    scrambled = np.where(FOLDS == 1, (LABELS + 1) % C, LABELS)
    after = cross_fit(replace(oof, labels=scrambled), CONFIG)
    held = FOLDS == 1
    for name in ("probabilities", "before"):
        np.testing.assert_array_equal(getattr(before, name)[held], getattr(after, name)[held])
        assert (getattr(before, name)[~held] != getattr(after, name)[~held]).any()
    members = [cross_fit_members(each) for each in (oof, replace(oof, labels=scrambled))]
    np.testing.assert_array_equal(members[0][:, held], members[1][:, held])
    np.testing.assert_array_equal(before.weights[1], after.weights[1])
    # Nor do they depend on that fold's logits, but for their being what is predicted.
    loud = tuple(np.where(held[None, :, None], 7 * values, values) for values in oof.logits)
    np.testing.assert_array_equal(cross_fit(replace(oof, logits=loud), CONFIG).weights[1], before.weights[1])


@pytest.mark.parametrize("method", get_args(Method))
def test_held_out_fold_chooses_nothing_by_any_method(method):
    config = BlendConfig(method=method, trials=12, tta=True, tta_weights="tuned")
    oof = _oof(_member(1.5, 0), _member(1.0, 1))
    oof = replace(oof, logits=tuple(np.repeat(values, 2, axis=0) for values in oof.logits))
    scrambled = np.where(FOLDS == 1, (LABELS + 1) % C, LABELS)
    held = FOLDS == 1
    found = [cross_fit(each, config).probabilities[held] for each in (oof, replace(oof, labels=scrambled))]
    np.testing.assert_array_equal(found[0], found[1])


def test_predictions_by_hand_for_one_fold():
    oof = _oof(_member(1.5, 0, 2.0))
    held, others = FOLDS == 2, FOLDS != 2
    temperature = fit_temperature(oof.means[0, others], LABELS[others])
    crossed = cross_fit(oof, CONFIG)
    np.testing.assert_allclose(crossed.probabilities[held], softmax(oof.means[0, held] / temperature), rtol=1e-4)
    np.testing.assert_allclose(np.exp(cross_fit_members(oof)[0]), crossed.probabilities, rtol=1e-5)


def test_the_fit_on_all_folds_is_applied_with_each_folds_temperature():
    known = np.array([[0.5, 1.0, 2.0]])
    oof = _oof(_member(1.5, 0), selection_temperatures=known)
    found = apply_fit(oof, fit_blend(oof, CONFIG), ALL)
    for fold in range(K):
        held = fold == FOLDS
        np.testing.assert_allclose(found[held], softmax(oof.means[0, held] / known[0, fold]), rtol=1e-4)


def test_complementary_members_beat_each_alone():
    # Each member hears two of the four classes well.
    rng = np.random.default_rng(3)
    seen = 3.0 * np.eye(C)[LABELS] + rng.standard_normal((2, N, C))
    deaf = np.array([LABELS < 2, LABELS >= 2])
    seen[deaf] = rng.standard_normal((int(deaf.sum()), C))
    oof = _oof(*(3 * seen.astype(np.float32))[:, None])
    blended, members = cross_fit(oof, CONFIG).probabilities, cross_fit_members(oof)
    alone = [(probs.argmax(axis=1) == LABELS).mean() for probs in members]
    assert (blended.argmax(axis=1) == LABELS).mean() > max(alone) + 0.05
    assert log_loss(blended, LABELS) < min(log_loss(np.exp(p), LABELS) for p in members)


def test_selection_temperatures_are_used_fold_by_fold(tmp_path):
    selection = {}
    for fold in range(K):
        labels = make_labels(3000, C, fold)
        selection[fold] = (make_member(labels, C, skill=1.5, seed=fold, temperature=1.0 + fold), labels)
    logits = _member(1.5, 0)
    run = read_run(write_run(tmp_path / "a", logits, LABELS, FOLDS, selection=selection))
    np.testing.assert_allclose(selection_temperatures(run, run.shifts == 0.0), [1, 2, 3], rtol=0.08)

    members = align_members([run])
    oof = oof_logits(members, CONFIG)
    np.testing.assert_array_equal(fit_temperatures(oof, ALL), oof.selection_temperatures)
    log_probs = cross_fit_members(oof)
    for fold, temperature in enumerate(oof.selection_temperatures[0]):
        held = members.fold_of_clip == fold
        np.testing.assert_allclose(log_probs[0, held], log_softmax(oof.means[0, held] / temperature), atol=1e-5)


def test_mixed_members_keep_their_own_kind_of_temperature():
    known = np.array([[1.0, 2.0, 3.0], [np.nan] * 3])
    oof = _oof(_member(1.5, 0), _member(1.5, 1, 5.0), selection_temperatures=known)
    found = fit_temperatures(oof, ALL)
    assert found[0].tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(found[1], 5.0, rtol=0.2)
    assert np.isnan(oof.selection_temperatures[1]).all()


def test_selection_without_labels_counts_as_none(tmp_path):
    unknown = (np.zeros((1, 2, C), dtype=np.float32), np.array([-1, -1]))
    run = read_run(write_run(tmp_path / "a", _member(1, 0), LABELS, FOLDS, selection=dict.fromkeys(range(K), unknown)))
    assert np.isnan(selection_temperatures(run, run.shifts == 0.0)).all()


def test_one_labelled_fold_gets_temperature_one_and_equal_weights():
    labels = np.where(FOLDS == 0, LABELS, -1)
    oof = _oof(_member(1.5, 0, 4.0), _member(0.5, 1), labels=labels)
    crossed = cross_fit(oof, CONFIG)
    held = FOLDS == 0
    np.testing.assert_allclose(cross_fit_members(oof)[:, held], log_softmax(oof.means[:, held]), atol=1e-6)
    assert crossed.weights[0].tolist() == [0.5, 0.5]


def test_tta_takes_all_shifts_or_those_that_are_named(tmp_path):
    runs = []
    for seed, name in enumerate("ab"):
        logits = make_member(LABELS, C, skill=1.0, seed=seed, n_shifts=3, shift_noise=1.0)
        runs.append(read_run(write_run(tmp_path / name, logits, LABELS, FOLDS, shifts=SHIFTS)))
    members = align_members(runs)
    plain = oof_logits(members, CONFIG)
    np.testing.assert_array_equal(plain.means[0], members.logits[0][1])
    all_shifts = oof_logits(members, BlendConfig(tta=True))
    np.testing.assert_allclose(all_shifts.means[0], members.logits[0].mean(axis=0), rtol=1e-5)
    assert all_shifts.plain == (1, 1)
    own = oof_logits(members, BlendConfig(tta=True, shifts=(0.0, 0.1), member_shifts={"a": (-0.1,)}))
    np.testing.assert_array_equal(own.logits[0], members.logits[0][:1])
    np.testing.assert_array_equal(own.logits[1], members.logits[1][1:])
    # Three noisy looks are better than one.
    losses = [log_loss(cross_fit(each, CONFIG).probabilities, members.labels) for each in (all_shifts, plain)]
    assert losses[0] < losses[1]
    with pytest.raises(LogitsError, match=r"(?s)\"c\" is no member.*a has no shift 0\.3; it has -0\.1, 0, 0\.1"):
        oof_logits(members, BlendConfig(tta=True, shifts=(0.0, 0.3), member_shifts={"c": (0.0,)}))


def test_sources_in_two_folds_are_left_out_of_the_fit_that_scores_them():
    # Sources 0 to 19 have clips in fold 0 and in fold 1; the others are in one fold.
    sources = np.arange(N).astype(str)
    for fold in (0, 1):
        sources[np.flatnonzero(fold == FOLDS)[:20]] = [f"both {n}" for n in range(20)]
    twins = np.char.startswith(sources, "both")
    oof = _oof(_member(1.5, 0), _member(1.0, 1), sources=sources)
    scrambled = replace(oof, labels=np.where(twins & (FOLDS == 1), (LABELS + 1) % C, LABELS))
    held = FOLDS == 0
    config = BlendConfig(method="lbfgs")
    before, after = cross_fit(oof, config), cross_fit(scrambled, config)
    np.testing.assert_array_equal(before.probabilities[held], after.probabilities[held])
    np.testing.assert_array_equal(before.fits[0].temperatures, after.fits[0].temperatures)
    assert (before.weights[2] != after.weights[2]).any()  # fold 2 has no such source
    members = [cross_fit_members(each)[:, held] for each in (oof, scrambled)]
    np.testing.assert_array_equal(members[0], members[1])
