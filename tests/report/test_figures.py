from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from sklearn.metrics import confusion_matrix, precision_score

from esc_ensemble import report
from esc_ensemble.report import Evidence, load
from esc_ensemble.report.theme import DARK
from tests.conftest import Made
from tests.report.blends import blend_real, made_up, write_made_up

ALL: tuple[Callable[[Evidence], go.Figure], ...] = (
    *(report.scores, report.curves, report.confusion, report.confused_pairs, report.per_class, report.calibration),
    *(report.weights, report.contributions, report.error_correlation, report.front, report.embedding),
)
FRONT = [
    {"members": [{"run": "run 0", "shifts": [0.0]}], "ms": 3.0, "megabytes": 1.0, "top1": 0.6, "log_loss": 1.0},
    {
        "members": [{"run": "run 0", "shifts": [0.0]}, {"run": "run 1", "shifts": [-0.1, 0.0]}],
        **{"ms": 9.0, "megabytes": 2.0, "top1": 0.7, "log_loss": 0.9},
    },
]


def strings(content: Any) -> Iterator[str]:
    """Every text in JSON."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from strings(part)


def words(figure: go.Figure) -> str:
    return " ".join(note.text for note in figure.layout.annotations)


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize(
    "shape",
    [
        {"n_members": 2},
        {"n_members": 1, "n_folds": 1},
        {"n_members": 3, "n_classes": 2, "n_clips": 6, "n_folds": 2},
        {"n_members": 2, "n_classes": 200, "n_clips": 400},
    ],
    ids=["usual", "one member, one fold", "two classes, six clips", "200 classes"],
)
def test_every_figure_of_every_shape_is_a_figure(
    draw: Callable[[Evidence], go.Figure], shape: dict[str, int], tmp_path: Path
) -> None:
    drawn = draw(load(write_made_up(tmp_path / "mix", **made_up(**shape))))
    assert isinstance(drawn, go.Figure)
    content = json.loads(drawn.to_json())
    assert content["layout"]["height"] > 0
    assert len(drawn.to_json()) < 1_500_000


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
def test_no_figure_holds_a_tag_from_a_name(draw: Callable[[Evidence], go.Figure], tmp_path: Path) -> None:
    made = made_up(n_classes=3)
    made["class_names"] = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a & b"]
    members = {"<b>bold</b>": "../gone", "plain": "../gone-too"}
    evidence = load(write_made_up(tmp_path / "mix", **made, members=members, front=FRONT))
    found = list(strings(json.loads(draw(evidence).to_json())))
    tags = {tag for text in found for tag in re.findall(r"<[^>]*>", text)}
    assert tags <= {"<b>", "</b>", "<br>", "<extra>", "</extra>"}
    assert not any("<b>bold" in text for text in found)


def test_every_colour_has_its_dark_one(evidence: Evidence, made: Made, tmp_path: Path) -> None:
    real = load(blend_real(tmp_path / "mix", made.runs, front=FRONT))
    colours: set[str] = set()
    for draw in ALL:
        for each in (evidence, real):
            colours |= set(re.findall(r"#[0-9a-fA-F]{6}\b", draw(each).to_json()))
    assert colours <= set(DARK)
    assert not set(DARK) & set(DARK.values()), "a colour swapped twice would come out wrong"


def test_confusion_shows_counts_and_shares(evidence: Evidence) -> None:
    (heat,) = report.confusion(evidence).data
    expected = confusion_matrix(evidence.labels, evidence.predicted)
    np.testing.assert_array_equal(heat.customdata, expected)
    np.testing.assert_allclose(np.asarray(heat.z), expected / expected.sum(axis=1, keepdims=True), atol=1e-4)


def test_confusion_without_a_mistake(tmp_path: Path) -> None:
    evidence = load(write_made_up(tmp_path / "mix", **made_up(skill=30.0)))
    np.testing.assert_array_equal(np.asarray(report.confusion(evidence).data[0].z), np.eye(4))
    assert words(report.confused_pairs(evidence)) == "No clip was taken for another class."


def test_classes_stand_in_the_order_of_their_scores(evidence: Evidence) -> None:
    drawn = report.per_class(evidence, "precision")
    expected = 100 * precision_score(evidence.labels, evidence.predicted, average=None)
    np.testing.assert_allclose(drawn.data[0].x, np.sort(expected))
    assert [trace.name for trace in drawn.data] == ["blend", "run 0", "run 1"]


def test_scores_and_their_intervals(evidence: Evidence) -> None:
    drawn = report.scores(evidence)
    assert list(drawn.layout.yaxis.ticktext)[-1] == "Tuned weights, cross-fitted"
    dots = {trace.y[0]: trace.x[0] for trace in drawn.data if trace.mode == "markers"}
    chosen = next(row for row in evidence.blend["scores"] if row["name"] == "chosen")
    assert dots[len(dots) - 2] == pytest.approx(100 * chosen["metrics"]["top1"])


def test_weights_show_each_folds_own(evidence: Evidence) -> None:
    bar, dots = report.weights(evidence).data
    np.testing.assert_allclose(bar.x, [200 / 3, 100 / 3])
    assert len(dots.x) == 2 * 3
    np.testing.assert_allclose(np.reshape(dots.x, (3, 2)).sum(axis=1), 100.0)


def test_weights_that_were_not_used_are_shown_as_such(tmp_path: Path) -> None:
    folder = write_made_up(tmp_path / "mix", **made_up(), fallback=True, tuned_weights=[0.9, 0.1])
    assert [trace.name for trace in report.weights(load(folder)).data][-1] == "tuned, not used"


def test_contributions_and_correlations(evidence: Evidence) -> None:
    losses, top1 = report.contributions(evidence).data
    rows = evidence.blend["contributions"]
    np.testing.assert_allclose(losses.x, [row["log_loss"] for row in rows])
    np.testing.assert_allclose(top1.x, [100 * row["top1"] for row in rows])
    (heat,) = report.error_correlation(evidence).data
    errors = evidence.member_probabilities.argmax(axis=2) != evidence.labels
    np.testing.assert_allclose(np.asarray(heat.z), np.corrcoef(errors), atol=1e-4)


def test_a_correlation_that_is_undefined_is_a_dash(tmp_path: Path) -> None:
    table = [[None, None], [None, 1.0]]
    drawn = report.error_correlation(load(write_made_up(tmp_path / "mix", **made_up(), error_correlation=table)))
    assert drawn.data[0].text[0][1] == "–"


def test_front_marks_the_chosen_blend(tmp_path: Path) -> None:
    cost = {"ms": 7.0, "megabytes": 2.0}
    evidence = load(write_made_up(tmp_path / "mix", **made_up(), front=FRONT[::-1], cost=cost))
    line, own = report.front(evidence).data
    assert list(line.x) == [3.0, 9.0]
    assert (own.x[0], own.y[0]) == (7.0, pytest.approx(100 * evidence.chosen["metrics"]["top1"]))
    (line,) = report.front(load(write_made_up(tmp_path / "other", **made_up(), front=FRONT))).data
    assert list(line.x) == [3.0, 9.0]


def test_curves_are_those_of_history(made: Made) -> None:
    evidence = load(made.runs[0])
    drawn = report.curves(evidence)
    assert len(drawn.data) == 4  # loss and top-1 of two folds
    history = evidence.members[0].histories[1]
    np.testing.assert_allclose(drawn.data[0].y, history["train_loss"], atol=1e-4)
    np.testing.assert_allclose(drawn.data[1].y, 100 * history["train_top1"], atol=1e-3)


def test_curves_follow_the_selection_split_where_there_is_one(made: Made, tmp_path: Path) -> None:
    run = tmp_path / "one"
    shutil.copytree(made.runs[0], run)
    rows = ["epoch,train_loss,train_top1,selection_loss,selection_top1", "1,2.0,0.3,2.2,0.2", "2,1.0,0.6,1.9,0.4"]
    (run / "fold-2" / "history.csv").write_text("\n".join(rows))
    drawn = report.curves(load(run))
    strong = [trace for trace in drawn.data if trace.legendgroup == "fold 2" and trace.line.dash == "solid"]
    assert [list(trace.y) for trace in strong] == [[2.2, 1.9], [20.0, 40.0]]
    assert sum(trace.line.dash == "dot" for trace in drawn.data) == 4


def test_curves_of_a_run_without_history_say_so(evidence: Evidence) -> None:
    assert "no training curves" in words(report.curves(evidence))


def test_calibration_before_and_after(made: Made, tmp_path: Path) -> None:
    evidence = load(blend_real(tmp_path / "mix", made.runs))
    names = [trace.name for trace in report.calibration(evidence, "two").data if trace.name]
    assert names == ["before calibration", "calibrated"]


def test_unlabelled_clips_are_in_the_map_and_in_no_score(tmp_path: Path) -> None:
    made = made_up()
    made["labels"][:5] = -1
    evidence = load(write_made_up(tmp_path / "mix", **made))
    assert np.asarray(report.confusion(evidence).data[0].customdata).sum() == 55
    assert [trace.name for trace in report.embedding(evidence).data][-1] == "no label"
