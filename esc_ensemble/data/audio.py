"""One audio file to one waveform: decode, mix to mono, resample, cut silence, fit to a length.

Needs numpy, soundfile and soxr alone: it stands in the way of every start of ONNX inference.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from esc_ensemble.data.containers import missing_end
from esc_ensemble.data.walk import AUDIO_SUFFIXES, OTHER_AUDIO_SUFFIXES, absence, is_audio
from esc_ensemble.errors import DataError, TooLongError

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 768_000
MAX_PEAK = 16.0
TRIM_FRAME_SECONDS = 0.01
BLOCK_SAMPLES = 1 << 20
"""Of all channels together, decoded at a time."""
UNKNOWN_FRAMES = 1 << 62
"""The library gives a number above this where the writer streamed to a pipe and could not tell the length."""
QUALITY = "HQ"

Waveform = npt.NDArray[np.float32]


def decode(source: Path | BinaryIO, sample_rate: int, *, name: str = "", max_seconds: float = math.inf) -> Waveform:
    """Reads a file as mono at `sample_rate` in Hz.

    Channels are averaged; the resampler is soxr's HQ, after which the few samples that overshoot are clipped.

    Args:
        source: the file, or its content, open for reading bytes.
        sample_rate: in Hz.
        name: what the file is called in messages; its path where not given.
        max_seconds: a longer one is refused before more of it is decoded.

    Returns:
        (T,) float32 in [-1, 1].

    Raises:
        TooLongError: it is longer than `max_seconds`.
        DataError: the file is absent, empty, not audio or cut short, or its samples are none, not finite or far out
            of range.
    """
    name = name or str(source)
    with _told(name), _open(source, name) as file:
        blocks, n_frames = [], 0
        for block in _mono_blocks(file, name):
            n_frames += len(block)
            _check_size(file, n_frames, name, max_seconds)
            blocks.append(block)
        _check_length(file, n_frames, name)
        mono: Waveform = np.concatenate(blocks)
        if file.samplerate != sample_rate:
            mono = soxr.resample(mono, file.samplerate, sample_rate, quality=QUALITY)
    if mono.size == 0:
        raise DataError(f"{name} is shorter than one sample at {sample_rate} Hz.")
    clipped: Waveform = np.clip(mono, -1.0, 1.0).astype(np.float32, copy=False)
    return clipped


def stream(
    source: Path | BinaryIO,
    sample_rate: int,
    *,
    name: str = "",
    max_seconds: float = math.inf,
    max_samples: float = math.inf,
) -> Iterator[Waveform]:
    """Reads a file as `decode` does, piece by piece, so that a recording of many hours needs little memory.

    Args:
        source: the file, or its content, open for reading bytes.
        sample_rate: in Hz.
        name: what the file is called in messages; its path where not given.
        max_seconds: a longer one is refused, at once where its header tells.
        max_samples: so is one with more samples than this in all channels together: many channels at a high rate
            take long to decode.

    Yields:
        (T,) float32 in [-1, 1], of any length each; one after the other they are what `decode` gives.

    Raises:
        DataError: as for `decode`, when the file's end shows it only after its pieces.
    """
    name = name or str(source)
    with _told(name), _open(source, name) as file:
        if _tells_length(file):
            _check_size(file, file.frames, name, max_seconds, max_samples)
        resampler = None
        if file.samplerate != sample_rate:
            resampler = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32", quality=QUALITY)
        n_frames, n_given = 0, 0
        for block in _mono_blocks(file, name):
            n_frames += len(block)
            _check_size(file, n_frames, name, max_seconds, max_samples)
            piece = block if resampler is None else resampler.resample_chunk(block)
            n_given += len(piece)
            if len(piece):
                yield np.clip(piece, -1.0, 1.0)
        _check_length(file, n_frames, name)
        if resampler is not None:
            rest = resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
            n_given += len(rest)
            if len(rest):
                yield np.clip(rest, -1.0, 1.0)
        if not n_given:
            raise DataError(f"{name} is shorter than one sample at {sample_rate} Hz.")


@dataclass(frozen=True)
class Header:
    """Length and form of a file, as its header has them."""

    seconds: float
    """0.0 where the header has no length."""
    sample_rate: int
    n_channels: int


def read_header(source: Path | BinaryIO, *, name: str = "") -> Header:
    """Returns length, rate and channels of a file, or of its content, without decoding it.

    Raises:
        DataError: it is absent, empty, truncated or not audio.
    """
    name = name or str(source)
    with _told(name), _open(source, name) as file:
        seconds = file.frames / file.samplerate if file.frames < UNKNOWN_FRAMES else 0.0
        return Header(seconds, file.samplerate, file.channels)


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


def prepare(
    source: Path | BinaryIO,
    sample_rate: int,
    n_samples: int,
    fit: Literal["tile", "pad"],
    trim_db: float,
    *,
    name: str = "",
) -> Waveform:
    """Decodes a file or its content, cuts its silent ends and fits it to `n_samples`.

    Returns:
        (n_samples,) float32 in [-1, 1].

    Raises:
        DataError: as for `decode`.
    """
    trimmed = trim_silence(decode(source, sample_rate, name=name), sample_rate, trim_db)
    return fit_to_length(trimmed, n_samples, fit)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turns what reading a file may end in into a message."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{name} does not exist.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error
    except soundfile.LibsndfileError as error:
        if is_audio(Path(name), OTHER_AUDIO_SUFFIXES):
            convert = f"convert it to one of {' '.join(AUDIO_SUFFIXES)}"
            raise DataError(f"{name} is of a kind that cannot be decoded; {convert}") from error
        raise DataError(f"{name} cannot be decoded as audio: {error.error_string}") from error


@contextmanager
def _open(source: Path | BinaryIO, name: str) -> Iterator[soundfile.SoundFile]:
    """Opens what has a chance to be whole."""
    if isinstance(source, Path) and source.parent.suffix.lower() == ".parquet":
        from esc_ensemble.data.parquet import is_row, read_row  # noqa: PLC0415 - few data sets are stored in Parquet

        source = io.BytesIO(read_row(source)) if is_row(source) else source
    if isinstance(source, Path):
        if source.exists() and not source.is_file():
            raise DataError(f"{name} is not a file.")
        reason = absence(source)
        if reason:
            raise DataError(f"{name} {reason}.")
        with source.open("rb") as file:
            _check_end(file, name)
    else:
        _check_end(source, name)
        source.seek(0)
    # The name as bytes: it need not be text where file systems do not ask for it.
    named = os.fsencode(source) if isinstance(source, Path) and os.name == "posix" else source
    with soundfile.SoundFile(named) as file:
        if not MIN_SAMPLE_RATE <= file.samplerate <= MAX_SAMPLE_RATE:
            raise DataError(
                f"{name} claims a sample rate of {file.samplerate} Hz; those that work are from {MIN_SAMPLE_RATE} to "
                f"{MAX_SAMPLE_RATE} Hz."
            )
        yield file


def _check_end(file: BinaryIO, name: str) -> None:
    if not file.read(1):
        raise DataError(f"{name} is empty (0 bytes).")
    cut_short = missing_end(file)
    if cut_short:
        raise DataError(f"{name} is cut short: {cut_short}. Fetch or copy it again.")


def _mono_blocks(file: soundfile.SoundFile, name: str) -> Iterator[Waveform]:
    """Reads the mean of all channels in blocks: a damaged header may promise more samples than any memory holds."""
    n_frames = max(1, BLOCK_SAMPLES // file.channels)
    while True:
        block = file.read(n_frames, dtype="float32", always_2d=True)
        if not len(block):
            return
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            mono: Waveform = block.mean(axis=1)  # (T, channels) -> (T,)
        if not np.isfinite(mono).all():
            raise DataError(f"{name} holds samples that are NaN or infinite. Write it again without them.")
        peak = float(np.abs(mono).max())
        if peak > MAX_PEAK:
            raise DataError(
                f"{name} reaches {peak:g}; samples stored as floats must lie in [-1, 1]. Divide them by their full "
                "scale."
            )
        yield mono


def _check_size(
    file: soundfile.SoundFile, n_frames: int, name: str, max_seconds: float, max_samples: float = math.inf
) -> None:
    if n_frames > max_seconds * file.samplerate:
        raise TooLongError(f"{name} is longer than {max_seconds:g} s.")
    if n_frames * file.channels > max_samples:
        raise TooLongError(
            f"{name} has more than {max_samples:.0f} samples in its {file.channels} channels at {file.samplerate} Hz."
        )


def _tells_length(file: soundfile.SoundFile) -> bool:
    """Whether the header holds the number of samples; that of an MP3 may be the library's estimate."""
    return file.format != "MP3" and file.frames < UNKNOWN_FRAMES


def _check_length(file: soundfile.SoundFile, n_frames: int, name: str) -> None:
    if n_frames == 0:
        raise DataError(f"{name} holds no samples.")
    if n_frames < file.frames and _tells_length(file):
        raise DataError(
            f"{name} is cut short: its header promises {file.frames} samples, {n_frames} could be decoded. Fetch or "
            "copy it again."
        )
