from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.special
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from esc_ensemble.logits import read_run
from esc_ensemble.metrics import expected_calibration_error
from esc_ensemble.report import Evidence, load
from esc_ensemble.report.evidence import MemberEvidence
from esc_ensemble.report.tallies import (
    class_scores,
    confusion_counts,
    final_gaps,
    rank_confused,
    reliability,
    uncalibrated,
    wilson_interval,
)
from tests.conftest import Made
from tests.report.blends import write_made_up


def hand_worked(folder: Path) -> Evidence:
    """Five clips: cat, cat, cat, dog, unknown; two cats are taken for dogs."""
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]])
    labels, folds = np.array([0, 0, 0, 1, -1]), np.array([1, 1, 2, 2, 2])
    return load(write_made_up(folder, probabilities[None], labels, folds, ["cat", "dog"]))


def test_a_hand_worked_case(tmp_path: Path) -> None:
    evidence = hand_worked(tmp_path / "mix")
    assert confusion_counts(evidence).tolist() == [[1, 2], [0, 1]]
    (pair,) = rank_confused(evidence)
    assert (pair.true, pair.predicted, pair.n_clips, pair.n_reverse) == (0, 1, 2, 0)
    assert pair.share == pytest.approx(2 / 3)


def test_confusion_and_class_scores_are_scikit_learns(evidence: Evidence) -> None:
    labels, predicted = evidence.labels, evidence.probabilities.argmax(axis=1)
    np.testing.assert_array_equal(confusion_counts(evidence), confusion_matrix(labels, predicted))
    found = class_scores(labels, predicted, 4)
    np.testing.assert_allclose(found["recall"], recall_score(labels, predicted, average=None))
    np.testing.assert_allclose(found["f1"], f1_score(labels, predicted, average=None))
    assert found["n_clips"].tolist() == [15, 15, 15, 15]


def test_a_class_without_clips_has_score_zero_and_no_warning() -> None:
    found = class_scores(np.array([0, 1]), np.array([0, 1]), 3)
    assert found["recall"].tolist() == [1.0, 1.0, 0.0]
    assert found["n_clips"].tolist() == [1, 1, 0]


def test_reliability_is_scikit_learns_and_adds_up_to_the_calibration_error(evidence: Evidence) -> None:
    bins = reliability(evidence.probabilities, evidence.labels, 10)
    hit = evidence.predicted == evidence.labels
    accuracy, confidence = calibration_curve(hit, evidence.probabilities.max(axis=1), n_bins=10)
    np.testing.assert_allclose(bins["accuracy"], accuracy)
    np.testing.assert_allclose(bins["confidence"], confidence, rtol=1e-6)
    bins = reliability(evidence.probabilities, evidence.labels)
    gap = np.sum(bins["n_clips"] * np.abs(bins["accuracy"] - bins["confidence"])) / bins["n_clips"].sum()
    assert gap == pytest.approx(expected_calibration_error(evidence.probabilities, evidence.labels))
    assert (bins["low"] <= bins["accuracy"]).all() and (bins["accuracy"] <= bins["high"]).all()


def test_wilson_interval_of_a_textbook_case() -> None:
    low, high = wilson_interval(np.array([0.5, 1.0]), np.array([10, 10]))  # Newcombe 1998's formula by hand
    np.testing.assert_allclose(low, [0.2366, 0.7225], atol=1e-4)
    np.testing.assert_allclose(high, [0.7634, 1.0], atol=1e-4)


def test_uncalibrated_probabilities_come_back_in_the_clips_order(made: Made) -> None:
    evidence = load(made.blend)
    found = uncalibrated(evidence, evidence.members[1])
    assert found is not None
    run = read_run(made.runs[1])
    for place in (0, 5, 19):
        logits = run.logits[:, run.clip_ids.tolist().index(evidence.clip_ids[place])].mean(axis=0)
        np.testing.assert_allclose(found[place], scipy.special.softmax(logits), atol=1e-6)


def test_uncalibrated_probabilities_are_none_where_the_run_is_gone(evidence: Evidence) -> None:
    assert uncalibrated(evidence, evidence.members[0]) is None


def member(history: dict[str, list[float]], held_out: dict[str, float] | None = None) -> MemberEvidence:
    columns = {name: np.array(values) for name, values in history.items()}
    metrics = {"folds": {"2": held_out}} if held_out else {}
    return MemberEvidence("a", {}, Path("a"), histories={2: columns}, metrics=metrics)


def test_gap_to_the_held_out_fold_where_epochs_were_fixed() -> None:
    history = {"epoch": [1.0, 2.0], "train_loss": [2.0, 0.8], "train_top1": [0.3, 0.9]}
    (row,) = final_gaps(member(history, {"log_loss": 1.0, "top1": 0.75}))
    assert row["fold"] == 2 and row["epochs"] == 2
    assert row["loss_gap"] == pytest.approx(25.0)
    assert row["top1_gap"] == pytest.approx(15.0)


def test_gap_to_the_selection_split_at_its_best_epoch() -> None:
    history = {
        **{"epoch": [1.0, 2.0, 3.0], "train_loss": [2.0, 1.0, 0.5], "train_top1": [0.3, 0.8, 0.9]},
        **{"selection_loss": [2.1, 1.5, float("nan")], "selection_top1": [0.2, 0.7, float("nan")]},
    }
    (row,) = final_gaps(member(history, {"log_loss": 9.0, "top1": 0.0}))
    assert row["epochs"] == 2
    assert row["loss_gap"] == pytest.approx(50.0)
    assert row["top1_gap"] == pytest.approx(10.0)


def test_gap_is_unknown_where_nothing_was_held_out() -> None:
    (row,) = final_gaps(member({"epoch": [1.0], "train_loss": [2.0]}))
    assert row["loss_gap"] is None and row["top1_gap"] is None
