"""One fixed split, as papers have it: train on folds 1 to 8, select on fold 9, test on fold 10."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.blend.apply import apply_blend
from esc_ensemble.blend.calibrate import fit_temperature
from esc_ensemble.blend.combine import mean_over_shifts
from esc_ensemble.blend.costs import Cost
from esc_ensemble.blend.ensemble import blend_runs, fit_runs
from esc_ensemble.blend.fit import fit_mixture
from esc_ensemble.blend.members import align_members
from esc_ensemble.blend.objective import Evidence
from esc_ensemble.blend.output import oof_arrays
from esc_ensemble.blend.result import BlendResult
from esc_ensemble.config import BlendConfig
from esc_ensemble.config.blend import Method
from esc_ensemble.export.source import fit_run, read_blend, read_source
from esc_ensemble.logits import FoldLogits, LogitsPart, empty_part, logits_path, read_run, write_logits
from esc_ensemble.metrics import clip_losses, log_loss, softmax
from esc_ensemble.testset.options import PredictOptions
from esc_ensemble.testset.predict import predict_test
from tests.blend.make_logits import SHIFTS, make_labels, make_member

N, C = 200, 5
FOLD, SELECTION_FOLD = 10, 9
LABELS = {FOLD: make_labels(N, C, 1), SELECTION_FOLD: make_labels(N, C, 2)}
CONFIG = BlendConfig(method="lbfgs", combiner="geometric", bootstrap=100)
TEMPERATURES = {"a": 3.0, "b": 0.5}
"""Members that a blend is made of: b is a with noise, so that equal weights are worse than tuned ones."""
NOISE = 2.0


def part(number: int, logits: np.ndarray, **over: Any) -> LogitsPart:
    ids = np.array([f"{number}-{n:03d}.wav" for n in range(logits.shape[1])])
    sources = np.array([f"{number}-source-{n // 2}" for n in range(logits.shape[1])])
    return LogitsPart(**({"clip_ids": ids, "labels": LABELS[number], "logits": logits, "sources": sources} | over))


def member_logits(name: str, number: int, n_shifts: int = 1) -> np.ndarray:
    seed = 100 * number + (0 if name in TEMPERATURES else ord(name))
    temperature = TEMPERATURES.get(name, 1.0)
    shift_noise = 0.5 * (n_shifts > 1)
    logits = make_member(
        LABELS[number], C, skill=1.8, seed=seed, temperature=temperature, n_shifts=n_shifts, shift_noise=shift_noise
    )
    noise = np.random.default_rng(number).normal(scale=NOISE * temperature, size=(1, N, C))
    return logits + noise.astype(np.float32) if name == "b" else logits


def write(folder: Path, test: LogitsPart | None = None, selection: LogitsPart | None = None, n_shifts: int = 1) -> Path:
    name = folder.name
    fold = FoldLogits(
        test=test or part(FOLD, member_logits(name, FOLD, n_shifts)),
        selection=selection or part(SELECTION_FOLD, member_logits(name, SELECTION_FOLD, n_shifts)),
        shifts=np.array(SHIFTS if n_shifts > 1 else (0.0,), dtype=np.float32),
        class_names=tuple(f"class {n}" for n in range(C)),
        fold=FOLD,
        run=name,
        config_hash="conf1",
        dataset_fingerprint="data1",
    )
    write_logits(logits_path(folder, FOLD), fold)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / "runs" / name) for name in TEMPERATURES]


def choices(result: BlendResult) -> list[Any]:
    """Everything that is deployed, and why."""
    mixture = result.mixture
    arrays = (result.temperatures, mixture.weights, *mixture.shift_weights, result.tuned.weights, result.fold_weights)
    extras = (mixture.class_weights, mixture.bias)
    return [
        *(array.tolist() for array in arrays),
        *(None if array is None else array.tolist() for array in extras),
        *(mixture.combiner, mixture.temperature, result.fallback, result.reason, result.warnings),
    ]


def rows(result: BlendResult) -> dict[str, Any]:
    return {row.name: row for row in result.scores}


def test_weights_and_temperatures_are_those_of_the_selection_logits_alone(runs: list[Path], tmp_path: Path) -> None:
    result = blend_runs(runs, CONFIG, tmp_path / "out")
    labels = LABELS[SELECTION_FOLD]
    logits = [member_logits(name, SELECTION_FOLD) for name in TEMPERATURES]
    temperatures = [fit_temperature(mean_over_shifts(values), labels) for values in logits]
    by_hand = fit_mixture(Evidence(logits, np.repeat(np.array(temperatures)[:, None], N, axis=1), labels), CONFIG)
    np.testing.assert_allclose(result.temperatures[:, 0], temperatures, rtol=1e-6)
    np.testing.assert_allclose(temperatures[0], 3.0, rtol=0.3)
    np.testing.assert_allclose(result.tuned.weights, by_hand.weights, rtol=1e-4)
    assert not result.fallback and result.reason.startswith("Tuned weights: cross-fitted gain in log loss")
    assert result.reason.endswith("over 5 parts of the selection split.") and result.warnings == ()
    assert result.mixture.temperature == pytest.approx(by_hand.temperature, rel=1e-4)
    assert result.from_selection == (True, True)

    # The test is scored by this very fit.
    log_probs = [
        np.log(softmax(member_logits(name, FOLD)[0] / temperature))
        for name, temperature in zip(TEMPERATURES, temperatures, strict=True)
    ]
    mixed = sum(weight * own for weight, own in zip(by_hand.weights, log_probs, strict=True))
    expected = softmax(mixed / by_hand.temperature)
    np.testing.assert_allclose(result.probabilities, expected, rtol=1e-3, atol=1e-6)
    assert rows(result)["chosen"].metrics["log_loss"] == pytest.approx(log_loss(expected, LABELS[FOLD]), rel=1e-4)


def test_tables_say_what_was_fitted_where(runs: list[Path], tmp_path: Path) -> None:
    result = blend_runs(runs, CONFIG, tmp_path / "out")
    by_name = rows(result)
    assert by_name["chosen"].title == "Chosen weights, fitted on selection, scored on test"
    assert by_name["tuned_in_sample"].title.endswith("scored on selection itself (too good)")
    assert by_name["tuned_in_sample"].metrics["top1"] == by_name["chosen"].selection["selection_top1"]
    assert list(by_name["tuned_in_sample"].by_fold) == [FOLD]
    raw = member_logits("a", SELECTION_FOLD)[0]
    of_member = by_name["member:a"].selection
    assert of_member["selection_top1"] == (raw.argmax(axis=1) == LABELS[SELECTION_FOLD]).mean()
    calibrated = softmax(raw / result.temperatures[0, 0])
    assert of_member["selection_log_loss"] == pytest.approx(log_loss(calibrated, LABELS[SELECTION_FOLD]), rel=1e-5)

    header, cells = result.score_table()
    assert header[-2:] == ["selection top-1", "selection log loss"] and "over folds" not in header
    assert {len(row) for row in cells} == {len(header)}
    assert cells[-1][-2:] == [f"{value:.4f}" for value in by_name["member:b"].selection.values()]
    assert "chose temperatures and weights" in result.selection_note
    assert "tuned in each part" in result.member_table()[0]
    for title in (row.title for row in result.scores):
        assert "cross-fitted" not in title and "in-sample" not in title

    blend = json.loads((tmp_path / "out" / "blend.json").read_text(encoding="utf-8"))
    assert blend["fitted_on"] == "selection" and list(blend["fold_weights"]) == ["1", "2", "3", "4", "5"]
    assert set(blend["scores"][0]["selection"]) == {"selection_top1", "selection_log_loss"}


@pytest.mark.parametrize("method", get_args(Method))
def test_the_test_chooses_nothing_by_any_method(method: Method, tmp_path: Path) -> None:
    config = BlendConfig(method=method, trials=12, bootstrap=50, tta=True)
    names = ("a", "b")
    before = blend_runs([write(tmp_path / "x" / name, n_shifts=3) for name in names], config, tmp_path / "one")
    assert before.tuned.weights[0] != 0.5 or method == "uniform"
    changed = []
    for name in names:
        labels = np.roll(LABELS[FOLD], 1)
        other = part(FOLD, -3 * member_logits(name, FOLD, 3)[:, ::-1], labels=labels)
        changed.append(write(tmp_path / "y" / name, other, n_shifts=3))
    after = blend_runs(changed, config, tmp_path / "two")
    assert choices(before) == choices(after)
    assert rows(before)["chosen"].selection == rows(after)["chosen"].selection
    assert rows(before)["chosen"].metrics["log_loss"] != rows(after)["chosen"].metrics["log_loss"]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), limited=st.booleans())
def test_no_test_labels_or_logits_change_a_choice(seed: int, limited: bool, tmp_path_factory: Any) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("split")
    config = CONFIG.model_copy(update={"max_ms": 1.5 if limited else 0.0, "bootstrap": 20})
    costs = (Cost(2.0, 1.0), Cost(1.0, 1.0))
    found = []
    for attempt in ("one", "two"):
        labels = rng.integers(0, C, N)
        runs = [
            read_run(
                write(
                    folder / attempt / name,
                    part(FOLD, rng.normal(scale=3.0, size=(1, N, C)).astype(np.float32), labels=labels),
                )
            )
            for name in TEMPERATURES
        ]
        found.append(choices(fit_runs(align_members(runs), config, costs)))
    assert found[0] == found[1]


def test_the_selection_split_does_choose(runs: list[Path], tmp_path: Path) -> None:
    before = blend_runs(runs, CONFIG, tmp_path / "one")
    swapped = [
        write(tmp_path / "y" / name, selection=part(SELECTION_FOLD, member_logits(other, SELECTION_FOLD)))
        for name, other in zip("ab", "ba", strict=True)
    ]
    after = blend_runs(swapped, CONFIG, tmp_path / "two")
    np.testing.assert_allclose(before.weights, after.weights[::-1], rtol=1e-4)
    assert before.weights[0] > 0.9 and not after.fallback


def test_members_that_are_alike_fall_back_to_equal_weights(tmp_path: Path) -> None:
    result = blend_runs([write(tmp_path / name) for name in ("c", "d")], CONFIG, tmp_path / "out")
    assert result.fallback and "more than its noise" in result.reason and "selection split" in result.reason
    assert result.weights.tolist() == [0.5, 0.5] and result.tuned.weights[0] != 0.5
    assert rows(result)["chosen"].metrics == rows(result)["uniform"].metrics
    blended = [
        np.log(softmax(member_logits(n, FOLD)[0] / t[0])) for n, t in zip("cd", result.temperatures, strict=True)
    ]
    expected = softmax(np.mean(blended, axis=0) / result.mixture.temperature)
    np.testing.assert_allclose(result.probabilities, expected, rtol=1e-3, atol=1e-6)


def test_parts_of_the_selection_split_hold_whole_sources(runs: list[Path]) -> None:
    selection = align_members([read_run(run) for run in runs]).selection
    assert selection is not None and selection.fold_numbers == (1, 2, 3, 4, 5)
    for source in np.unique(selection.sources):
        assert len(np.unique(selection.fold_of_clip[selection.sources == source])) == 1
    counts = np.array([np.bincount(selection.labels[selection.fold_of_clip == n], minlength=C) for n in range(1, 6)])
    assert counts.max() - counts.min() <= 3


def test_one_source_cannot_decide(tmp_path: Path) -> None:
    same = np.full(N, "only")
    runs = [
        write(tmp_path / name, selection=part(SELECTION_FOLD, member_logits(name, SELECTION_FOLD), sources=same))
        for name in TEMPERATURES
    ]
    result = blend_runs(runs, CONFIG, tmp_path / "out")
    assert result.fallback and "of one source only in the selection split" in result.reason
    np.testing.assert_allclose(result.temperatures[0, 0], 3.0, rtol=0.3)


def test_order_of_selection_clips_does_not_matter(runs: list[Path], tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(N)
    straight = part(SELECTION_FOLD, member_logits("b", SELECTION_FOLD))
    assert straight.sources is not None
    mixed = LogitsPart(
        straight.clip_ids[order], straight.labels[order], straight.logits[:, order], straight.sources[order]
    )
    one = blend_runs(runs, CONFIG, tmp_path / "one")
    two = blend_runs([runs[0], write(tmp_path / "y" / "b", selection=mixed)], CONFIG, tmp_path / "two")
    np.testing.assert_allclose(one.weights, two.weights, rtol=1e-6)
    assert one.reason == two.reason


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "other clips": ({"clip_ids": np.array([f"other-{n}" for n in range(N)])}, "selection splits differ: .*b and .*a"),
    "other labels": ({"labels": np.roll(LABELS[SELECTION_FOLD], 1)}, "another label to clip 9-000.wav"),
    "no labels": ({"labels": np.full(N, -1)}, "b has no labeled selection split"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_selection_splits_that_differ_are_a_warning_and_weights_are_equal(name: str, tmp_path: Path) -> None:
    over, said = UNFIT[name]
    runs = [
        write(tmp_path / "a"),
        write(tmp_path / "b", selection=part(SELECTION_FOLD, member_logits("b", SELECTION_FOLD), **over)),
    ]
    result = blend_runs(runs, CONFIG, tmp_path / "out")
    (warning,) = result.warnings
    assert warning.startswith("There is one test fold, and weights cannot be fitted on the selection split: ")
    assert re.search(said, warning)
    assert result.weights.tolist() == [0.5, 0.5] and "in one fold only" in result.reason
    assert json.loads((tmp_path / "out" / "blend.json").read_text())["fitted_on"] == "other folds"


def test_one_run_is_a_blend_of_one(runs: list[Path], tmp_path: Path) -> None:
    result = fit_run(runs[0])
    assert result.members.fitted_on == "selection" and result.weights.tolist() == [1.0]
    expected = fit_temperature(member_logits("a", SELECTION_FOLD)[0], LABELS[SELECTION_FOLD])
    assert result.temperatures[0, 0] == pytest.approx(expected, rel=1e-6)
    assert rows(result)["chosen"].selection["selection_top1"] > 0.5
    content = read_source(runs[0], needs_models=False)
    assert content["fitted_on"] == "selection" and content["members"][0]["temperature_from"] == "selection"
    tuned = blend_runs([write(tmp_path / "x" / "a", n_shifts=3)], BlendConfig(tta=True, trials=5), tmp_path / "out")
    assert tuned.mixture.shift_weights[0].sum() == pytest.approx(1.0) and not tuned.fallback


def test_costs_are_weighed_on_the_selection_split(runs: list[Path], tmp_path: Path) -> None:
    costs = dict(zip(runs, (Cost(2.0, 1.0), Cost(1.0, 1.0)), strict=True))
    result = blend_runs(runs, CONFIG, tmp_path / "out", costs)
    assert result.front and result.front[-1].metrics == pytest.approx(rows(result)["chosen"].metrics, rel=1e-3)
    lost = {item.run: item.loss.log_loss for item in result.contributions}
    alone = clip_losses(result.member_probabilities[1], LABELS[FOLD]).mean()
    assert lost["a"] == pytest.approx(rows(result)["chosen"].metrics["log_loss"] - alone, abs=0.01)


def test_a_blend_is_read_and_applied_to_new_clips(runs: list[Path], tmp_path: Path) -> None:
    result = blend_runs(runs, CONFIG, tmp_path / "out")
    blend = read_blend(tmp_path / "out" / "blend.json")
    applied = apply_blend(blend, [[member_logits(name, FOLD)] for name in TEMPERATURES])
    np.testing.assert_allclose(applied.probabilities, result.probabilities, rtol=1e-4, atol=1e-6)
    arrays = oof_arrays(result)
    assert arrays["folds"].tolist() == [FOLD] * N and arrays["probabilities"].shape == (N, C)


def test_new_clips_are_predicted_by_such_a_blend_and_by_a_run(runs: list[Path], tmp_path: Path) -> None:
    blend_runs(runs, CONFIG, tmp_path / "out")
    audio = tmp_path / "audio"
    audio.mkdir()
    for number in range(3):
        soundfile.write(audio / f"{number}.wav", np.zeros(800), 8000)
    ids = np.array([f"{number}.wav" for number in range(3)])
    for run in runs:
        fold = read_run(run).folds[0]
        test = LogitsPart(ids, np.full(3, -1), fold.test.logits[:, :3])
        brought = replace(fold, test=test, selection=empty_part(1, C))
        write_logits(logits_path(run, FOLD).with_name("test.npz"), brought)
    for folder in (tmp_path / "out", runs[0]):
        blend = read_source(folder, needs_models=False)
        predicted = predict_test(blend, folder, [audio], options=PredictOptions(device="cpu"))
        logits = [[member_logits(member["run"], FOLD)[:, :3]] for member in blend["members"] if member["weight"] > 0.0]
        expected = apply_blend(blend, logits).probabilities
        np.testing.assert_allclose(predicted.prediction.probabilities, expected, rtol=1e-6)
