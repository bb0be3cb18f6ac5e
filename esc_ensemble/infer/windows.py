"""Recordings of any length, cut into windows as long as the clips that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from esc_ensemble.data.audio import Waveform, ignore, stream


def cut_windows(
    path: Path,
    sample_rate: int,
    n_window: int,
    overlap: float,
    *,
    channel: int = 0,
    note: Callable[[str], object] = ignore,
) -> Iterator[tuple[int, Waveform]]:
    """Cuts a recording into overlapping windows, reading no more of it at a time than they need.

    Args:
        path: the recording.
        sample_rate: in Hz, of the windows.
        n_window: their length N in samples.
        overlap: part of a window that the next one holds too, from 0 up to, but not, 1.
        channel: as for `decode`.
        note: as for `decode`.

    Yields:
        As `cut` does.

    Raises:
        DataError: the recording cannot be read.
    """
    yield from cut(stream(path, sample_rate, channel=channel, note=note), n_window, overlap)


def cut(pieces: Iterable[Waveform], n_window: int, overlap: float) -> Iterator[tuple[int, Waveform]]:
    """Cuts a recording that comes in pieces (T,) into overlapping windows.

    The last window ends with the recording and so may overlap more. What is shorter than a window is one.

    Args:
        pieces: the recording, one piece after the other.
        n_window: the windows' length N in samples.
        overlap: part of a window that the next one holds too, from 0 up to, but not, 1.

    Yields:
        Where a window begins in samples, and the window (N,), or less of a shorter recording.
    """
    hop = hop_samples(n_window, overlap)
    held = np.zeros(0, dtype=np.float32)
    offset = 0  # where in the recording `held` begins
    start, covered = 0, 0  # of the next window, and the end of the last
    for piece in pieces:
        held = np.concatenate([held, piece])
        n_read = offset + len(held)
        while start + n_window <= n_read:
            yield start, held[start - offset : start - offset + n_window]
            start, covered = start + hop, start + n_window
        # A window's length is kept, should the recording end here.
        dropped = max(0, min(start, n_read - n_window) - offset)
        held, offset = held[dropped:], offset + dropped
    n_read = offset + len(held)
    if covered < n_read:
        yield max(0, n_read - n_window), held[-n_window:]


def hop_samples(n_window: int, overlap: float) -> int:
    """Gives the samples from one window's start to the next one's."""
    return max(1, round(n_window * (1.0 - overlap)))


def count_windows(n_samples: int, n_window: int, overlap: float) -> int:
    """Gives the number of windows that `cut` makes of a recording of `n_samples`."""
    return 1 + math.ceil(max(0, n_samples - n_window) / hop_samples(n_window, overlap))
