"""A blend as files of torch itself: TorchScript, and what `torch.export` makes (`.pt2`)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.graph import DYNAMIC
from esc_ensemble.export.parity import Probabilities
from esc_ensemble.export.parts import heard_data
from esc_ensemble.infer import METADATA_KEY


def save_torchscript(fused: FusedBlend, metadata: dict[str, Any], path: Path) -> None:
    """Traces the fused blend.

    `torch.jit.load(path, _extra_files={"esc_ensemble": ""})` gives the network and, as JSON, its metadata.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of shapes that might be constants: the parity check tries others
        traced = torch.jit.trace(fused, (_example(fused),), check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(path), _extra_files={METADATA_KEY: json.dumps(metadata, ensure_ascii=False)})


def run_torchscript(path: Path) -> Probabilities:
    """Gives a function from waveforms (B, T) to a file's probabilities (B, C)."""
    return _runner(torch.jit.load(str(path)))  # type: ignore[no-untyped-call]


def save_pt2(fused: FusedBlend, metadata: dict[str, Any], path: Path) -> None:
    """Writes the fused blend as `torch.export` has it.

    `torch.export.load(path, extra_files={"esc_ensemble": ""})` gives the program, whose `.module()` is the network,
    and, as JSON, its metadata.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        shapes = {"waveform": {0: DYNAMIC, 1: DYNAMIC}}
        program = torch.export.export(fused, (_example(fused),), dynamic_shapes=shapes, strict=False)
        extra = {METADATA_KEY: json.dumps(metadata, ensure_ascii=False)}
        with path.open("wb") as file:  # of a path it would check the ending
            torch.export.save(program, file, extra_files=extra)


def run_pt2(path: Path) -> Probabilities:
    """Gives a function from waveforms (B, T) to a file's probabilities (B, C)."""
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a buffer that nobody writes to
        return _runner(torch.export.load(file).module())


def _example(fused: FusedBlend) -> Tensor:
    # Of a length that nothing else has, which tracing would take for the same.
    n_samples = heard_data(fused.parts).n_samples + 13
    return 0.1 * torch.randn(2, n_samples, generator=torch.Generator().manual_seed(0))


def _runner(network: Callable[[Tensor], Tensor]) -> Probabilities:
    def probabilities(waveform: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(waveform)).numpy())

    return probabilities
