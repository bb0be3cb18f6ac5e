from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esc_ensemble.blend.apply import apply_blend, counting_members
from esc_ensemble.blend.combine import COMBINERS
from esc_ensemble.data.audio import prepare
from esc_ensemble.data.catalog import load_catalog
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.parts import load_parts, mixing_of
from esc_ensemble.predict import shift_waveform
from tests.conftest import Made

C = 10


def one_member(**over: Any) -> dict[str, Any]:
    return {
        "run": "a", "weight": 1.0, "class_weights": None, "folds": [1, 2], "temperatures": {"1": 1.0, "2": 1.0},
        "shifts": [0.0], "shift_weights": [1.0],
    } | over  # fmt: skip


def content(*members: dict[str, Any], **over: Any) -> dict[str, Any]:
    return {
        "members": list(members), "combiner": "arithmetic", "temperature": 1.0, "bias": None, "class_names": ["x", "y"],
    } | over  # fmt: skip


def test_by_hand() -> None:
    """Two members of weights 3/4 and 1/4; the first has two folds and two shifts, of which the later counts thrice."""
    first = one_member(weight=0.75, temperatures={"1": 2.0, "2": 1.0}, shifts=[0.0, 0.1], shift_weights=[0.25, 0.75])
    second = one_member(run="b", weight=0.25, folds=[2], temperatures={"2": 1.0})
    unheard = one_member(run="c", weight=0.0)
    # Log odds of x against y. Fold 1: (4·0.25 + 0·0.75) / 2 = 0.5; fold 2: (0·0.25 + 4·0.75) / 1 = 3; b: -1.
    fold_1, fold_2, of_b = ([[[4.0, 0.0]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[4.0, 0.0]]], [[[0.0, 1.0]]])
    logits = [[np.array(values, dtype=np.float32) for values in folds] for folds in ([fold_1, fold_2], [of_b])]
    found = apply_blend(content(first, unheard, second), logits)
    share = [1.0 / (1.0 + np.exp(-odds)) for odds in (0.5, 3.0, -1.0)]
    blended = 0.375 * share[0] + 0.375 * share[1] + 0.25 * share[2]
    np.testing.assert_allclose(found.probabilities, [[blended, 1.0 - blended]], rtol=1e-6)
    assert found.members == ("a", "b")
    # A member by itself: the geometric mean over its folds, of log odds (0.5 + 3) / 2.
    alone = 1.0 / (1.0 + np.exp(-1.75))
    np.testing.assert_allclose(found.member_probabilities[:, 0, 0], [alone, share[2]], rtol=1e-6)


def test_weights_of_classes_and_bias_by_hand() -> None:
    """Log-probabilities (-0.2, -1.7) and (-1.2, -0.36) weighed class by class, then a bias, then a temperature."""
    first = one_member(folds=[1], weight=0.5, class_weights=[0.9, 0.1])
    second = one_member(run="b", folds=[1], weight=0.5, class_weights=[0.1, 0.9])
    blend = content(first, second, combiner="geometric", temperature=2.0, bias=[0.3, -0.3])
    logits = [[np.array([[[1.5, 0.0]]], dtype=np.float32)], [np.array([[[0.0, 0.84]]], dtype=np.float32)]]
    log_a = np.array([1.5, 0.0]) - np.log(np.exp(1.5) + 1.0)
    log_b = np.array([0.0, 0.84]) - np.log(np.exp(0.84) + 1.0)
    scores = (np.array([0.9, 0.1]) * log_a + np.array([0.1, 0.9]) * log_b + np.array([0.3, -0.3])) / 2.0
    expected = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(apply_blend(blend, logits).probabilities, [expected], rtol=1e-5)


@pytest.mark.parametrize("extras", ["plain", "warm", "bias", "class weights"])
@pytest.mark.parametrize("combiner", COMBINERS)
@torch.inference_mode()
def test_equals_the_fused_module_on_the_same_waveforms(made: Made, combiner: str, extras: str) -> None:
    blend = json.loads((made.blend / "blend.json").read_text())
    rng = np.random.default_rng(3)
    blend |= {"combiner": combiner, "temperature": 1.0 if extras == "plain" else 1.7, "bias": None}
    if extras in ("bias", "class weights"):
        blend["bias"] = rng.normal(size=C).tolist()
    by_class = rng.dirichlet(np.ones(2), C).T  # (M, C)
    for number, member in enumerate(blend["members"]):
        member["weight"] = float(by_class[number].mean()) if extras == "class weights" else (0.7, 0.3)[number]
        member["class_weights"] = by_class[number].tolist() if extras == "class weights" else None
        member["shifts"], member["shift_weights"] = [[-0.1, 0.0, 0.1], [0.0]][number], [[0.2, 0.5, 0.3], [1.0]][number]
        member["temperatures"] = {"1": 0.6 + number, "2": 1.9}
    parts = load_parts(blend, made.blend)
    for part in parts:  # trained for a moment, they say next to nothing
        part.model.get_parameter("head.weight").mul_(10)
    paths = [clip.path for clip in load_catalog(parts_data(made)).clips[::9]]
    data = parts[0].spec.data
    heard = [prepare(path, data.sample_rate, data.n_samples, data.fit, data.trim_db) for path in paths]
    waves = torch.from_numpy(np.stack(heard))
    expected = FusedBlend(parts, mixing_of(blend)).eval()(waves).numpy()
    logits = iter(
        part.model(shift_waveform(waves, part.shift_seconds, 8000).flatten(0, 1)).numpy().reshape(
            len(part.shift_seconds), len(paths), C
        )
        for part in parts
    )  # fmt: skip
    by_member = [[next(logits) for _ in member["folds"]] for member in counting_members(blend)]
    found = apply_blend(blend, by_member)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.02  # the clips differ, so that a mix-up would show


def parts_data(made: Made) -> Path:
    return Path(json.loads((made.runs[0] / "manifest.json").read_text())["dataset_path"])
