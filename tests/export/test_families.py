"""Backbones of other anatomy than WavLM's (which tests/export/test_mixed.py exports), at any length and batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.parity import LARGEST_DIFFERENCE
from esc_ensemble.export.parts import Mixing, Part
from esc_ensemble.models.registry import ModelSpec, build_model
from tests.backbones import save_backbone
from tests.export.graphs import graph_of, listen
from tests.tiny import tiny_b


@pytest.mark.parametrize("family", ["wav2vec2", "sew", "wav2vec2-conformer"])
@torch.no_grad()
def test_a_family_goes_to_onnx(family: str, tmp_path: Path) -> None:
    spec = ModelSpec.of(tiny_b(save_backbone(tmp_path / "backbone", family)), ("dog", "rain", "siren"))
    torch.manual_seed(0)
    part = Part(build_model(spec).eval(), spec, temperature=1.0, weight=1.0, shift_seconds=(0.0,), shift_weights=(1.0,))
    fused = FusedBlend([part], Mixing("arithmetic")).eval()
    hear, hear_in_half = listen(graph_of(fused)), listen(graph_of(fused, half=True))
    for shape in ((1, 16000), (3, 16000), (1, 23456), (3, 23456)):
        waveform = torch.randn(shape)
        expected = fused(waveform).numpy()
        np.testing.assert_allclose(hear(waveform.numpy()), expected, atol=LARGEST_DIFFERENCE)
        np.testing.assert_allclose(hear_in_half(waveform.numpy()), expected, atol=5e-3)
