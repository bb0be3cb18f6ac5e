"""A blend as one TorchScript file: `waveform (B, T)` in, `probabilities (B, C)` out, metadata beside the code."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esc_ensemble.export.fused import FusedBlend, Part, describe_model, heard_data, mixing_of
from esc_ensemble.export.parity import Parity, check_parity, read_clips
from esc_ensemble.files import atomic_path
from esc_ensemble.infer import METADATA_KEY


def export_torchscript(
    parts: Sequence[Part], blend: dict[str, Any], clip_paths: Sequence[Path], out: Path
) -> tuple[Path, Parity]:
    """Traces the fused blend and compares the saved file with torch on real clips before it appears.

    `torch.jit.load(path, _extra_files={"esc_ensemble": ""})` gives the network and, as JSON, its metadata.

    Args:
        parts: from `load_parts`.
        blend: the content of blend.json; members, scores and settings go into the metadata.
        clip_paths: audio files to compare on.
        out: the `.pt` file.

    Returns:
        The file's path and the comparison.

    Raises:
        WorkError: the two disagree.
    """
    fused = FusedBlend(parts, mixing_of(blend)).eval()
    waveforms = read_clips(clip_paths, heard_data(parts))
    example = torch.from_numpy(waveforms[:2]).repeat(2, 1)[:2]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of shapes that might be constants: the check below tries others
        traced = torch.jit.trace(fused, (example,), check_trace=False)  # type: ignore[no-untyped-call]
    metadata = json.dumps(describe_model(parts, blend), ensure_ascii=False)
    with atomic_path(out) as temporary:
        torch.jit.save(traced, str(temporary), _extra_files={METADATA_KEY: metadata})
        parity = check_parity(fused, _loaded(temporary), waveforms, "TorchScript")
    return out, parity


def _loaded(path: Path) -> Any:
    network = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def probabilities(waveform: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(waveform)).numpy())

    return probabilities
