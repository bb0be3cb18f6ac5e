"""Many files to 16-bit samples, in worker processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from esc_ensemble.cores import free_cores
from esc_ensemble.data.audio import Waveform, prepare
from esc_ensemble.errors import DataError
from esc_ensemble.processes import can_spawn, map_chunks

CHUNK = 16
FEW_CLIPS = 128
INT16_SCALE = 32768.0


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a clip's waveform."""

    sample_rate: int
    n_samples: int
    fit: Literal["tile", "pad"]
    trim_db: float


@dataclass(frozen=True)
class Decoded:
    """The samples of one clip as little-endian 16-bit numbers, and a digest of them."""

    samples: bytes
    digest: str


def decode_all(paths: Sequence[Path], recipe: Recipe, n_workers: int) -> Iterator[Decoded | str]:
    """Decodes files in order; gives a message in the place of one that cannot be decoded.

    Args:
        paths: the files.
        recipe: what to make of them.
        n_workers: processes; 0 takes the free cores. Few files are decoded in this process.

    Raises:
        WorkError: a worker process died.
    """
    n_workers = min(n_workers or free_cores(), -(-len(paths) // CHUNK))
    if n_workers <= 1 or len(paths) < FEW_CLIPS or not can_spawn():
        for path in paths:
            yield decode_one(path, recipe)
        return
    chunks = (paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK))
    yield from map_chunks(partial(decode_chunk, recipe=recipe), chunks, n_workers, "decoding")


def decode_chunk(paths: Sequence[Path], recipe: Recipe) -> list[Decoded | str]:
    """Decodes files one by one. Stands at the top of the module so that a spawned process can import it."""
    return [decode_one(path, recipe) for path in paths]


def decode_one(path: Path, recipe: Recipe) -> Decoded | str:
    """Decodes one file, or gives the message that says why it cannot be."""
    try:
        waveform = prepare(path, recipe.sample_rate, recipe.n_samples, recipe.fit, recipe.trim_db)
    except DataError as error:
        return str(error)
    samples = to_int16(waveform).astype("<i2", copy=False).tobytes()
    return Decoded(samples, hashlib.sha256(samples).hexdigest()[:32])


def to_int16(waveform: Waveform) -> npt.NDArray[np.int16]:
    """Rounds samples in [-1, 1] to 16 bits of full scale 32768, which gives 16-bit files back bit for bit."""
    scaled: Waveform = np.rint(waveform * np.float32(INT16_SCALE))
    return np.clip(scaled, -32768, 32767).astype(np.int16)
