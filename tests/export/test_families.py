"""Backbones of other anatomy than WavLM's (which tests/export/test_mixed.py exports), at any length and batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from esc_ensemble.export.fused import FusedBlend, Mixing, Part
from esc_ensemble.export.onnx import _write_graph
from esc_ensemble.export.parity import LARGEST_DIFFERENCE
from esc_ensemble.models.registry import ModelSpec, build_model
from tests.backbones import save_backbone
from tests.tiny import tiny_b


@pytest.mark.parametrize("family", ["wav2vec2", "sew", "wav2vec2-conformer"])
@torch.no_grad()
def test_a_family_goes_to_onnx(family: str, tmp_path: Path) -> None:
    spec = ModelSpec.of(tiny_b(save_backbone(tmp_path / "backbone", family)), ("dog", "rain", "siren"))
    torch.manual_seed(0)
    part = Part(build_model(spec).eval(), spec, temperature=1.0, weight=1.0, shift_seconds=(0.0,), shift_weights=(1.0,))
    fused = FusedBlend([part], Mixing("arithmetic")).eval()
    _write_graph(fused, torch.randn(2, 16000), tmp_path / "file.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "file.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 16000), (3, 16000), (1, 23456), (3, 23456)):
        waveform = torch.randn(shape)
        found = session.run(["probabilities"], {"waveform": waveform.numpy()})[0]
        np.testing.assert_allclose(found, fused(waveform).numpy(), atol=LARGEST_DIFFERENCE)
