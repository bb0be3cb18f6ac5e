"""A blend as one `.onnx` file: `waveform (B, T)` in, `probabilities (B, C)` out, all metadata inside."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from esc_ensemble import __version__
from esc_ensemble.data.audio import prepare
from esc_ensemble.errors import WorkError
from esc_ensemble.export.fused import FusedBlend, Part, heard_data
from esc_ensemble.files import atomic_path
from esc_ensemble.infer import METADATA_KEY, METADATA_SCHEMA

LARGEST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Parity:
    """How near onnxruntime's probabilities came to torch's."""

    n_clips: int
    max_difference: float
    same_top1: bool


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
        WorkError: the two disagree by more than `LARGEST_DIFFERENCE`, or on a clip's top class.
    """
    fused = FusedBlend(parts, blend["combiner"]).eval()
    data = heard_data(parts)
    n_samples = parts[0].spec.n_samples
    waveforms = np.stack([prepare(path, data.sample_rate, n_samples, data.fit, data.trim_db) for path in clip_paths])
    with atomic_path(out) as temporary:
        _write_graph(fused, torch.from_numpy(waveforms[:2]).repeat(2, 1)[:2], temporary)
        _write_metadata(temporary, describe_model(parts, blend))
        parity = compare(fused, temporary, waveforms)
        if not parity.max_difference <= LARGEST_DIFFERENCE or not parity.same_top1:  # so that NaN fails too
            raise WorkError(
                f"onnxruntime and torch disagree by {parity.max_difference:.1e} on {parity.n_clips} clips "
                f"(at most {LARGEST_DIFFERENCE:.0e} is allowed), so {out} was not written."
            )
    return out, parity


def describe_model(parts: Sequence[Part], blend: dict[str, Any]) -> dict[str, Any]:
    """Gives the metadata: all that a reader needs to go from files to named predictions, and where it is from."""
    data = heard_data(parts)
    return {
        "schema": METADATA_SCHEMA,
        "name": blend["name"],
        "class_names": blend["class_names"],
        "sample_rate": data.sample_rate,
        "clip_seconds": data.clip_seconds,
        "n_samples": parts[0].spec.n_samples,
        "fit": data.fit,
        "trim_db": data.trim_db,
        "combiner": blend["combiner"],
        "tta": blend["tta"],
        "members": blend["members"],
        "scores": blend["scores"],
        "dataset_fingerprint": blend["dataset_fingerprint"],
        "esc_ensemble": __version__,
        "torch": torch.__version__,
    }


def compare(fused: FusedBlend, path: Path, waveforms: np.ndarray, batch_size: int = 16) -> Parity:
    """Runs both on the same waveforms (N, T), in batches and, for the first clip, alone."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    ours, theirs = [], []
    starts = [
        slice(0, 1),
        *(slice(start, start + batch_size) for start in range(0, len(waveforms), batch_size)),
    ]
    for part in starts:
        batch = np.ascontiguousarray(waveforms[part])
        with torch.inference_mode():
            ours.append(fused(torch.from_numpy(batch)).numpy())
        theirs.append(session.run(["probabilities"], {"waveform": batch})[0])
    torch_probs, onnx_probs = np.concatenate(ours), np.concatenate(theirs)
    return Parity(
        n_clips=len(waveforms),
        max_difference=float(np.abs(torch_probs - onnx_probs).max()),
        same_top1=bool((torch_probs.argmax(axis=1) == onnx_probs.argmax(axis=1)).all()),
    )


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
