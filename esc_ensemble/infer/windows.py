"""Recordings of any length, cut into windows as long as the clips that a model was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from esc_ensemble.data.audio import Waveform, stream


def cut_windows(path: Path, sample_rate: int, n_window: int, overlap: float) -> Iterator[tuple[int, Waveform]]:
    """Cuts a recording into overlapping windows, reading no more of it at a time than they need.

    The last window ends with the recording and so may overlap more. What is shorter than a window is one.

    Args:
        path: the recording.
        sample_rate: in Hz, of the windows.
        n_window: their length N in samples.
        overlap: part of a window that the next one holds too, from 0 up to, but not, 1.

    Yields:
        Where a window begins in samples, and the window (N,), or less of a shorter recording.

    Raises:
        DataError: the recording cannot be read.
    """
    hop = max(1, round(n_window * (1.0 - overlap)))
    held = np.zeros(0, dtype=np.float32)
    offset = 0  # where in the recording `held` begins
    start, covered = 0, 0  # of the next window, and the end of the last
    for piece in stream(path, sample_rate):
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
