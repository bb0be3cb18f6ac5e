"""Members of different kinds in one file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from esc_ensemble.blend.ensemble import blend_runs
from esc_ensemble.config import BlendConfig, TrainAProConfig, TrainerConfig
from esc_ensemble.data.catalog import load_catalog
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.parity import LARGEST_DIFFERENCE, read_clips
from esc_ensemble.export.parts import heard_data, load_parts, mixing_of
from esc_ensemble.export.pipeline import ExportOptions, export_blend
from esc_ensemble.export.source import read_source
from esc_ensemble.infer import Classifier
from esc_ensemble.settings import build, merge
from esc_ensemble.training.crossval import RunOptions, train_run
from tests.backbones import save_backbone
from tests.tiny import SETTINGS, tiny_b, tiny_config


@pytest.fixture(scope="module")
def mixed(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A blend of A and A Pro at 8 kHz and B at 16 kHz."""
    root = tmp_path_factory.mktemp("mixed")
    common = {"frontend": {"n_mels": 40}, "train": {"epochs": 2}}
    small = {name: group for name, group in SETTINGS.items() if name != "model"}
    configs: dict[str, TrainerConfig] = {
        "a": tiny_config(**common, model={"name": "spec_cnn_reference", "widths": [8]}),
        "pro": build(TrainAProConfig, merge(small, common | {"model": {"scale": 1.0}}), "tiny"),
        "b": tiny_b(save_backbone(root / "backbone", "wavlm")),
    }
    for name, config in configs.items():
        options = RunOptions(folds=(1, 2), n_workers=1, parallel_folds=1)
        train_run(root / "runs" / name, config, load_catalog(synthetic_dir), options)
    how = BlendConfig(trials=5, bootstrap=5, tta=True, combiner="arithmetic")
    blend_runs([root / "runs" / name for name in configs], how, root / "blend")
    content = json.loads((root / "blend" / "blend.json").read_text())
    for member in content["members"]:
        member["weight"] = 1 / 3  # whatever the tuning found: all are to be heard
    (root / "blend" / "blend.json").write_text(json.dumps(content))
    return root / "blend"


FORMATS = [("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "int8"), ("torchscript", "fp32"), ("pt2", "fp32")]


@pytest.mark.parametrize(("kind", "precision"), FORMATS)
def test_members_of_all_kinds_share_a_file(
    kind: Any, precision: Any, mixed: Path, synthetic_dir: Path, tmp_path: Path
) -> None:
    content = read_source(mixed)
    parts = load_parts(content, mixed)
    assert {part.spec.name for part in parts} == {"spec_cnn_reference", "bc_resnet", "wave_backbone"}
    assert {part.spec.data.sample_rate for part in parts} == {8000, 16000}
    # A and A Pro share a front end, all folds of B its frozen trunk.
    assert len(FusedBlend(parts, mixing_of(content)).groups) == 2
    options = ExportOptions(format=kind, precision=precision, check_clips=4, accuracy_clips=20, max_loss=15.0)
    done = export_blend(content, mixed, tmp_path / "file", options)
    if precision == "fp32":
        assert done.parity.max_difference <= LARGEST_DIFFERENCE
        assert done.parity.same_top1
    if kind == "onnx":
        assert done.parity.max_difference < 0.05
        assert done.accuracy is not None
        assert done.accuracy.n_clips == 20
        assert done.accuracy.log_loss == pytest.approx(done.accuracy.blend_log_loss, abs=0.05)
        heard = [clip.path for clip in load_catalog(synthetic_dir).clips[:3]]
        predictions = list(Classifier(done.path).predict(heard))
        assert all(np.isclose(prediction.probabilities.sum(), 1.0, atol=1e-5) for prediction in predictions)
    if precision == "int8":
        kinds = {node.op_type for node in onnx.load(done.path).graph.node}
        assert {"MatMulInteger", "QuantizeLinear", "DequantizeLinear"} <= kinds


@torch.inference_mode()
def test_in_one_file_each_member_hears_what_it_heard_in_training(mixed: Path, synthetic_dir: Path) -> None:
    content = read_source(mixed)
    parts = load_parts(content, mixed)
    fused = FusedBlend(parts, mixing_of(content)).eval()
    paths = [clip.path for clip in load_catalog(synthetic_dir).clips[::9]]
    data = heard_data(parts)
    for path in paths:
        (found,) = fused(torch.from_numpy(read_clips([path], data)[0])[None]).numpy()
        expected = np.zeros_like(found)
        for part in parts:  # each on waveforms that soxr brought to its rate
            alone = FusedBlend([replace(part, weight=1.0)], mixing_of(content)).eval()
            (waveform,) = read_clips([path], part.spec.data)
            expected += part.weight * alone(torch.from_numpy(waveform)[None]).numpy()[0]
        np.testing.assert_allclose(found, expected, atol=2e-3)
