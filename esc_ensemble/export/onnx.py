"""A blend as one `.onnx` file: `waveform (B, T)` in, `probabilities (B, C)` out, all metadata inside."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from esc_ensemble.export.fused import FusedBlend, Part, describe_model, heard_data, mixing_of
from esc_ensemble.export.parity import Parity, Probabilities, check_parity, read_clips
from esc_ensemble.files import atomic_path
from esc_ensemble.infer import METADATA_KEY


def export_onnx(
    parts: Sequence[Part], blend: dict[str, Any], clip_paths: Sequence[Path], out: Path
) -> tuple[Path, Parity]:
    """Exports the fused blend and compares it with torch on real clips before the file appears.

    Args:
        parts: from `load_parts`.
        blend: the content of blend.json; members, scores and settings go into the metadata.
        clip_paths: audio files to compare on.
        out: the `.onnx` file.

    Returns:
        The file's path and the comparison.

    Raises:
        WorkError: the two disagree.
    """
    fused = FusedBlend(parts, mixing_of(blend)).eval()
    waveforms = read_clips(clip_paths, heard_data(parts))
    with atomic_path(out) as temporary:
        _write_graph(fused, torch.from_numpy(waveforms[:2]).repeat(2, 1)[:2], temporary)
        _write_metadata(temporary, describe_model(parts, blend))
        parity = check_parity(fused, _session(temporary), waveforms, "onnxruntime")
    return out, parity


def _session(path: Path) -> Probabilities:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda waveform: np.asarray(session.run(["probabilities"], {"waveform": waveform})[0])


def _write_graph(fused: FusedBlend, example: torch.Tensor, path: Path) -> None:
    dynamic = {"waveform": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the exporter tells of every optional package that is not there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                fused,
                (example,),
                str(path),
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=["waveform"],
                output_names=["probabilities"],
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)


def _write_metadata(path: Path, metadata: dict[str, Any]) -> None:
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata, ensure_ascii=False)})
    onnx.save(model, path)
