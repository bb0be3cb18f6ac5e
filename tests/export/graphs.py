"""Graphs of fused blends, opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.onnx import PROBABILITIES, build_graph, run_onnx, simplify

Listen = Callable[[np.ndarray], np.ndarray]


def graph_of(fused: FusedBlend, *, half: bool = False) -> onnx.ModelProto:
    return simplify(build_graph(fused, half=half))


def listen(model: onnx.ModelProto | Path, output: str = PROBABILITIES) -> Listen:
    """Gives a function from waveforms (B, T) to an output."""
    return run_onnx(model, output, threads=1)
