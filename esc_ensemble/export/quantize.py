"""Exported graphs with weights of 8 bits: static for convolutions, dynamic for the products of transformers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from esc_ensemble.config import BackboneConfig
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.files import temporary_folder
from esc_ensemble.progress import progress

PRODUCTS = ("MatMul", "Gemm")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Clips that tell which values the maps between convolutions take."""

    read: Callable[[int], np.ndarray]
    """Number of a clip to its waveform (1, T)."""
    folds: np.ndarray
    """(N,) the fold that holds each clip: a part is calibrated by those that it was trained on."""


def quantize(model: onnx.ModelProto, fused: FusedBlend, calibration: Calibration) -> onnx.ModelProto:
    """Gives a graph of `build_graph` with 8-bit weights, and 8-bit sums where that pays.

    Convolutions of CNNs get weights for each channel and maps of fixed ranges (QDQ). Depthwise ones and the first stay
    as they are: they hold few weights and lose the most. Of backbones the products with weights are quantised by the
    range of what comes in (dynamic); their convolutions stay, since those of 8 bits and no fixed range are slow.
    Spectrograms, resampling and the combination stay in full precision.
    """
    backbones = [isinstance(part.spec.model, BackboneConfig) for part in fused.parts]
    wave_groups = [number for number, group in enumerate(fused.groups) if backbones[group.parts[0]]]
    wave = tuple(f"front{number}/" for number in wave_groups)
    wave += tuple(f"part{number}/" for number, is_wave in enumerate(backbones) if is_wave)
    maps = {f"part{number}/": part.fold for number, part in enumerate(fused.parts) if not backbones[number]}
    products = [node.name for node in model.graph.node if node.op_type in PRODUCTS and node.name.startswith(wave)]
    if wave and products:
        model = _quantize_products(model, products)
    made_in = {value: _prefix(node.name) for node in model.graph.node for value in node.output}
    dense = [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and _prefix(node.name) in maps
        and _group(node) == 1
        # The first one hears features that other folds' parts share.
        and made_in[node.input[0]] == _prefix(node.name)
    ]
    return _quantize_convolutions(model, dense, maps, calibration) if dense else model


def _quantize_products(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - seconds that only this needs

    model = _copy(model)
    del model.graph.value_info[:]  # onnxruntime's quantiser trips over those of Gemm
    with temporary_folder() as folder, _quiet():
        path = folder / "quantised.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=list(names),
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


def _quantize_convolutions(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], folds: dict[str, int], calibration: Calibration
) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QuantType  # noqa: PLC0415 - as above
    from onnxruntime.quantization.calibrate import TensorData, TensorsData  # noqa: PLC0415
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer  # noqa: PLC0415

    heard_by = {value: folds[_prefix(node.name)] for node in nodes for value in (node.input[0], node.output[0])}
    values = list(heard_by)
    lowest, highest = _ranges(model, values, calibration)  # (number of values, N) each
    ranges = {}
    for place, value in enumerate(values):
        known = calibration.folds != heard_by[value]
        known = known if known.any() else np.ones_like(known)
        low, high = lowest[place, known].min(), highest[place, known].max()
        ranges[value] = TensorData(lowest=np.float32(low), highest=np.float32(high))
    quantizer = QDQQuantizer(
        _copy(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv"],
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _ranges(model: onnx.ModelProto, values: Sequence[str], calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Gives the least and the greatest of each value inside the graph for each clip: (number of values, N) each."""
    watched = _copy(model)
    del watched.graph.output[:]
    names = []
    for operator in ("ReduceMin", "ReduceMax"):
        for place, value in enumerate(values):
            name = f"{operator}{place}"
            watched.graph.node.append(helper.make_node(operator, [value], [name], keepdims=0))
            watched.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
            names.append(name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = np.empty((2 * len(values), len(calibration.folds)), dtype=np.float32)
    with progress("Calibrating", found.shape[1]) as advance:
        for clip in range(found.shape[1]):
            found[:, clip] = session.run(names, {"waveform": calibration.read(clip)})
            advance()
    return found[: len(values)], found[len(values) :]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the quantiser from asking for a simplification that has been done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _prefix(name: str) -> str:
    return name.partition("/")[0] + "/"


def _group(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
