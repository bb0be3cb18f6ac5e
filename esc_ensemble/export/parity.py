"""How near an exported file comes to torch, and the refusal of one that does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from esc_ensemble.config import DataConfig
from esc_ensemble.data.audio import prepare
from esc_ensemble.errors import WorkError
from esc_ensemble.export.fused import FusedBlend

LARGEST_DIFFERENCE = 1e-4
BATCH_SIZE = 16
SHORTER = 0.7
"""Part of the clips' length that the file is tried at too: it takes any."""

Probabilities = Callable[[np.ndarray], np.ndarray]
"""Waveforms (B, T) float32 to probabilities (B, C)."""


@dataclass(frozen=True)
class Parity:
    """How near an exported file's probabilities came to torch's."""

    n_clips: int
    max_difference: float
    same_top1: bool


def read_clips(paths: Sequence[Path], data: DataConfig) -> np.ndarray:
    """Gives waveforms (N, T) of files, as the exported file is to hear them."""
    return np.stack([prepare(path, data.sample_rate, data.n_samples, data.fit, data.trim_db) for path in paths])


def check_parity(fused: FusedBlend, exported: Probabilities, waveforms: np.ndarray, what: str) -> Parity:
    """Runs both on the same waveforms (N, T): in batches, one clip alone, three together, and at another length.

    Args:
        fused: torch's.
        exported: the file's.
        waveforms: real clips.
        what: the runtime, for the message.

    Raises:
        WorkError: the two disagree by more than `LARGEST_DIFFERENCE`, or on a clip's top class.
    """
    shorter = waveforms[:, : round(SHORTER * waveforms.shape[1])]
    batches = [waveforms[start : start + BATCH_SIZE] for start in range(0, len(waveforms), BATCH_SIZE)]
    batches += [waveforms[:1], waveforms[:3], shorter[:1], shorter[:3]]
    ours, theirs = [], []
    for batch in map(np.ascontiguousarray, batches):
        with torch.inference_mode():
            ours.append(fused(torch.from_numpy(batch)).numpy())
        theirs.append(exported(batch))
    torch_probs, file_probs = np.concatenate(ours), np.concatenate(theirs)
    parity = Parity(
        n_clips=len(waveforms),
        max_difference=float(np.abs(torch_probs - file_probs).max()),
        same_top1=bool((torch_probs.argmax(axis=1) == file_probs.argmax(axis=1)).all()),
    )
    if not parity.max_difference <= LARGEST_DIFFERENCE or not parity.same_top1:  # so that NaN fails too
        raise WorkError(
            f"{what} and torch disagree by {parity.max_difference:.1e} on {parity.n_clips} clips "
            f"(at most {LARGEST_DIFFERENCE:.0e} is allowed), so the file was not written."
        )
    return parity
