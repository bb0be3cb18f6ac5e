"""Many files to 16-bit samples, in worker processes."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from esc_ensemble.cores import free_cores
from esc_ensemble.data.audio import Waveform, prepare
from esc_ensemble.errors import DataError, WorkError
from esc_ensemble.processes import can_spawn, follow_parent

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
    # Spawned, not forked: a fork of a process with running threads (torch, the progress bar) may hang.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(n_workers, mp_context=context, initializer=follow_parent)
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    waiting: deque[Future[list[Decoded | str]]] = deque()
    try:
        for chunk in chunks:
            # No more than a few chunks ahead, so that a slow disk does not fill the memory with results.
            if len(waiting) >= 3 * n_workers:
                yield from waiting.popleft().result()
            waiting.append(executor.submit(decode_chunk, chunk, recipe))
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise WorkError(
            "A worker process died while decoding; most often the memory ran out. Try fewer workers. "
            'A script that calls this needs `if __name__ == "__main__":` around its work.'
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


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
