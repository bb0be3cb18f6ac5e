from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from esc_ensemble.cli.training import _show_run
from esc_ensemble.fold_scores import write_metrics
from esc_ensemble.logits import read_run
from esc_ensemble.metrics import log_loss, softmax
from tests.blend.make_logits import make_labels, make_member, write_run

C = 4
LABELS = make_labels(60, C)
FOLDS = np.arange(60) // C % 3 + 1


def test_selection_scores_are_reported_where_a_fold_has_a_labeled_selection_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logits = make_member(LABELS, C, skill=1.5, seed=0)
    split = make_labels(20, C, 1)
    own = make_member(split, C, skill=1.0, seed=1)
    selection = {1: (own, split), 2: (own, np.full(20, -1)), 3: (own[:, :0], split[:0])}
    run = read_run(write_run(tmp_path / "a", logits, LABELS, FOLDS, selection=selection))
    metrics = write_metrics(tmp_path / "a", run.folds, "selection split")
    assert metrics == json.loads((tmp_path / "a" / "metrics.json").read_text())
    folds = metrics["folds"]
    assert folds["1"]["selection_top1"] == (own[0].argmax(axis=1) == split).mean()
    assert folds["1"]["selection_log_loss"] == pytest.approx(log_loss(softmax(own[0]), split))
    assert "selection_top1" not in folds["2"] | folds["3"]
    assert metrics["mean"]["selection_top1"] == folds["1"]["selection_top1"]
    _show_run(tmp_path / "a", metrics, "fold {}".format, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-2:] == ["selection_top1", "selection_log_loss"]
    assert [len(line.split()) for line in lines[2:5]] == [10, 8, 8]
    assert lines[-1].startswith("Selection scores are optimistic")


def test_a_run_without_a_selection_split_has_no_such_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = read_run(write_run(tmp_path / "a", make_member(LABELS, C, skill=1.5, seed=0), LABELS, FOLDS))
    _show_run(tmp_path / "a", write_metrics(tmp_path / "a", run.folds, "epochs fixed"), "fold {}".format, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-1] == "top1_tta" and lines[-1].split()[0] == "mean"
