"""A blend as one `.onnx` file: `waveform (B, T)` in, `probabilities (B, C)` out, all metadata inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from esc_ensemble.export.folding import InHalf, fold_norms
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.graph import DYNAMIC, Graph, Piece, trace_piece
from esc_ensemble.export.parity import Probabilities
from esc_ensemble.export.parts import Part, heard_data
from esc_ensemble.files import temporary_folder
from esc_ensemble.infer import METADATA_KEY

BATCH, SAMPLES = "batch", "samples"
WAVEFORM, PROBABILITIES, PART_LOGITS = "waveform", "probabilities", "part_logits"


def build_graph(fused: FusedBlend, *, half: bool = False) -> onnx.ModelProto:
    """Writes the fused blend as a graph.

    Its second output is what each part says by itself, `part_logits` (P, B, C). Nodes are named by where they belong:
    `listening/`, `front<group>/`, `part<number>/`, `combination/`.

    Args:
        fused: in eval mode.
        half: whether trunks are in half precision; spectrograms and the combination never are.
    """
    parts = fused.parts
    graph = Graph("esc_ensemble")
    traced: dict[str, Piece] = {}
    n_classes = len(parts[0].spec.class_names)
    logits: dict[int, str] = {}
    with torch.inference_mode():
        # Of a length that nothing else has, which tracing would take for the same.
        n_samples = heard_data(parts).n_samples + 13
        example = 0.1 * torch.randn(2, n_samples, generator=torch.Generator().manual_seed(0))
        heard = [f"heard{number}" for number in range(len(fused.groups))]
        listening = trace_piece(fused.listening, [example], [{0: DYNAMIC, 1: DYNAMIC}], heard)
        values = graph.add(listening, fused.listening, ["waveform"], "listening/")
        for number, given in enumerate(fused.listening(example)):
            group, front = fused.groups[number], fused.fronts[number]
            value, features = values[number], front(given)
            if not isinstance(front, nn.Identity):
                front = InHalf(front) if half else front
                piece = trace_piece(front, [given], [{0: DYNAMIC}], ["states"])
                (value,) = graph.add(piece, front, [value], f"front{number}/")
            for part in group.parts:
                kind, trunk = _kind(parts[part], features), fold_norms(fused.trunks[part], features)
                trunk = InHalf(trunk) if half else trunk
                if kind not in traced:
                    traced[kind] = trace_piece(trunk, [features], [{0: DYNAMIC}], ["logits"])
                (out,) = graph.add(traced[kind], trunk, [value], f"part{part}/")
                logits[part] = graph.reshape(out, [len(group.shifts), -1, n_classes], f"part{part}/")
        order = range(len(parts))
        examples = [torch.zeros(len(parts[part].shift_seconds), 2, n_classes) for part in order]
        piece = trace_piece(fused.combination, examples, [{1: DYNAMIC}] * len(order), [PROBABILITIES, PART_LOGITS])
        ends = graph.add(piece, fused.combination, [logits[part] for part in order], "combination/")
    for end, name in zip(ends, (PROBABILITIES, PART_LOGITS), strict=True):
        graph.rename(end, name)
    return graph.model(
        {WAVEFORM: [BATCH, SAMPLES]},
        {PROBABILITIES: [BATCH, n_classes], PART_LOGITS: [len(parts), BATCH, n_classes]},
    )


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Computes what is constant and merges norms into convolutions, by onnxruntime; operators stay ONNX's own."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with temporary_folder() as folder:
        path = folder / "simple.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        simple = onnx.load(path)
    domains = {node.domain for node in simple.graph.node}
    kept = [opset for opset in simple.opset_import if opset.domain in domains]  # it lists all that it knows
    del simple.opset_import[:]
    simple.opset_import.extend(kept)
    return simple


def _kind(part: Part, features: Tensor) -> str:
    """Trunks of one kind have the same graph, weights apart."""
    spec = part.spec
    backbone = spec.backbone and spec.backbone.to_json()
    return json.dumps([spec.name, spec.model.model_dump(mode="json"), backbone, features.shape, len(spec.class_names)])


def save_onnx(model: onnx.ModelProto, metadata: dict[str, Any], path: Path) -> None:
    """Writes a graph of `build_graph` as a file that gives probabilities alone.

    Its IR version is the lowest that its operators allow: a runtime refuses files of one that is newer than itself.
    """
    shipped = onnx.ModelProto()
    shipped.CopyFrom(model)
    del shipped.graph.output[1:]
    shipped.ir_version = onnx.helper.find_min_ir_version_for(shipped.opset_import)
    onnx.helper.set_model_props(shipped, {METADATA_KEY: json.dumps(metadata, ensure_ascii=False)})
    onnx.save(shipped, path)


def run_onnx(model: onnx.ModelProto | Path, output: str = PROBABILITIES, threads: int = 0) -> Probabilities:
    """Gives a function from waveforms (B, T) to an output of a graph or a file.

    Args:
        model: the graph, or its file.
        output: name of the output.
        threads: CPU threads; 0 leaves it to onnxruntime.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    content = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda waveform: np.asarray(session.run([output], {WAVEFORM: waveform})[0])
