"""Many files to 16-bit samples, in worker processes."""

from __future__ import annotations

import hashlib
import io
import tempfile
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import IO, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from esc_ensemble.cores import free_cores
from esc_ensemble.data.audio import LONG_SAMPLES, Recipe, Waveform, prepare_blocks
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
class Decoded:
    """The samples of one clip as little-endian 16-bit numbers, and a digest of them."""

    samples: bytes | Path
    """A file of them where they are many; whoever reads it deletes it."""
    digest: str
    note: str = ""
    """What is worth a message and no error."""


def decode_all(paths: Sequence[Path], recipe: Recipe, n_workers: int, scratch: str = "") -> Iterator[Decoded | str]:
    """Decodes files in order; returns a message in the place of one that cannot be decoded.

    Args:
        paths: the files.
        recipe: what to make of them.
        n_workers: processes; 0 takes the free cores. Few files are decoded in this process.
        scratch: first part of the paths of files that hold the samples of long clips; in the folder for temporary
            files where not given.

    Raises:
        WorkError: a worker process died.
    """
    size = CHUNK if recipe.n_samples <= LONG_SAMPLES else 1
    yield from map_files(partial(decode_one, recipe=recipe, scratch=scratch), paths, n_workers, size=size)


def map_files(
    work: Callable[..., Result | str],
    paths: Sequence[Path],
    n_workers: int = 0,
    *,
    threads: bool = False,
    size: int = CHUNK,
) -> Iterator[Result | str]:
    """Calls `work` on each file or row of a Parquet file, as `read_chunk` does, in parallel; results are in order.

    Args:
        work: what can be pickled, where processes do it.
        paths: the files.
        n_workers: processes; 0 takes the free cores. Few files are worked on in this process.
        threads: use threads instead, for work that waits for the disk or releases the interpreter's lock.
        size: files that one process works on at a time.

    Raises:
        WorkError: a worker process died.
    """
    do = partial(read_chunk, work=work)
    if threads:
        with ThreadPoolExecutor(2 * free_cores()) as pool:
            for results in pool.map(do, split_chunks(paths, size)):
                yield from results
        return
    n_workers = min(n_workers or free_cores(), -(-len(paths) // size))
    few = FEW_CLIPS if size > 1 else 2
    if n_workers <= 1 or len(paths) < few or not can_spawn():
        for chunk in split_chunks(paths, size):
            yield from do(chunk)
        return
    yield from map_chunks(do, split_chunks(paths, size), n_workers, "decoding")


def split_chunks(paths: Sequence[Path], size: int = CHUNK) -> Iterator[Sequence[Path]]:
    """Cuts paths into units of work: `size` files, or rows of a Parquet file that are read together."""
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
        step = size if shard is None or size == 1 else CHUNK_ROWS
        yield from (together[start : start + step] for start in range(0, len(together), step))


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


def decode_one(source: Path | BinaryIO, recipe: Recipe, scratch: str = "", *, name: str = "") -> Decoded | str:
    """Decodes one clip, or returns the message that says why that is impossible.

    Args:
        source: the file, or its content.
        recipe: what to make of it.
        scratch: as for `decode_all`.
        name: what messages call it; its path where not given.
    """
    digest, first, constant = hashlib.sha256(), 0, True
    notes: list[str] = []
    with ExitStack() as stack:
        path: Path | None = None
        target: IO[bytes] = io.BytesIO()
        if recipe.n_samples > LONG_SAMPLES:
            path = Path(f"{scratch or Path(tempfile.gettempdir(), 'esc_ensemble')}-{uuid.uuid4().hex}.samples")
            target = stack.enter_context(path.open("wb"))
        try:
            for number, block in enumerate(prepare_blocks(source, recipe, name=name, note=notes.append)):
                values = to_int16(block).astype("<i2", copy=False)
                first = int(values[0]) if not number else first
                constant = constant and not np.any(values != first)
                samples = values.tobytes()
                digest.update(samples)
                target.write(samples)
        except DataError as error:
            if path is not None:
                path.unlink()
            return str(error)
        # A clip that has one value throughout is no evidence that a recording was copied.
        found = SILENT if constant else digest.hexdigest()[:32]
        return Decoded(path or target.getvalue(), found, "; ".join(notes))  # type: ignore[attr-defined]


def to_int16(waveform: Waveform) -> npt.NDArray[np.int16]:
    """Rounds samples in [-1, 1] to 16 bits of full scale 32768, which gives 16-bit files back bit for bit."""
    scaled: Waveform = np.rint(waveform * np.float32(INT16_SCALE))
    return np.clip(scaled, -32768, 32767).astype(np.int16)
