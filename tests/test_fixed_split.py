"""A paper's fixed split: train on folds 1 to 8, select on 9, test on 10, and blend with weights from fold 9 alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from esc_ensemble.__main__ import main
from esc_ensemble.config import DataConfig
from esc_ensemble.data.catalog import load_catalog
from esc_ensemble.data.splits import folds_to_test, split_fold
from esc_ensemble.data.synthetic import make_synthetic
from esc_ensemble.errors import ConfigError, DataError
from esc_ensemble.logits import read_run, write_logits
from esc_ensemble.report import load, write_report
from esc_ensemble.training.crossval import RunOptions, check_run, train_run
from tests.data import layouts
from tests.tiny import tiny_config, write_config

SPLIT = ["--fold", "10", "--data.selection-fold", "9"]


@pytest.fixture(scope="module")
def ten_folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(tmp_path_factory.mktemp("ten") / "set", clips_per_class=20, n_folds=10)


@pytest.fixture(scope="module")
def trained(ten_folds: Path, shared_cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Baseline and model A on the fixed split, and their blend, all by the commands."""
    root = tmp_path_factory.mktemp("fixed")
    over = {"train": {"epochs": 8, "patience": 2, "learning_rate": 0.02}, "data": {"sample_rate": 8000}}
    config = write_config(root / "a.yaml", **over)
    places = ["--data", str(ten_folds), "--runs", str(root / "runs"), "--cache", str(shared_cache_dir)]
    assert main(["baseline", *places, *SPLIT, "--run", "m"]) == 0
    assert main(["train-a", *places, *SPLIT, "--run", "a", "--config", str(config), "--parallel-folds", "1"]) == 0
    folders = ["--runs", str(root / "runs"), "--submissions", str(root / "submissions")]
    assert main(["blend", "a", "m", *folders, "--out", "mix", "--trials", "20", "--bootstrap", "50"]) == 0
    return root


def test_each_part_is_its_fold(trained: Path, ten_folds: Path) -> None:
    catalog = load_catalog(ten_folds)
    for name in ("a", "m"):
        run = read_run(trained / "runs" / name)
        (fold,) = run.folds
        assert fold.fold == 10
        assert set(fold.test.clip_ids) == set(catalog.clip_ids[catalog.folds == 10])
        assert set(fold.selection.clip_ids) == set(catalog.clip_ids[catalog.folds == 9])
        metrics = json.loads((trained / "runs" / name / "metrics.json").read_text())
        assert metrics["protocol"] == "selection on fold 9"
        assert set(metrics["folds"]) == {"10"}
        assert 0.0 <= metrics["folds"]["10"]["selection_top1"] <= 1.0


def test_the_weights_are_those_of_the_best_epoch_on_the_selection(trained: Path) -> None:
    rows = (trained / "runs" / "a" / "fold-10" / "history.csv").read_text().splitlines()
    losses = [float(dict(zip(rows[0].split(","), row.split(","), strict=True))["selection_loss"]) for row in rows[1:]]
    assert min(losses) in losses[-3:]  # patience 2: it ended two epochs after the best one, or at the end
    fold = read_run(trained / "runs" / "a").folds[0]
    shift = int(np.flatnonzero(fold.shifts == 0.0)[0])
    logits = fold.selection.logits[shift].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    loss = -log_p[np.arange(len(log_p)), fold.selection.labels].mean()
    assert loss == pytest.approx(min(losses), abs=2e-3)


