"""What the samples of each clip show: level, silence, clipping and bandwidth."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from esc_ensemble.data.audio import Waveform, decode, read_header, trim_frame, trim_silence
from esc_ensemble.data.decoding import SILENT, map_files, to_int16
from esc_ensemble.errors import DataError
from esc_ensemble.progress import progress

SILENCE_DB = 60.0
"""Below the clip's peak, as in the setting data.trim_db."""
BANDWIDTH_DB = 80.0
"""Below the strongest frequency."""
BANDWIDTH_FRAME = 2048
FULL_SCALE = 0.999


@dataclass(frozen=True)
class ClipStatistics:
    """Figures of one clip, taken from the mean of its channels at its own rate."""

    seconds: float
    sample_rate: int
    n_channels: int
    rms_db: float
    """Root mean square in dB of full scale; -inf of digital silence, as is `peak_db`."""
    peak_db: float
    silent: float
    """Fraction of 10 ms frames that stay more than `SILENCE_DB` below the clip's peak; 1 of digital silence."""
    leading: float
    """Seconds of silence before the first other frame, the whole clip of digital silence."""
    trailing: float
    """Seconds of silence behind the last other frame; 0 of digital silence."""
    clipped: float
    """Fraction of samples at full scale next to another one."""
    bandwidth: float
    """Highest frequency in Hz at which the mean spectrum is within `BANDWIDTH_DB` of its maximum; 0 of silence."""
    digest: str
    """Of its samples without silent ends: equal for equal audio; empty for digital silence."""


def measure_all(paths: Sequence[Path], n_workers: int = 0) -> list[ClipStatistics | str]:
    """Decodes and measures files in worker processes; a message stands in for one that cannot be decoded."""
    results = []
    with progress("Levels, silence, bandwidth", len(paths)) as advance:
        for result in map_files(measure_file, paths, n_workers):
            results.append(result)
            advance()
    return results


def measure_file(source: Path | BinaryIO, *, name: str = "") -> ClipStatistics | str:
    """Decodes and measures one file, or its content; returns a message where that is impossible."""
    try:
        header = read_header(source, name=name)
        if not isinstance(source, Path):
            source.seek(0)
        return measure(decode(source, header.sample_rate, name=name), header.sample_rate, header.n_channels)
    except DataError as error:
        return str(error)


def measure(waveform: Waveform, sample_rate: int, n_channels: int = 1) -> ClipStatistics:
    """Measures a waveform (T,), not empty, at `sample_rate` in Hz."""
    levels = np.abs(waveform)
    peak = float(levels.max())
    seconds = len(waveform) / sample_rate
    if not peak:
        figures = {"rms_db": -np.inf, "peak_db": -np.inf, "silent": 1.0, "leading": seconds, "trailing": 0.0}
        return ClipStatistics(seconds, sample_rate, n_channels, **figures, clipped=0.0, bandwidth=0.0, digest=SILENT)
    frame = trim_frame(sample_rate)
    starts = np.arange(0, len(levels), frame)
    loud = np.flatnonzero(np.maximum.reduceat(levels, starts) >= peak * 10.0 ** (-SILENCE_DB / 20.0))
    full = levels >= FULL_SCALE
    beside = np.zeros_like(full)
    beside[1:] |= full[:-1]
    beside[:-1] |= full[1:]
    return ClipStatistics(
        seconds,
        sample_rate,
        n_channels,
        rms_db=float(10.0 * np.log10(np.mean(np.square(waveform, dtype=np.float64)))),
        peak_db=float(20.0 * np.log10(peak)),
        silent=1.0 - len(loud) / len(starts),
        leading=float(loud[0] * frame / sample_rate),
        trailing=float(max(0, len(levels) - (loud[-1] + 1) * frame) / sample_rate),
        clipped=float(np.mean(full & beside)),
        bandwidth=bandwidth(waveform, sample_rate),
        digest=hashlib.sha256(to_int16(trim_silence(waveform, sample_rate, SILENCE_DB)).tobytes()).hexdigest()[:32],
    )


def bandwidth(waveform: Waveform, sample_rate: int) -> float:
    """Returns the highest frequency in Hz at which the mean power spectrum is within `BANDWIDTH_DB` of its maximum.

    A codec or an old rate leaves an edge there. The lowest two bins, which an offset reaches, do not count.
    """
    n_fft = min(BANDWIDTH_FRAME, len(waveform))
    whole = len(waveform) // n_fft * n_fft
    frames: Waveform = waveform[:whole].reshape(-1, n_fft)  # (T,) -> (L, n_fft)
    spectrum = np.fft.rfft(frames * np.hanning(n_fft).astype(np.float32))
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=0)[2:]  # (L, bins) -> (bins,)
    if not power.any():
        return 0.0
    highest = np.flatnonzero(power >= power.max() * 10.0 ** (-BANDWIDTH_DB / 10.0))[-1]
    return float((highest + 2) * sample_rate / n_fft)
