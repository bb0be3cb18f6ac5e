from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esc_ensemble.blend import ensemble, output
from esc_ensemble.blend.combine import COMBINERS
from esc_ensemble.blend.costs import Cost
from esc_ensemble.blend.ensemble import blend_runs
from esc_ensemble.config import BlendConfig
from esc_ensemble.errors import ConfigError, LogitsError, WorkError
from esc_ensemble.report import load, write_report
from esc_ensemble.settings import build, config_hash
from tests.blend.make_logits import SHIFTS, make_labels, make_member, write_run

N, C, K = 300, 5, 3
LABELS = make_labels(N, C)
FOLDS = np.arange(N) // C % K + 1
CONFIG = BlendConfig(trials=20, bootstrap=200)


def _write(tmp_path: Path, name: str, *, skill: float = 1.5, seed: int = 0, **options: Any) -> Path:
    n_shifts = len(options.get("shifts", (0.0,)))
    logits = make_member(LABELS, C, skill=skill, seed=seed, n_shifts=n_shifts, shift_noise=0.5)
    return write_run(tmp_path / "runs" / name, logits, LABELS, FOLDS, **options)


@pytest.fixture
def runs(tmp_path):
    return [_write(tmp_path, name, skill=skill, seed=seed) for seed, (name, skill) in enumerate(
        (("strong", 2.0), ("middle", 1.5), ("weak", 0.1))
    )]  # fmt: skip


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_blend_writes_its_files(runs, tmp_path):
    out = tmp_path / "submissions" / "first"
    result = blend_runs(runs, CONFIG, out)
    assert sorted(path.name for path in out.iterdir()) == ["blend.json", "oof.csv", "oof.npz"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["first"]

    blend = json.loads((out / "blend.json").read_text(encoding="utf-8"))
    assert blend["schema"] == 2 and blend["combiner"] in COMBINERS and blend["tta"] is False
    assert blend["dataset_fingerprint"] == "data1" and len(blend["class_names"]) == C
    assert [member["run"] for member in blend["members"]] == ["strong", "middle", "weak"]
    member = blend["members"][0]
    assert member["path"] == "../../runs/strong" and member["config_hash"] == "conf1"
    assert member["folds"] == [1, 2, 3] and set(member["temperatures"]) == {"1", "2", "3"}
    assert member["temperature_from"] == "cross-fit" and member["shifts"] == [0.0]
    assert sum(member["weight"] for member in blend["members"]) == pytest.approx(1.0)
    names = [row["name"] for row in blend["scores"]]
    assert names == [
        "tuned_cross_fitted", "chosen", "uniform", "tuned_in_sample",
        "member:strong", "member:middle", "member:weak",
    ]  # fmt: skip
    for row in blend["scores"]:
        assert row["cross_fitted"] == (row["name"] != "tuned_in_sample")
        assert row["top1_interval"][0] <= row["metrics"]["top1"] <= row["top1_interval"][1]
        assert set(row["by_fold"]) == {"1", "2", "3"} and set(row["over_folds"]["top1"]) == {"mean", "std"}
    assert result.probabilities.shape == (N, C)
    assert str(tmp_path) not in (out / "blend.json").read_text(encoding="utf-8")


def test_tables_hold_the_cross_fitted_predictions(runs, tmp_path):
    result = blend_runs(runs, CONFIG, tmp_path / "out")
    names = result.members.class_names
    rows = _rows(tmp_path / "out" / "oof.csv")
    assert list(rows[0]) == [
        "clip_id", "fold", "true", "strong", "middle", "weak",
        "top1", "top1_probability", "top2", "top2_probability", "top3", "top3_probability",
    ]  # fmt: skip
    assert [row["clip_id"] for row in rows] == [f"clip-{n:05d}.wav" for n in range(N)]
    assert [row["true"] for row in rows] == [names[label] for label in LABELS]
    assert [int(row["fold"]) for row in rows] == FOLDS.tolist()
    hits = np.mean([row["top1"] == row["true"] for row in rows])
    assert hits == pytest.approx(next(row for row in result.scores if row.name == "chosen").metrics["top1"])
    strong = np.mean([row["strong"] == row["true"] for row in rows])
    assert strong == pytest.approx(result.scores[-3].metrics["top1"])
    first = result.probabilities[0]
    assert [rows[0][f"top{rank}"] for rank in (1, 2, 3)] == [names[c] for c in np.argsort(-first)[:3]]
    assert float(rows[0]["top1_probability"]) == pytest.approx(first.max(), abs=1e-6)


@pytest.fixture
def copies(tmp_path):
    """One good member and four near copies of a weak one, which equal weights count four times."""
    weak = make_member(LABELS, C, skill=0.8, seed=5)
    runs = [_write(tmp_path, "strong", skill=2.0)]
    for seed in range(4):
        noise = 0.05 * np.random.default_rng(seed).standard_normal(weak.shape).astype(np.float32)
        runs.append(write_run(tmp_path / "runs" / f"copy-{seed}", weak + noise, LABELS, FOLDS))
    return runs


def test_copies_share_their_weight_and_the_gain_is_kept(copies, tmp_path):
    result = blend_runs(copies, CONFIG, tmp_path / "out")
    scores = {row.name: row.metrics["log_loss"] for row in result.scores}
    assert not result.fallback and result.reason.startswith("Tuned weights: cross-fitted gain in log loss")
    assert result.weights[0] > 0.4
    assert scores["chosen"] == scores["tuned_cross_fitted"] < scores["uniform"]
    assert scores["tuned_in_sample"] < scores["tuned_cross_fitted"]
    assert scores["chosen"] < min(scores["member:strong"], scores["member:copy-0"])
    # Copies err alike, and none of them is missed.
    assert result.correlation[1, 2] > 0.8 > result.correlation[0, 1]
    lost = {item.run: item.loss.log_loss for item in result.contributions}
    assert lost["strong"] < -0.2 and abs(lost["copy-0"]) < 0.02
    against = result.comparisons["member:copy-0"]
    assert against.top1_interval[0] > 0.0 and against.log_loss_interval[1] < 0.0 and against.mcnemar_p < 1e-6


def test_equal_members_fall_back_to_equal_weights(tmp_path):
    runs = [_write(tmp_path, name, seed=seed) for seed, name in enumerate("abc")]
    result = blend_runs(runs, CONFIG, tmp_path / "out")
    assert result.fallback and "does not beat them by more than its noise" in result.reason
    np.testing.assert_allclose(result.weights, 1 / 3)
    assert (result.tuned.weights != result.weights).any()
    scores = {row.name: row.metrics for row in result.scores}
    assert scores["chosen"] == scores["uniform"]
    blend = json.loads((tmp_path / "out" / "blend.json").read_text(encoding="utf-8"))
    assert blend["fallback"] is True and blend["reason"] == result.reason
    assert [member["weight"] for member in blend["members"]] == pytest.approx([1 / 3] * 3)


def test_same_seed_gives_the_same_bytes(runs, tmp_path):
    for name in ("a", "b"):
        blend_runs(runs, CONFIG, tmp_path / name / "blend")
    for name in output.FILES:
        assert (tmp_path / "a" / "blend" / name).read_bytes() == (tmp_path / "b" / "blend" / name).read_bytes()


def test_one_run_is_a_blend(tmp_path):
    result = blend_runs([_write(tmp_path, "only")], CONFIG, tmp_path / "out")
    assert result.weights.tolist() == [1.0] and not result.fallback
    scores = {row.name: row.metrics["log_loss"] for row in result.scores}
    assert scores["tuned_cross_fitted"] == scores["uniform"] == pytest.approx(scores["member:only"], rel=1e-5)


def test_equal_weights_as_asked_for_are_told_once(runs, tmp_path):
    asked = CONFIG.model_copy(update={"method": "uniform"})
    result = blend_runs(runs, asked, tmp_path / "out")
    tuned = {row.name: row for row in blend_runs(runs, CONFIG, tmp_path / "tuned").scores}
    by_name = {row.name: row for row in result.scores}
    assert list(by_name) == ["chosen", "tuned_in_sample", "member:strong", "member:middle", "member:weak"]
    assert by_name["chosen"].metrics == tuned["uniform"].metrics
    assert not [row.title for row in result.scores if "Tuned" in row.title or "Chosen" in row.title]
    assert list(result.comparisons) == ["member:strong", "member:middle", "member:weak"]
    assert "tuned in each fold" not in result.member_table()[0]


@pytest.mark.parametrize(("method", "tries"), [("optuna", True), ("nelder-mead", True), ("lbfgs", False)])
def test_trials_are_shown_where_there_are_some(runs, tmp_path, capsys, method, tries):
    blend_runs(runs, CONFIG.model_copy(update={"method": method}), tmp_path / "out")
    assert ("trials" in capsys.readouterr().err) == tries


def test_one_fold_cannot_be_cross_fitted(tmp_path):
    runs = [_write(tmp_path, name, seed=seed, folds=[2]) for seed, name in enumerate("ab")]
    result = blend_runs(runs, CONFIG, tmp_path / "out")
    assert result.fallback and "one fold only" in result.reason and result.weights.tolist() == [0.5, 0.5]
    assert len(result.members.clip_ids) == (FOLDS == 2).sum()
    titles = {row.name: row.title for row in result.scores}
    assert list(titles) == ["chosen", "tuned_in_sample", "member:a", "member:b"]
    assert titles["chosen"] == "Equal weights"
    header, rows = result.member_table()
    assert not [name for name in header if "tuned" in name]
    assert {row[header.index("from")] for row in rows} == {"the test fold"}
    blend = json.loads((tmp_path / "out" / "blend.json").read_text(encoding="utf-8"))
    assert blend["fold_weights"] == {}
    page = write_report(load(tmp_path / "out"), audio=False).path.read_text(encoding="utf-8")
    body = page[page.index("<main") : page.index("</main>")]
    assert "cross-fitted" not in body and "left out. Rings" not in body and "on the test fold" in body


def test_tta_scores_every_row_with_all_shifts(tmp_path):
    runs = [_write(tmp_path, "a", seed=1, shifts=SHIFTS), _write(tmp_path, "b", seed=2)]
    plain = {row.name: row for row in blend_runs(runs, CONFIG, tmp_path / "plain").scores}
    result = blend_runs(runs, CONFIG.model_copy(update={"tta": True}), tmp_path / "tta")
    scores = {row.name: row for row in result.scores}
    assert scores["uniform_no_tta"].metrics == plain["uniform"].metrics
    assert scores["member:a"].metrics["log_loss"] < plain["member:a"].metrics["log_loss"]
    assert scores["member:b"].metrics == plain["member:b"].metrics
    members = json.loads((tmp_path / "tta" / "blend.json").read_text(encoding="utf-8"))["members"]
    assert [member["shifts"] for member in members] == [[-0.1, 0.0, 0.1], [0.0]]


def test_selection_split_gives_the_temperatures(tmp_path):
    selection = {}
    for fold in (1, 2, 3):
        labels = make_labels(1000, C, fold)
        selection[fold] = (make_member(labels, C, skill=1.5, seed=fold, temperature=fold), labels)
    runs = [_write(tmp_path, "a", selection=selection), _write(tmp_path, "b", seed=5)]
    result = blend_runs(runs, CONFIG, tmp_path / "out")
    assert result.from_selection == (True, False)
    np.testing.assert_allclose(result.temperatures[0], [1, 2, 3], rtol=0.15)
    assert len(set(result.temperatures[1])) == 1
    members = json.loads((tmp_path / "out" / "blend.json").read_text(encoding="utf-8"))["members"]
    assert [member["temperature_from"] for member in members] == ["selection", "cross-fit"]


def test_selection_scores_of_several_folds_are_those_of_members(tmp_path):
    selection = {}
    for fold in (1, 2, 3):
        labels = make_labels(100, C, fold)
        selection[fold] = (make_member(labels, C, skill=1.5, seed=fold), labels)
    runs = [_write(tmp_path, "a", selection=selection), _write(tmp_path, "b", seed=5)]
    result = blend_runs(runs, CONFIG, tmp_path / "out")
    scores = {row.name: row.selection for row in result.scores}
    top1 = np.mean([(logits[0].argmax(axis=1) == labels).mean() for logits, labels in selection.values()])
    assert scores.pop("member:a")["selection_top1"] == pytest.approx(top1)
    assert set(map(str, scores.values())) == {"{}"}  # what of the blend was fitted on no selection split
    assert result.members.fitted_on == "other folds" and "weights" not in result.selection_note
    assert result.score_table()[0][-2:] == ["selection top-1", "selection log loss"]
    assert blend_runs(runs[1:], CONFIG, tmp_path / "b").selection_note == ""


def test_unlabelled_clips_are_predicted_but_not_scored(tmp_path):
    labels = np.where(np.arange(N) < 30, -1, LABELS)
    logits = make_member(LABELS, C, skill=1.5, seed=0)
    run = write_run(tmp_path / "runs" / "a", logits, labels, FOLDS)
    blend_runs([run], CONFIG, tmp_path / "out")
    rows = _rows(tmp_path / "out" / "oof.csv")
    assert len(rows) == N and rows[0]["true"] == "" and rows[0]["top1"] and rows[30]["true"]
    with pytest.raises(LogitsError, match="no clip has a label"):
        nothing = write_run(tmp_path / "runs" / "b", logits, np.full(N, -1), FOLDS)
        blend_runs([nothing], CONFIG, tmp_path / "none")


def test_clip_order_of_a_run_does_not_matter(tmp_path):
    logits = make_member(LABELS, C, skill=1.5, seed=1)
    order = np.random.default_rng(0).permutation(N)
    ids = np.array([f"clip-{n:05d}.wav" for n in range(N)])
    other = _write(tmp_path, "other", seed=2)
    straight = write_run(tmp_path / "runs" / "x", logits, LABELS, FOLDS)
    mixed = write_run(
        tmp_path / "mixed" / "x", logits[:, order], LABELS[order], FOLDS[order], clip_ids=ids[order].tolist()
    )
    one = blend_runs([other, straight], CONFIG, tmp_path / "one")
    two = blend_runs([other, mixed], CONFIG, tmp_path / "two")
    np.testing.assert_array_equal(one.probabilities, two.probabilities)


def test_sources_of_any_run_count(tmp_path):
    sources = np.array([f"recording {n // 20}" for n in range(N)])
    runs = [_write(tmp_path, "foreign"), _write(tmp_path, "ours", seed=1, sources=sources)]
    result = blend_runs(runs, CONFIG, tmp_path / "out")
    assert result.members.sources.tolist() == sources.tolist()


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "other data": ({"fingerprint": "data2"}, "different data.*dataset fingerprint data1.*fingerprint data2"),
    "class order": (
        {"class_names": [f"class {n}" for n in (1, 0, 2, 3, 4)]},
        r"other/fold-1/logits\.npz and .*first/fold-1/logits\.npz have the same classes in another order",
    ),
    "class names": (
        {"class_names": ["dog", *(f"class {n}" for n in range(1, C))]},
        "do not both have: class 0, dog",
    ),
    "missing folds": ({"folds": [2]}, "lacks fold 1,3. Finish it: esc-ens train-a --data DIR --run other --fold 1,3"),
    "clips": (
        {"clip_ids": ["new.wav", *(f"clip-{n:05d}.wav" for n in range(1, N))]},
        r"do not both have clip clip-00000\.wav, new\.wav",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_runs_that_do_not_fit_are_refused(name, tmp_path):
    options, said = REFUSALS[name]
    first = _write(tmp_path, "first")
    other = _write(tmp_path, "other", **options)
    with pytest.raises(LogitsError, match=f"(?s){said}"):
        blend_runs([first, other], CONFIG, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["fold", "label"])
def test_same_clip_with_another_fold_or_label_is_refused(what, tmp_path):
    first = _write(tmp_path, "first")
    labels, folds = LABELS.copy(), FOLDS.copy()
    if what == "fold":
        folds[7] = folds[7] % K + 1
    else:
        labels[7] = (labels[7] + 1) % C
    other = write_run(tmp_path / "runs" / "other", make_member(LABELS, C, skill=1, seed=0), labels, folds)
    with pytest.raises(LogitsError, match=rf"another {what} to clip clip-00007\.wav"):
        blend_runs([first, other], CONFIG, tmp_path / "out")


def test_run_given_twice_is_refused(tmp_path):
    run = _write(tmp_path, "first")
    with pytest.raises(LogitsError, match='run "first" is given 2 times'):
        blend_runs([run, run], CONFIG, tmp_path / "out")


def test_no_runs_and_runs_without_logits_say_what_to_type(tmp_path):
    with pytest.raises(LogitsError, match="esc-ens blend RUN"):
        blend_runs([], CONFIG, tmp_path / "out")
    (tmp_path / "bare").mkdir()
    with pytest.raises(LogitsError, match="esc-ens train-a --run bare"):
        blend_runs([tmp_path / "bare"], CONFIG, tmp_path / "out")


def test_failure_leaves_nothing_half_written(runs, tmp_path, monkeypatch):
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise WorkError("no space")

    out = tmp_path / "submissions" / "blend"
    with monkeypatch.context() as patch:
        patch.setattr(output, "oof_arrays", fail)
        with pytest.raises(WorkError, match="no space"):
            blend_runs(runs, CONFIG, out)
    assert list(out.parent.iterdir()) == []

    blend_runs(runs, CONFIG, out)
    (out / "report.html").write_text("kept")
    (out / "submission.csv").write_text("kept too")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(output, "oof_arrays", fail)
        with pytest.raises(WorkError, match="no space"):
            blend_runs(runs[:2], CONFIG, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    blend_runs(runs[:2], CONFIG, out)
    assert len(json.loads((out / "blend.json").read_text(encoding="utf-8"))["members"]) == 2
    assert (out / "report.html").read_text() == "kept"


def test_folder_that_cannot_be_written_is_one_message(runs, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(WorkError, match="Cannot write"):
            blend_runs(runs, CONFIG, out)


def test_error_objective_and_arithmetic_mean(runs, tmp_path):
    config = CONFIG.model_copy(update={"objective": "error", "combiner": "arithmetic"})
    result = blend_runs(runs, config, tmp_path / "out")
    assert "error" in result.reason and result.mixture.combiner == "arithmetic"
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1.0, rtol=1e-5)


def test_config_has_its_defaults():
    assert BlendConfig().model_dump() == {
        "method": "optuna", "combiner": "auto", "objective": "log_loss", "trials": 300, "l2": 10.0,
        "tta": False, "tta_weights": "tuned", "shifts": (), "member_shifts": {},
        "max_ms": 0.0, "max_mb": 0.0, "seed": 0, "bootstrap": 1000, "storage": "",
    }  # fmt: skip
    assert config_hash(BlendConfig()) != config_hash(BlendConfig(seed=1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "lbfgs", "objective": "error"}, "method lbfgs follows the slope of the log loss"),
        ({"method": "logistic", "combiner": "rank"}, "combiner must be geometric, not rank"),
        ({"method": "greedy", "storage": "x.journal"}, "storage is for Optuna's studies"),
        ({"shifts": [0.0]}, "set tta"),
        ({"tta": True, "shifts": [0.0, 0.0]}, "shifts hold a value twice"),
        ({"tta": True, "member_shifts": {"a": "0,0.1,0"}}, "shifts of a hold a value twice"),
        ({"tta": True, "member_shifts": {"a": "0,b"}}, "must be a number"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        build(BlendConfig, settings, "The settings")


def test_tables_name_what_stands_in_them(copies, tmp_path):
    result = blend_runs(copies[:3], CONFIG, tmp_path / "out")
    for header, rows in (result.score_table(), result.comparison_table(), result.member_table()):
        assert {len(row) for row in rows} == {len(header)}
    assert [row[0] for row in result.comparison_table()[1]] == ["Equal weights", "strong", "copy-0", "copy-1"]
    assert result.best_member == "strong"
    assert [row[0] for row in result.score_table()[1]][-3:] == ["strong (best member)", "copy-0", "copy-1"]


def test_arrays_of_predictions_are_kept_without_pickle(runs, tmp_path):
    result = blend_runs(runs, CONFIG, tmp_path / "out")
    with np.load(tmp_path / "out" / "oof.npz", allow_pickle=False) as arrays:
        assert arrays["clip_ids"].tolist() == result.members.clip_ids.tolist()
        np.testing.assert_array_equal(arrays["labels"], LABELS)
        np.testing.assert_array_equal(arrays["folds"], FOLDS)
        np.testing.assert_allclose(arrays["probabilities"], result.probabilities)
        assert arrays["member_probabilities"].shape == (3, N, C)
        np.testing.assert_allclose(arrays["member_probabilities"].sum(axis=2), 1.0, atol=1e-5)


def test_costs_bring_a_front_and_limits_are_kept(runs, tmp_path):
    costs = dict(zip(runs, (Cost(10.0, 4.0), Cost(3.0, 1.0), Cost(1.0, 1.0)), strict=True))
    out = tmp_path / "out"
    result = blend_runs(runs, CONFIG, out, costs)
    assert (out / "front.png").read_bytes().startswith(b"\x89PNG")
    blend = json.loads((out / "blend.json").read_text(encoding="utf-8"))
    prices = [point["ms"] for point in blend["front"]]
    assert (
        result.cost is not None
        and prices == sorted(prices)
        and blend["front"][-1]["ms"] == blend["cost"]["ms"] == result.cost.ms
    )
    limited = blend_runs(runs, CONFIG.model_copy(update={"max_ms": 5.0}), out, costs)
    assert limited.weights[0] == 0.0 and limited.cost is not None and limited.cost.ms <= 5.0
    assert (limited.fold_weights[:, 0] == 0.0).all()  # chosen anew in each fold
    small = blend_runs(runs, CONFIG.model_copy(update={"max_mb": 4.5}), out, costs)
    assert small.cost is not None and small.cost.megabytes <= 4.5
    with pytest.raises(LogitsError, match=r"No member keeps within max_ms 0\.5.*takes 1 ms and 1 MB"):
        blend_runs(runs, CONFIG.model_copy(update={"max_ms": 0.5}), out, costs)
    with pytest.raises(LogitsError, match="what the members cost is not known"):
        blend_runs(runs, CONFIG.model_copy(update={"max_ms": 5.0}), out)
    # Without costs there is no front, and none is left from before.
    blend_runs(runs, CONFIG, out)
    assert not (out / "front.png").exists()
    assert json.loads((out / "blend.json").read_text(encoding="utf-8"))["front"] is None


def test_a_member_that_knows_a_folds_labels_is_named(tmp_path):
    honest = [_write(tmp_path, name, skill=1.8, seed=seed) for seed, name in enumerate("abc")]
    logits = make_member(LABELS, C, skill=1.8, seed=7)
    logits[:, FOLDS == 1] += 6 * np.eye(C, dtype=np.float32)[LABELS[FOLDS == 1]]
    leaky = write_run(tmp_path / "runs" / "leaky", logits, LABELS, FOLDS)
    clean = blend_runs(honest, CONFIG, tmp_path / "clean")
    assert clean.warnings == ()
    found = blend_runs([*honest, leaky], CONFIG, tmp_path / "out")
    assert any("leaky is better on fold 1" in warning for warning in found.warnings)
    assert json.loads((tmp_path / "out" / "blend.json").read_text(encoding="utf-8"))["warnings"] == list(found.warnings)


def test_a_fold_that_is_missing_in_the_middle_is_told(tmp_path):
    run = _write(tmp_path, "a", folds=[1, 3])
    (warning,) = blend_runs([run], CONFIG, tmp_path / "out").warnings
    assert warning.startswith("Fold 2 is missing: its clips are in no score.")


def test_a_place_that_cannot_be_written_is_found_before_the_search(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble, "fit_runs", lambda *_args, **_kwargs: pytest.fail("a search was made"))
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match=r"it is a file. Choose another name with --out"):
        blend_runs(runs, CONFIG, tmp_path / "file")
    with pytest.raises(WorkError, match=r"Cannot write .*--submissions"):
        blend_runs(runs, CONFIG, tmp_path / "file" / "below")


def test_summary_names_combiner_and_cost(runs, tmp_path):
    costs = dict.fromkeys(runs, Cost(2.0, 1.0))
    config = CONFIG.model_copy(update={"method": "uniform", "combiner": "rank"})
    text = blend_runs(runs, config, tmp_path / "out", costs).summary()
    assert text.startswith("Rank mean, temperature ") and text.endswith(" 6 ms a clip with all its shifts, 3 MB.")
