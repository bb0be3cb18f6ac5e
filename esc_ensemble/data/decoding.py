"""Many files to 16-bit samples, in worker processes."""

from __future__ import annotations

import hashlib
import io
import tempfile
import uuid
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import IO, BinaryIO

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
    chunks = split_chunks(paths, size)
    work = partial(decode_chunk, recipe=recipe, scratch=scratch)
    n_workers = min(n_workers or free_cores(), -(-len(paths) // size))
    few = FEW_CLIPS if size > 1 else 2
    if n_workers <= 1 or len(paths) < few or not can_spawn():
        for chunk in chunks:
            yield from work(chunk)
        return
    yield from map_chunks(work, chunks, n_workers, "decoding")


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


def decode_chunk(paths: Sequence[Path], recipe: Recipe, scratch: str = "") -> list[Decoded | str]:
    """Decodes files, or rows of one Parquet file; at the top of the module so that a spawned process can import it."""
    if not is_row(paths[0]):
        return [decode_one(path, recipe, scratch) for path in paths]
    order = sorted(range(len(paths)), key=lambda place: int(paths[place].name))
    decoded: dict[int, Decoded | str] = {}
    try:
        rows = read_rows(paths[0].parent, [int(paths[place].name) for place in order])
        for place, content in zip(order, rows, strict=False):
            decoded[place] = decode_one(io.BytesIO(content), recipe, scratch, name=str(paths[place]))
    except DataError as error:  # the file is damaged from here on
        return [decoded.get(place, str(error)) for place in range(len(paths))]
    return [decoded.get(place, f"{path.parent} has no row {path.name}.") for place, path in enumerate(paths)]


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
