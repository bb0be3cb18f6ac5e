from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esc_ensemble.config import DataConfig
from esc_ensemble.errors import DataError
from esc_ensemble.export.evaluate import combine_oof, find_oof_clips, measure_accuracy
from esc_ensemble.export.parts import load_parts
from esc_ensemble.export.source import read_source
from tests.conftest import Exported, Made


def test_a_file_is_as_right_out_of_fold_as_the_logits_of_its_runs(exported: Exported) -> None:
    accuracy = exported.result["accuracy"]
    assert accuracy["n_clips"] == 40  # the two folds that were trained
    assert accuracy["top1"] == accuracy["blend_top1"]
    assert accuracy["log_loss"] == pytest.approx(accuracy["blend_log_loss"], abs=1e-3)
    assert accuracy["lost_points"] == 0.0


def test_clips_are_spread_over_folds_and_classes(made: Made) -> None:
    content = read_source(made.blend)
    clips = find_oof_clips(content, made.blend, None, 20)
    assert len(clips.paths) == len(set(clips.paths)) == 20
    assert np.bincount(clips.folds).tolist() == [0, 10, 10]
    assert (np.bincount(clips.labels, minlength=10) == 2).all()
    assert clips.logits.shape == (2, 20, 10)
    assert len(find_oof_clips(content, made.blend, None, 1000).paths) == 40


def test_each_clip_is_heard_by_the_models_that_had_not_heard_it(made: Made) -> None:
    content = read_source(made.blend)
    parts, clips = load_parts(content, made.blend), find_oof_clips(content, made.blend, None, 40)

    def say_own_number(waveform: np.ndarray) -> np.ndarray:
        """Logits (P, 1, C) of parts that know the right answer, but only of the fold that they were not trained on."""
        label, fold = next(answers)
        said = np.zeros((len(parts), 1, 10), dtype=np.float32)
        for place, part in enumerate(parts):
            said[place, 0, label if part.fold == fold else (label + 1) % 10] = 9.0
        return said

    answers = iter(zip(clips.labels, clips.folds, strict=True))
    assert measure_accuracy(say_own_number, parts, content, clips, DataConfig(sample_rate=8000)).top1 == 1.0


def test_a_blend_out_of_fold_by_hand() -> None:
    members: list[dict[str, Any]] = [
        {"run": "a", "weight": 0.75, "class_weights": None, "temperatures": {"1": 1.0, "2": 2.0}},
        {"run": "b", "weight": 0.25, "class_weights": None, "temperatures": {"1": 1.0, "2": 1.0}},
        {"run": "c", "weight": 0.0, "class_weights": None, "temperatures": {}},
    ]
    blend = {"members": members, "combiner": "arithmetic", "temperature": 1.0, "bias": None}
    logits = np.log(np.array([[[0.8, 0.2], [0.64, 0.36]], [[0.5, 0.5], [0.1, 0.9]]], dtype=np.float32))  # (M, N, C)
    found = combine_oof(blend, logits, np.array([1, 2]))
    second = np.array([0.8, 0.6]) / 1.4  # of square roots
    first = np.array([0.75 * 0.8 + 0.25 * 0.5, 0.75 * 0.2 + 0.25 * 0.5])
    expected = np.stack([first, 0.75 * second + 0.25 * np.array([0.1, 0.9])])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_audio_that_is_gone_is_asked_for(made: Made, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made.runs[0], tmp_path / "one"))
    path = run / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset_path": str(tmp_path / "gone")}))
    with pytest.raises(DataError, match=r"gone has none of them.*--data DIR"):
        find_oof_clips(read_source(run), run, None, 4)
