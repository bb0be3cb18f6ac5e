"""One audio file to one waveform: decode, mix to mono, resample, cut silence, fit to a length.

Needs numpy, soundfile and soxr alone: it stands in the way of every start of ONNX inference.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from esc_ensemble.data.containers import missing_end
from esc_ensemble.errors import DataError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus")
"""File name endings, in lower case, that this package decodes."""

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 768_000
MAX_PEAK = 16.0
TRIM_FRAME_SECONDS = 0.01
BLOCK_FRAMES = 1 << 20

Waveform = npt.NDArray[np.float32]


def decode(path: Path, sample_rate: int) -> Waveform:
    """Reads a file as mono at `sample_rate` in Hz.

    Channels are averaged; the resampler is soxr's HQ, after which the few samples that overshoot are clipped.

    Returns:
        (T,) float32 in [-1, 1].

    Raises:
        DataError: the file is absent, empty, not audio or cut short, or its samples are none, not finite or
            far out of range.
    """
    samples, file_rate = _read(path)
    mono: Waveform = samples.mean(axis=1)  # (T, channels) -> (T,)
    if not np.isfinite(mono).all():
        raise DataError(f"{path} holds samples that are NaN or infinite. Write it again without them.")
    peak = float(np.abs(mono).max())
    if peak > MAX_PEAK:
        raise DataError(
            f"{path} reaches {peak:g}; samples stored as floats must lie in [-1, 1]. Divide them by their full scale."
        )
    if file_rate != sample_rate:
        mono = soxr.resample(mono, file_rate, sample_rate, quality="HQ")
    if mono.size == 0:
        raise DataError(f"{path} is shorter than one sample at {sample_rate} Hz.")
    clipped: Waveform = np.clip(mono, -1.0, 1.0).astype(np.float32, copy=False)
    return clipped


def trim_silence(waveform: Waveform, sample_rate: int, trim_db: float) -> Waveform:
    """Cuts both ends where 10 ms frames stay more than `trim_db` below the clip's peak.

    Args:
        waveform: (T,).
        sample_rate: in Hz.
        trim_db: in dB below the largest absolute sample; 0 cuts nothing.

    Returns:
        A view of at least one frame; the whole of a clip that is silent throughout.
    """
    levels = np.abs(waveform)
    peak = float(levels.max(initial=0.0))
    if trim_db <= 0.0 or peak == 0.0:
        return waveform
    frame = trim_frame(sample_rate)
    loud = np.flatnonzero(levels >= peak * 10.0 ** (-trim_db / 20.0))
    start = int(loud[0]) // frame * frame
    stop = (int(loud[-1]) // frame + 1) * frame
    return waveform[start:stop]


def trim_frame(sample_rate: int) -> int:
    """Gives the number of samples of the frames in which silence is cut."""
    return max(1, round(sample_rate * TRIM_FRAME_SECONDS))


def fit_to_length(waveform: Waveform, n_samples: int, mode: Literal["tile", "pad"]) -> Waveform:
    """Makes a waveform `n_samples` long.

    Args:
        waveform: (T,), not empty.
        n_samples: wanted length.
        mode: short clips are repeated from their start (tile) or followed by zeros (pad); of long ones the
            middle stays.

    Returns:
        (n_samples,).
    """
    n_have = waveform.shape[0]
    if n_have == 0 or n_samples < 1:
        raise ValueError(f"cannot fit {n_have} samples to {n_samples}")
    if n_have >= n_samples:
        start = (n_have - n_samples) // 2
        return waveform[start : start + n_samples]
    if mode == "tile":
        return np.tile(waveform, math.ceil(n_samples / n_have))[:n_samples]
    if mode == "pad":
        return np.pad(waveform, (0, n_samples - n_have))
    raise ValueError(f'mode "{mode}" is neither "tile" nor "pad"')


def prepare(path: Path, sample_rate: int, n_samples: int, fit: Literal["tile", "pad"], trim_db: float) -> Waveform:
    """Decodes a file, cuts its silent ends and fits it to `n_samples`.

    Returns:
        (n_samples,) float32 in [-1, 1].

    Raises:
        DataError: as for `decode`.
    """
    trimmed = trim_silence(decode(path, sample_rate), sample_rate, trim_db)
    return fit_to_length(trimmed, n_samples, fit)


def _read(path: Path) -> tuple[Waveform, int]:
    """Gives all samples of a file, (T, channels) float32, and its rate in Hz."""
    try:
        n_bytes = path.stat().st_size
        if not path.is_file():
            raise DataError(f"{path} is not a file.")
        if n_bytes == 0:
            raise DataError(f"{path} is empty (0 bytes).")
        cut_short = missing_end(path)
        if cut_short:
            raise DataError(f"{path} is cut short: {cut_short}. Fetch or copy it again.")
        with soundfile.SoundFile(path) as file:
            _check_rate(path, file.samplerate)
            samples, n_promised = _read_blocks(file), file.frames
            file_rate, is_mp3 = file.samplerate, file.format == "MP3"
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path} cannot be decoded as audio: {error.error_string}") from error
    if samples.shape[0] == 0:
        raise DataError(f"{path} holds no samples.")
    # The library estimates the length of an MP3 that does not tell it.
    if samples.shape[0] < n_promised and not is_mp3:
        raise DataError(
            f"{path} is cut short: its header promises {n_promised} samples, {samples.shape[0]} could be "
            "decoded. Fetch or copy it again."
        )
    return samples, file_rate


def _check_rate(path: Path, file_rate: int) -> None:
    if not MIN_SAMPLE_RATE <= file_rate <= MAX_SAMPLE_RATE:
        raise DataError(
            f"{path} claims a sample rate of {file_rate} Hz; those that work are from {MIN_SAMPLE_RATE} to "
            f"{MAX_SAMPLE_RATE} Hz."
        )


def _read_blocks(file: soundfile.SoundFile) -> Waveform:
    # Block by block: a damaged header may promise more samples than any memory holds.
    blocks = []
    while True:
        block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        if not len(block):
            break
        blocks.append(block)
    return np.concatenate(blocks) if blocks else np.zeros((0, 1), dtype=np.float32)