def test_the_blend_is_fitted_on_the_selection_alone(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blend = json.loads((trained / "submissions" / "mix" / "blend.json").read_text())
    assert blend["fitted_on"] == "selection"
    # Other labels of the test fold change nothing of the blend but its scores.
    for name in ("a", "m"):
        (fold,) = read_run(trained / "runs" / name).folds
        fold.test.labels[:] = (fold.test.labels + 1) % len(fold.class_names)
        write_logits(trained / "other" / name / "fold-10" / "logits.npz", fold)
    folders = ["--runs", str(trained / "other"), "--submissions", str(trained / "other")]
    assert main(["blend", "a", "m", *folders, "--out", "mix", "--trials", "20", "--bootstrap", "50", "--json"]) == 0
    other = json.loads((trained / "other" / "mix" / "blend.json").read_text())
    for key in ("temperature", "combiner", "fallback", "tuned_weights"):
        assert other[key] == blend[key], key
    for one, two in zip(blend["members"], other["members"], strict=True):
        assert one["weight"] == two["weight"]
        assert one["temperatures"] == two["temperatures"]
    assert other["scores"] != blend["scores"]


def test_the_test_fold_cannot_select_and_patience_needs_a_selection(ten_folds: Path, tmp_path: Path) -> None:
    catalog = load_catalog(ten_folds)
    assert main(["baseline", "--data", str(ten_folds), "--runs", str(tmp_path), "--fold", "9,10", *SPLIT[2:]]) == 2
    with pytest.raises(ConfigError, match=r"data\.selection_fraction.*data\.selection_fold"):
        check_run(tmp_path / "run", tiny_config(train={"patience": 2}), catalog)


def test_a_named_split_brings_its_selection_along(
    tmp_path: Path, shared_cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = load_catalog(layouts.split_folders(tmp_path / "set"))
    config = tiny_config(train={"epochs": 2, "patience": 1}, data={"clip_seconds": 0.5})
    metrics = train_run(tmp_path / "run", config, catalog, RunOptions(cache_dir=shared_cache_dir, n_workers=1))
    assert metrics["protocol"] == "selection on validation"
    assert "run fold 3 (test): " in capsys.readouterr().err
    page = write_report(load(tmp_path / "run"), audio=False).path.read_text(encoding="utf-8")
    assert '<th scope="row">3 (test)</th>' in page
    assert set(metrics["folds"]) == {"3"}
    (fold,) = read_run(tmp_path / "run").folds
    assert {clip.split("/")[0] for clip in fold.test.clip_ids} == {"test"}
    assert {clip.split("/")[0] for clip in fold.selection.clip_ids} == {"val"}


@pytest.mark.parametrize("command", ["baseline", "train-a", "train-a-pro", "compare"])
@pytest.mark.parametrize(
    ("fold", "said"), [(2, "validation selects, and so cannot"), (1, "train is there to train on")]
)
def test_parts_of_a_named_split_that_are_no_test_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, fold: int, said: str
) -> None:
    places = ["--data", str(layouts.split_folders(tmp_path / "set")), "--runs", str(tmp_path / "runs")]
    changes = tmp_path / "changes.yaml"
    changes.write_text("patient: {train: {patience: 1}}\n")
    what = [str(changes)] if command == "compare" else ["--run", "x"]
    assert main([command, *what, *places, "--fold", f"3,{fold}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Without --fold, fold 3 (test) is tested, with selection on fold 2 (validation)" in error
    assert ("--data.selection-fraction 0.15 --fold 2" in error) == (fold == 2)
    assert not list((tmp_path / "runs").glob("*/*"))


def test_the_validation_part_is_tested_where_others_select(tmp_path: Path) -> None:
    catalog = load_catalog(layouts.split_folders(tmp_path / "set"))
    split = split_fold(catalog, 2, DataConfig(selection_fraction=0.4), 0)
    assert set(catalog.folds[split.test].tolist()) == {2}
    assert split.selection.size
    assert set(catalog.folds[split.selection].tolist()) <= {1, 3}
    data = DataConfig(selection_fold=3)
    assert set(catalog.folds[split_fold(catalog, 2, data, 0).train].tolist()) == {1}
    with pytest.raises(DataError, match=r"Without it, fold 3 \(test\) is tested, with selection on fold 2"):
        folds_to_test(catalog, data)


def test_two_named_parts_are_trained_on_and_tested_one_way(tmp_path: Path) -> None:
    catalog = load_catalog(layouts.audiofolder(tmp_path / "two"))
    assert set(catalog.folds[split_fold(catalog, 3, DataConfig(), 0).train].tolist()) == {1}
    with pytest.raises(DataError, match=r"Without --fold, fold 3 \(test\) is tested\."):
        split_fold(catalog, 1, DataConfig(), 0)


def test_tables_name_the_parts_of_a_named_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(layouts.split_folders(tmp_path / "set"))
    places = ["--data", data, "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    assert main(["baseline", *places, "--model.name", "majority"]) == 0
    assert "\n  fold 3 (test) " in capsys.readouterr().out
    assert main(["baseline", *places, "--fold", "7"]) == 2
    assert "Its folds: 1 (train), 2 (validation), 3 (test)." in capsys.readouterr().err
    changes = tmp_path / "changes.yaml"
    changes.write_text("gentle: {train: {learning_rate: 0.01}}\n")
    config = write_config(tmp_path / "a.yaml", data={"clip_seconds": 0.5}, train={"epochs": 1})
    assert main(["compare", str(changes), *places, "--config", str(config)]) == 0
    assert "compare: fold 3 (test) (selection on validation)" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--fold", "--data.selection-fold"])
def test_parts_of_a_split_are_asked_for_by_number(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert main(["train-a", "--data", "x", flag, "test"]) == 2
    assert "the parts of a named split are numbered: train 1, validation 2, test 3" in capsys.readouterr().err
