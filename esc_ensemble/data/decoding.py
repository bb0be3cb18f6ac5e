"""Many files to 16-bit samples, in worker processes."""

from __future__ import annotations

import hashlib
import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from esc_ensemble.cores import free_cores
from esc_ensemble.data.audio import Waveform, prepare
from esc_ensemble.data.parquet import is_row, read_rows, row_group_ends
from esc_ensemble.errors import DataError
from esc_ensemble.processes import can_spawn, map_chunks

CHUNK = 16
CHUNK_ROWS = 128
FEW_CLIPS = 128
INT16_SCALE = 32768.0
Result = TypeVar("Result")
SILENT = ""
"""In the place of the digest of a clip that is digital silence, or another constant."""


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
    yield from map_files(partial(decode_one, recipe=recipe), paths, n_workers)


def map_files(
    work: Callable[..., Result | str], paths: Sequence[Path], n_workers: int = 0, *, threads: bool = False
) -> Iterator[Result | str]:
    """Calls `work` on each file or row of a Parquet file, as `read_chunk` does, in parallel; results are in order.

    Args:
        work: what can be pickled, where processes do it.
        paths: the files.
        n_workers: processes; 0 takes the free cores. Few files are worked on in this process.
        threads: use threads instead, for work that waits for the disk or releases the interpreter's lock.

    Raises:
        WorkError: a worker process died.
    """
    do = partial(read_chunk, work=work)
    if threads:
        with ThreadPoolExecutor(2 * free_cores()) as pool:
            for results in pool.map(do, split_chunks(paths)):
                yield from results
        return
    n_workers = min(n_workers or free_cores(), -(-len(paths) // CHUNK))
    if n_workers <= 1 or len(paths) < FEW_CLIPS or not can_spawn():
        for chunk in split_chunks(paths):
            yield from do(chunk)
        return
    yield from map_chunks(do, split_chunks(paths), n_workers, "decoding")


def split_chunks(paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """Cuts paths into pieces of work: `CHUNK` files, or rows of a Parquet file that are read together."""
    ends: dict[Path, list[int]] = {}

    def group(path: Path) -> tuple[Path | None, int]:
        if not is_row(path):
            return None, 0
        shard = path.parent
        if shard not in ends:
            ends[shard] = row_group_ends(shard)
        return shard, bisect_right(ends[shard], int(path.name))

    for (shard, _), same in groupby(paths, key=group):
        together = list(same)
        size = CHUNK if shard is None else CHUNK_ROWS
        yield from (together[start : start + size] for start in range(0, len(together), size))


def read_chunk(paths: Sequence[Path], work: Callable[..., Result | str]) -> list[Result | str]:
    """Calls `work` on files, or on the content of rows of one Parquet file, which are read together.

    Args:
        paths: as `split_chunks` returns them.
        work: takes a file or its content, and the keyword `name` for messages; returns a message where it fails.
    """
    if not is_row(paths[0]):
        return [work(path, name=str(path)) for path in paths]
    order = sorted(range(len(paths)), key=lambda place: int(paths[place].name))
    done: dict[int, Result | str] = {}
    try:
        rows = read_rows(paths[0].parent, [int(paths[place].name) for place in order])
        for place, content in zip(order, rows, strict=False):
            done[place] = work(io.BytesIO(content), name=str(paths[place]))
    except DataError as error:  # the file is damaged from here on
        return [done.get(place, str(error)) for place in range(len(paths))]
    return [done.get(place, f"{path.parent} has no row {path.name}.") for place, path in enumerate(paths)]


def decode_one(source: Path | BinaryIO, recipe: Recipe, *, name: str = "") -> Decoded | str:
    """Decodes one clip, or returns the message that says why that is impossible.

    Args:
        source: the file, or its content.
        recipe: what to make of it.
        name: what messages call it; its path where not given.
    """
    try:
        waveform = prepare(source, recipe.sample_rate, recipe.n_samples, recipe.fit, recipe.trim_db, name=name)
    except DataError as error:
        return str(error)
    values = to_int16(waveform).astype("<i2", copy=False)
    samples = values.tobytes()
    # A clip that holds one value throughout is no evidence that a recording was copied.
    digest = hashlib.sha256(samples).hexdigest()[:32] if np.any(values != values[0]) else SILENT
    return Decoded(samples, digest)


def to_int16(waveform: Waveform) -> npt.NDArray[np.int16]:
    """Rounds samples in [-1, 1] to 16 bits of full scale 32768, which gives 16-bit files back bit for bit."""
    scaled: Waveform = np.rint(waveform * np.float32(INT16_SCALE))
    return np.clip(scaled, -32768, 32767).astype(np.int16)
