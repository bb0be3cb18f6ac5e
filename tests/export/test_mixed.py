"""Members of different kinds in one file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esc_ensemble.blend.ensemble import blend_runs
from esc_ensemble.config import BlendConfig, TrainAProConfig
from esc_ensemble.data.catalog import load_catalog
from esc_ensemble.export.fused import FusedBlend, heard_data, load_parts
from esc_ensemble.export.onnx import export_onnx
from esc_ensemble.export.parity import LARGEST_DIFFERENCE, read_clips
from esc_ensemble.export.source import find_clips, read_source
from esc_ensemble.export.torchscript import export_torchscript
from esc_ensemble.infer import Classifier
from esc_ensemble.settings import build, merge
from esc_ensemble.training.crossval import RunOptions, train_run
from tests.backbones import save_backbone
from tests.tiny import SETTINGS, tiny_b, tiny_config


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


@pytest.fixture(scope="module", params=["wav2vec2", "wavlm"])
def with_b(request: pytest.FixtureRequest, synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A blend of A at 8 kHz and B at 16 kHz."""
    root = tmp_path_factory.mktemp("with-b")
    catalog, options = load_catalog(synthetic_dir), RunOptions(folds=(1, 2), n_workers=1, parallel_folds=1)
    train_run(root / "runs" / "b", tiny_b(save_backbone(root / "backbone", request.param)), catalog, options)
    train_run(root / "runs" / "a", tiny_config(model={"widths": [4]}, train={"epochs": 2}), catalog, options)
    runs = [root / "runs" / "a", root / "runs" / "b"]
    blend_runs(runs, BlendConfig(trials=5, bootstrap=5, tta=True, combiner="arithmetic"), root / "blend")
    content = json.loads((root / "blend" / "blend.json").read_text())
    for member in content["members"]:
        member["weight"] = 0.5  # whatever the tuning found: both are to be heard
    (root / "blend" / "blend.json").write_text(json.dumps(content))
    return root / "blend"


@pytest.mark.parametrize("write", [export_onnx, export_torchscript])
def test_b_shares_a_file_with_a_each_at_its_own_rate(write: Any, with_b: Path, tmp_path: Path) -> None:
    content = read_source(with_b)
    parts = load_parts(content, with_b)
    assert {part.spec.data.sample_rate for part in parts} == {8000, 16000}
    fused = FusedBlend(parts, content["combiner"])
    assert len(fused.groups) == 2  # all folds of B share its frozen trunk
    _, parity = write(parts, content, find_clips(content, with_b, None, 4), tmp_path / "file")
    assert parity.max_difference <= LARGEST_DIFFERENCE


@torch.inference_mode()
def test_in_one_file_each_member_hears_what_it_heard_in_training(with_b: Path, synthetic_dir: Path) -> None:
    content = read_source(with_b)
    parts = load_parts(content, with_b)
    fused = FusedBlend(parts, content["combiner"]).eval()
    paths = [clip.path for clip in load_catalog(synthetic_dir).clips[::9]]
    found = fused(torch.from_numpy(read_clips(paths, heard_data(parts)))).numpy()
    expected = np.zeros_like(found)
    for part in parts:  # each on waveforms that soxr brought to its rate
        alone = FusedBlend([replace(part, weight=1.0)], content["combiner"]).eval()
        expected += part.weight * alone(torch.from_numpy(read_clips(paths, part.spec.data))).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)
