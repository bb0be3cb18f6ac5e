"""Controlled comparisons."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esc_ensemble import compare
from esc_ensemble.__main__ import main
from esc_ensemble.blend.calibrate import fit_temperature
from esc_ensemble.compare import BASE, _by_clip, heard, judge, plan, plot
from esc_ensemble.config import TrainAConfig
from esc_ensemble.errors import ConfigError, DiskError
from esc_ensemble.files import folder_lock
from esc_ensemble.logits import RunLogits, read_run
from esc_ensemble.metrics import clip_losses, softmax
from esc_ensemble.settings import to_yaml
from esc_ensemble.training import crossval
from tests.conftest import Made
from tests.tiny import SETTINGS, write_config


def test_a_plan_is_the_base_and_single_changes_of_it_for_every_seed() -> None:
    changes = {"no mixup": {"mix": {"mixup": 0.0}}, "short": {"train": {"epochs": 1}}}
    found = plan(TrainAConfig, SETTINGS, changes, (0, 5))
    assert list(found) == [BASE, "no mixup", "short"]
    assert [[config.seed for config in configs] for configs in found.values()] == [[0, 5]] * 3
    assert [configs[0].mix.mixup for configs in found.values()] == [0.5, 0.0, 0.5]
    assert [configs[0].train.epochs for configs in found.values()] == [2, 2, 1]
    assert found["no mixup"][0].data == found[BASE][0].data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": 3}, "must be a group of settings"),
        ({"x": {}}, "must be a group of settings"),
        ({"x": {"mix": {"mixup": 0.5}}}, "changes nothing"),
        ({"x": {"mix": {"mixxup": 1.0}}}, 'The change "x".*mixxup'),
        ({"a b": {"mix": {"mixup": 0.1}}, "a-b": {"mix": {"mixup": 0.2}}}, "same folder"),
        ({"x": {"seed": 3}}, "seeds are given with --seeds"),
        ({"Base": {"mix": {"mixup": 0.0}}}, "name of the base"),
        ({"base": {"mix": {"mixup": 0.0}}}, "name of the base"),
        ({1: {"mix": {"mixup": 0.0}}}, "read as 1, no text: put quotes"),
        ({False: {"mix": {"mixup": 0.0}}}, "read as False, no text: put quotes"),
        ({"mix": {"mixup": 0.0}, "seed": 3}, "mix, seed are settings, not changes"),
        ({"x": {"mix": 3}}, 'The change "x" cannot be used:.*mix: must be a group'),
        ({"x": {"data": 3}}, 'The change "x" does not fit the base: "data" is given twice, as 3'),
        ({"混合": {"mix": {"mixup": 0.0}}}, "Latin letter"),
        ({}, "no change to compare"),
        ({"x": 3, "y": {"mix": {"mixup": 0.5}}, "z": {"mix": {"q": 1}}}, '"x" must.*"y" changes nothing.*"z".*q'),
    ],
)
def test_changes_that_cannot_be_compared_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        plan(TrainAConfig, SETTINGS, changes, (0,))


def test_a_base_that_cannot_be_built_is_named_by_its_file() -> None:
    with pytest.raises(ConfigError, match=r"(?s)my\.yaml.*epochs"):
        plan(TrainAConfig, {"train": {"epochs": 0}}, {"x": {"mix": {"mixup": 0.0}}}, (0,), "my.yaml")


def test_a_seed_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="one twice"):
        plan(TrainAConfig, SETTINGS, {"x": {"mix": {"mixup": 0.0}}}, (0, 1, 0))


def right(run: RunLogits, part: np.ndarray) -> RunLogits:
    """The run with the clips of `part` surely right and all others surely wrong."""
    labels = np.where(part, run.labels, (run.labels + 1) % len(run.class_names))
    logits = 20.0 * np.eye(len(run.class_names), dtype=np.float32)[labels]
    return replace(run, logits=np.repeat(logits[None], len(run.shifts), axis=0))


def test_differences_are_paired_clip_by_clip_and_resampled_by_source(made: Made) -> None:
    run = read_run(made.runs[0])
    number = np.arange(len(run.labels))
    base, better = right(run, number % 2 == 0), right(run, number % 4 != 3)
    row = judge("better", [better, better], [base, base], run.fold_numbers)
    assert row.top1 == pytest.approx(0.75, abs=0.02)
    assert row.top1_gain == pytest.approx(0.25, abs=0.02)
    assert row.top1_interval[0] < row.top1_gain < row.top1_interval[1]
    assert row.log_loss_gain < 0
    assert row.seed_std == 0.0
    same = judge("same", [base], [base], run.fold_numbers)
    assert (same.top1_gain, same.top1_interval, same.log_loss_interval) == (0.0, (0.0, 0.0), (0.0, 0.0))


def test_log_losses_are_those_after_a_temperature_from_the_other_folds(made: Made) -> None:
    run = read_run(made.runs[0])
    unsure = replace(run, logits=0.2 * run.logits)
    assert judge("unsure", [unsure], [run], run.fold_numbers).log_loss_gain == pytest.approx(0.0, abs=1e-5)
    alone = judge("unsure", [unsure], [run], run.fold_numbers[:1])
    assert abs(alone.log_loss_gain) > 0.01  # no other fold, no temperature
    two = run.fold_numbers[:2]
    losses = []
    for fold, other in (two, two[::-1]):
        here, there = run.fold_of_clip == fold, run.fold_of_clip == other
        temperature = fit_temperature(run.logits[0, there], run.labels[there])
        losses.append(clip_losses(softmax(run.logits[0, here].astype(float) / temperature), run.labels[here]))
    assert judge("x", [run], [run], two).log_loss == pytest.approx(np.concatenate(losses).mean())


def test_a_source_in_two_folds_chooses_no_temperature_for_itself(made: Made) -> None:
    run = read_run(made.runs[0])
    sources = run.sources.copy()
    here, there = (np.flatnonzero(run.fold_of_clip == fold) for fold in run.fold_numbers[:2])
    sources[there[:5]] = sources[here[0]]
    both = replace(run, sources=sources)
    wrong = run.logits.copy()
    wrong[:, there[:5]] *= -5.0
    first = run.fold_numbers[:2]
    clean, misled = (_by_clip([each], first)[1][0, : len(here)] for each in (both, replace(both, logits=wrong)))
    np.testing.assert_array_equal(clean, misled)


def test_the_spread_over_seeds_is_told(made: Made) -> None:
    run = read_run(made.runs[0])
    number = np.arange(len(run.labels))
    row = judge("x", [right(run, number >= 0), right(run, number < 0)], [run, run], run.fold_numbers)
    assert row.top1 == 0.5
    assert row.seed_std == pytest.approx(0.5**0.5)
    assert judge("x", [run], [run], run.fold_numbers).cells()[2] == ""  # one seed tells no spread


def test_only_the_folds_asked_for_are_judged(made: Made) -> None:
    run = read_run(made.runs[0])
    first = right(run, run.fold_of_clip == run.fold_numbers[0])
    assert judge("x", [first], [run], run.fold_numbers[:1]).top1 == 1.0
    assert judge("x", [first], [run], run.fold_numbers[1:]).top1 == 0.0


def test_windows_are_judged_by_the_mean_over_their_crops(made: Made) -> None:
    run = read_run(made.runs[0])
    centre = run.shifts == 0.0
    np.testing.assert_array_equal(heard(run, TrainAConfig()).logits, run.logits[centre])
    windows = TrainAConfig.model_validate({"data": {"window_seconds": 1.0}})
    np.testing.assert_allclose(heard(run, windows).logits[0], run.logits.mean(axis=0))


@pytest.fixture
def comparison(synthetic_dir: Path, tmp_path: Path, shared_cache_dir: Path) -> Callable[..., list[str]]:
    """Writes a file of changes and gives the command, with a small base and its runs below `tmp_path`."""

    def write(changes: str, folds: str = "1") -> list[str]:
        (tmp_path / "changes.yaml").write_text(changes)
        config, runs = write_config(tmp_path / "c.yaml"), tmp_path / "runs"
        given = {"data": synthetic_dir, "config": config, "runs": runs, "fold": folds, "cache": shared_cache_dir}
        return ["compare", str(tmp_path / "changes.yaml"), *(f"--{name}={value}" for name, value in given.items())]

    return write


def test_the_command_trains_compares_and_resumes(
    comparison: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "no mixup:\n  mix: {mixup: 0.0}\n"
    command = [*comparison(text, "1,2"), "--json"]
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)
    folder = tmp_path / "runs" / "compare"
    assert [row["name"] for row in printed] == [BASE, "no mixup"]
    assert printed[1]["top1_gain"] == pytest.approx(printed[1]["top1"] - printed[0]["top1"])
    assert (folder / "compare.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["log_loss_gain_low"]) <= float(rows[1]["log_loss_gain"])
    assert (folder / "no-mixup-seed0" / "fold-2" / "logits.npz").exists()

    comparison(text + "one epoch:\n  train: {epochs: 1}\n")
    assert main(command) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)[:2] == printed
    assert "base-seed0 fold 1: done already" in out.err
    assert main(command[:-1]) == 0
    table = capsys.readouterr().out
    assert "no mixup" in table
    assert "compare.png" in table


def test_a_change_that_diverges_is_left_out_and_told_at_the_end(
    comparison: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = comparison("wild:\n  train: {learning_rate: 1.0e+30, clip_norm: 0.0}\nno mixup:\n  mix: {mixup: 0.0}\n")
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "no mixup" in printed.out
    assert "wild" not in printed.out
    assert "wild: " in printed.err
    assert "learning_rate" in printed.err
    rows = json.loads((tmp_path / "runs" / "compare" / "compare.json").read_text())
    assert [row["name"] for row in rows] == [BASE, "no mixup"]


def test_a_full_disk_ends_a_comparison(
    comparison: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []
    train_run = crossval.train_run

    def fill(run_dir: Path, *rest: Any) -> Any:
        trained.append(run_dir.name)
        if len(trained) > 1:
            raise DiskError("No space left.")
        return train_run(run_dir, *rest)

    monkeypatch.setattr(compare, "train_run", fill)
    assert main(comparison("x:\n  mix: {mixup: 0.0}\ny:\n  mix: {mixup: 0.1}\n")) == 1
    assert trained == ["base-seed0", "x-seed0"]
    assert "No space left" in capsys.readouterr().err


def test_a_plot_of_many_long_names_is_drawn(made: Made, tmp_path: Path) -> None:
    run = read_run(made.runs[0])
    row = judge(BASE, [run], [run], run.fold_numbers)
    plot(tmp_path / "plot.png", [row, *(replace(row, name=f"a rather long name of a change {n}") for n in range(20))])
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_a_change_edited_under_its_old_name_is_refused_before_anything_is_trained(
    comparison: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = comparison("new:\n  mix: {mixup: 0.0}\nold:\n  mix: {mixup: 0.1}\n")
    folder = tmp_path / "runs" / "compare"
    old = TrainAConfig.model_validate(SETTINGS | {"mix": {"mixup": 0.2}})
    (folder / "old-seed0" / "fold-1").mkdir(parents=True)
    (folder / "old-seed0" / "config.yaml").write_text(to_yaml(old))
    (folder / "old-seed0" / "manifest.json").write_text('{"config_hash": "another"}')
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "old: " in message
    assert "mix.mixup: 0.2 there, 0.1 asked for" in message
    assert "rename the change" in message
    assert not (folder / "base-seed0").exists()


def test_a_change_that_cannot_run_here_is_told_at_the_end(
    comparison: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    assert main(comparison("on a GPU:\n  train: {device: cuda}\nno mixup:\n  mix: {mixup: 0.0}\n")) == 1
    printed = capsys.readouterr()
    assert "no mixup" in printed.out
    assert "on a GPU: " in printed.err
    assert "temperatures" not in printed.out  # a single fold has none


def test_two_comparisons_in_one_folder_are_refused(
    comparison: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with folder_lock(tmp_path / "runs" / "compare"):
        assert main(comparison("no mixup:\n  mix: {mixup: 0.0}\n")) == 1
    assert "--out" in capsys.readouterr().err
