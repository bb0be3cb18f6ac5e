"""Classifiers that need no training."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from esc_ensemble.infer import METADATA_KEY, METADATA_SCHEMA, Classifier

CLASSES = ("quiet", "loud", "sea_waves", "clock_tick", "dog", "<b>& rain</b>")
SAMPLE_RATE = 8000
CLIP_SECONDS = 1.0
WEIGHTS = np.array([[-20.0, 20.0, 3.0, 2.0, 1.0, 0.0]], dtype=np.float32)
BIAS = np.array([3.0, -3.0, 0.2, 0.1, 0.0, -0.1], dtype=np.float32)


def write_model(path: Path, class_names: tuple[str, ...] = CLASSES) -> Path:
    """Writes an ONNX file that tells loud from quiet: softmax of a straight line of the mean absolute sample."""
    nodes = [
        helper.make_node("Abs", ["waveform"], ["levels"]),
        helper.make_node("ReduceMean", ["levels"], ["level"], axes=[1], keepdims=1),
        helper.make_node("Gemm", ["level", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["B", "T"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["B", len(class_names)])],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, WEIGHTS.shape, WEIGHTS.ravel()),
            helper.make_tensor("bias", TensorProto.FLOAT, BIAS.shape, BIAS),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    metadata = {
        "schema": METADATA_SCHEMA,
        "class_names": list(class_names),
        "sample_rate": SAMPLE_RATE,
        "clip_seconds": CLIP_SECONDS,
        "n_samples": round(SAMPLE_RATE * CLIP_SECONDS),
        "tta": False,
        "members": [{"run": "a", "path": "/secret/runs/a", "folds": [1, 2], "weight": 1.0}],
        "scores": [{"name": "chosen", "title": "Chosen", "cross_fitted": True, "metrics": {"top1": 0.9}}],
    }
    helper.set_model_props(proto, {METADATA_KEY: json.dumps(metadata)})
    onnx.save(proto, path)
    return path


def expected(level: float) -> np.ndarray:
    """What the tiny model says of a waveform of this mean absolute sample, computed by hand."""
    logits = level * WEIGHTS[0] + BIAS
    return np.exp(logits) / np.exp(logits).sum()


class Stub(Classifier):
    """A classifier that takes its time, and knows how many it heard at once.

    Args:
        seconds: that hearing takes.
        gate: what hearing waits for.
    """

    def __init__(self, seconds: float = 0.0, gate: threading.Event | None = None) -> None:
        self.metadata = {"tta": False, "members": []}
        self.class_names = ("one", "two")
        self.class_numbers = ()
        self.sample_rate, self.clip_seconds, self.n_samples = SAMPLE_RATE, CLIP_SECONDS, SAMPLE_RATE
        self.channel = 0
        self.seconds = seconds
        self.gate = gate
        self.n_now = self.most = self.n_heard = 0
        self._lock = threading.Lock()

    def listen(self, waveforms: np.ndarray) -> np.ndarray:
        with self._lock:
            self.n_now += 1
            self.n_heard += len(waveforms)
            self.most = max(self.most, self.n_now)
        time.sleep(self.seconds)
        if self.gate is not None:
            self.gate.wait(20)
        with self._lock:
            self.n_now -= 1
        return np.tile(np.array([[0.25, 0.75]], dtype=np.float32), (len(waveforms), 1))
