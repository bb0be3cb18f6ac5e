"""A and A Pro in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from esc_ensemble.blend.ensemble import blend_runs
from esc_ensemble.config import BlendConfig, TrainAProConfig
from esc_ensemble.data.catalog import load_catalog
from esc_ensemble.export.fused import FusedBlend, load_parts
from esc_ensemble.export.onnx import export_onnx
from esc_ensemble.export.parity import LARGEST_DIFFERENCE
from esc_ensemble.export.source import find_clips, read_source
from esc_ensemble.infer import Classifier
from esc_ensemble.settings import build, merge
from esc_ensemble.training.crossval import RunOptions, train_run
from tests.tiny import SETTINGS, tiny_config


def test_a_trained_a_pro_shares_a_file_and_its_front_end_with_a(synthetic_dir: Path, tmp_path: Path) -> None:
    catalog = load_catalog(synthetic_dir)
    common = {"frontend": {"n_mels": 40}, "train": {"epochs": 2}}
    small = {name: group for name, group in SETTINGS.items() if name != "model"}
    pro = build(TrainAProConfig, merge(small, common | {"model": {"scale": 1.0}}), "tiny")
    train_run(tmp_path / "runs" / "pro", pro, catalog, RunOptions(folds=(1, 2), n_workers=1))
    a = tiny_config(**common, model={"widths": [4]})
    train_run(tmp_path / "runs" / "a", a, catalog, RunOptions(folds=(1, 2), n_workers=1))
    blend = tmp_path / "blend"
    blend_runs(
        [tmp_path / "runs" / "a", tmp_path / "runs" / "pro"], BlendConfig(trials=5, bootstrap=20, tta=True), blend
    )
    content = read_source(blend)
    parts = load_parts(content, blend)
    assert {part.spec.name for part in parts} == {"spec_cnn", "bc_resnet"}
    assert len(FusedBlend(parts, "geometric").groups) == 1  # one front end for both
    path, parity = export_onnx(parts, content, find_clips(content, blend, None, 8), tmp_path / "both.onnx")
    assert parity.max_difference <= LARGEST_DIFFERENCE
    assert parity.same_top1
    predictions = list(Classifier(path).predict([clip.path for clip in catalog.clips[:3]]))
    assert all(np.isclose(prediction.probabilities.sum(), 1.0, atol=1e-5) for prediction in predictions)
