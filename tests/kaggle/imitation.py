"""Folders as a kernel finds them, and small models for them."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import soundfile
from onnx import TensorProto, helper

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "kaggle_kernel.py"
sys.path.insert(0, str(ROOT))  # the kernel is a module of the top level


def write_clips(folder: Path, names: Sequence[str], seconds: float = 0.5, rate: int = 8000) -> list[Path]:
    """Noise of different loudness, one file a name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).standard_normal(int(seconds * rate)) * 0.02 * (number + 1)
        soundfile.write(path, np.clip(noise, -1.0, 1.0), rate)
        paths.append(path)
    return paths


def write_sample(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.reader(handle))


def write_onnx(path: Path, names: Sequence[str], metadata: Mapping[str, Any] | None = None) -> Path:
    """A model that says a class by how loud a clip is: the mean of its squares against rising bounds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n = len(names)
    bounds = np.linspace(0.0, 0.05, n, dtype=np.float32)
    nodes = [
        helper.make_node("Mul", ["waveform", "waveform"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "axes"], ["level"], keepdims=1),
        helper.make_node("Sub", ["level", "bounds"], ["apart"]),
        helper.make_node("Abs", ["apart"], ["distance"]),
        helper.make_node("Mul", ["distance", "sharp"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "loudness",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["B", "T"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["B", n])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            helper.make_tensor("bounds", TensorProto.FLOAT, [1, n], bounds),
            helper.make_tensor("sharp", TensorProto.FLOAT, [1], [-200.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    told = {
        **{"schema": 2, "class_names": list(names), "class_numbers": [], "sample_rate": 8000, "clip_seconds": 1.0},
        **{"n_samples": 8000, "tta": False, "members": [], "scores": []},
        **(metadata or {}),
    }
    helper.set_model_props(model, {"esc_ensemble": json.dumps(told)})
    onnx.save(model, path)
    return path
