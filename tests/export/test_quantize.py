from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from esc_ensemble.export import quantize as quantize_module
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.parts import Mixing, Part
from esc_ensemble.export.quantize import Calibration, quantize
from esc_ensemble.models.registry import build_model
from tests.export.graphs import graph_of, listen
from tests.tiny import tiny_spec

NOISE = np.random.default_rng(0).normal(0, 0.1, size=(1, 8000)).astype(np.float32)


def make_fused(name: str) -> FusedBlend:
    """Two fold models of one kind."""
    parts = []
    for fold in (1, 2):
        torch.manual_seed(fold)
        spec = tiny_spec(name)
        parts.append(Part(build_model(spec).eval(), spec, 1.0, 0.5, (0.0,), (1.0,), run="a", fold=fold))
    return FusedBlend(parts, Mixing("geometric")).eval()


@pytest.fixture(scope="module")
def fused() -> FusedBlend:
    return make_fused("spec_cnn_reference")


def sixteen(number: int) -> np.ndarray:
    return np.roll(NOISE, 997 * number, axis=1)


def int8_weights(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions' weights that are of 8 bits."""
    whole = {
        each.name for each in model.graph.initializer if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 4
    }
    return sorted(name.removesuffix("_quantized") for name in whole)


def weights(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the convolutions' weights by name."""
    shapes = {each.name: tuple(each.dims) for each in model.graph.initializer}
    return {node.input[1]: shapes[node.input[1]] for node in model.graph.node if node.op_type == "Conv"}


def test_8_bit_weights_say_nearly_the_same_in_a_smaller_file(fused: FusedBlend) -> None:
    model = graph_of(fused)
    small = quantize(model, fused, Calibration(sixteen, np.array([1, 2] * 4)))
    onnx.checker.check_model(small, full_check=True)
    np.testing.assert_allclose(listen(small)(NOISE), listen(model)(NOISE), atol=0.02)
    said, expected = (listen(each, "part_logits")(NOISE) for each in (small, model))
    assert 0.0 < np.abs(said - expected).max() < 0.2 * np.abs(expected).max()
    assert int8_weights(small) == sorted(name for name in weights(model) if "trunk.0" not in name)  # all but the stems
    assert {operator.domain for operator in small.opset_import} <= {"", "ai.onnx"}


def test_depthwise_convolutions_and_spectrograms_stay_in_full() -> None:
    fused = make_fused("bc_resnet")
    model = graph_of(fused)
    small = quantize(model, fused, Calibration(sixteen, np.array([1, 2])))
    dense = {name for name, shape in weights(model).items() if shape[1] > 2}
    assert set(int8_weights(small)) == dense
    assert len(dense) < len(weights(model))
    assert not [node.name for node in small.graph.node if "Quantize" in node.op_type and "listening" in node.name]


def test_a_part_is_calibrated_by_clips_that_it_was_trained_on_alone(fused: FusedBlend) -> None:
    model = graph_of(fused)
    loud = {1: 1.0, 2: 3.0}  # what the clips of each fold make of every map
    folds = np.array([1, 1, 2, 2])
    with pytest.MonkeyPatch.context() as patch:
        ranges = np.array([loud[fold] for fold in folds])
        patch.setattr(
            quantize_module,
            "_ranges",
            lambda _, values, __: (-np.tile(ranges, (len(values), 1)), np.tile(ranges, (len(values), 1))),
        )
        small = quantize(model, fused, Calibration(sixteen, folds))
    values = {each.name: numpy_helper.to_array(each) for each in small.graph.initializer}
    producer = {name: node for node in small.graph.node for name in node.output}
    scales: dict[str, set[float]] = {}
    for node in small.graph.node:
        if node.op_type == "Conv" and producer[node.input[0]].op_type == "DequantizeLinear":
            scale = float(values[producer[node.input[0]].input[1]])
            scales.setdefault(node.name.partition("/")[0], set()).add(round(255 * scale / 2, 3))
    assert scales == {"part0": {loud[2]}, "part1": {loud[1]}}  # part 0 held fold 1 out, part 1 fold 2
