"""How near an exported file comes to torch, and the refusal of one that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from esc_ensemble.config import DataConfig
from esc_ensemble.data.audio import decode
from esc_ensemble.errors import WorkError
from esc_ensemble.export.fused import FusedBlend

LARGEST_DIFFERENCE = 1e-4

Probabilities = Callable[[np.ndarray], np.ndarray]
"""Waveforms (B, T) float32 to probabilities (B, C)."""


@dataclass(frozen=True)
class Parity:
    """How near an exported file's probabilities came to torch's."""

    n_clips: int
    max_difference: float
    same_top1: bool


def read_clips(paths: Sequence[Path], data: DataConfig) -> list[np.ndarray]:
    """Gives waveforms (T,) of files, each as long as it is, as the exported file is to hear them."""
    return [decode(path, data.sample_rate, channel=data.channel) for path in paths]


def measure_parity(fused: FusedBlend, exported: Probabilities, waveforms: Sequence[np.ndarray]) -> Parity:
    """Runs both on the same waveforms: each clip alone, some together, one at odd lengths and faint.

    Args:
        fused: torch's.
        exported: the file's.
        waveforms: real clips (T,), of any length each.
    """
    ours, theirs = [], []
    for batch in _batches(waveforms):
        with torch.inference_mode():
            ours.append(fused(torch.from_numpy(batch)).numpy())
        theirs.append(exported(batch))
    torch_probs, file_probs = np.concatenate(ours), np.concatenate(theirs)
    return Parity(
        n_clips=len(waveforms),
        max_difference=float(np.abs(torch_probs - file_probs).max()),
        same_top1=bool((torch_probs.argmax(axis=1) == file_probs.argmax(axis=1)).all()),
    )


def check_parity(parity: Parity, what: str) -> None:
    """Refuses a file that is not torch's network.

    Raises:
        WorkError: the two disagree by more than `LARGEST_DIFFERENCE`, or on a clip's top class.
    """
    if not parity.max_difference <= LARGEST_DIFFERENCE or not parity.same_top1:  # so that NaN fails too
        raise WorkError(
            f"{what} and torch disagree by {parity.max_difference:.1e} on {parity.n_clips} clips "
            f"(at most {LARGEST_DIFFERENCE:.0e} is allowed), so the file was not written."
        )


def _batches(waveforms: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Gives batches (B, T): every clip alone; three together with zeros behind the shorter; one cut, doubled, faint."""
    yield from (np.ascontiguousarray(clip[None]) for clip in waveforms)
    few = waveforms[:3]
    longest = max(map(len, few))
    yield np.stack([np.pad(clip, (0, longest - len(clip))) for clip in few])
    first = waveforms[0]
    for other in (first[: 1 + len(first) // 20], np.tile(first, 2), 1e-2 * first):
        yield np.ascontiguousarray(other[None])
