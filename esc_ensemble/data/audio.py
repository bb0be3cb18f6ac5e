"""One audio file to one waveform: decode, mix to mono, resample, cut silence, fit to a length.

Needs numpy, soundfile and soxr alone: it stands in the way of every start of ONNX inference.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from esc_ensemble.data.containers import read_structure
from esc_ensemble.data.streams import Spliced, Stream, Structure
from esc_ensemble.data.walk import AUDIO_SUFFIXES, OTHER_AUDIO_SUFFIXES, absence, is_audio
from esc_ensemble.errors import DataError, TooLongError

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 768_000
MAX_PEAK = 16.0
TRIM_FRAME_SECONDS = 0.01
BLOCK_SAMPLES = 1 << 16
"""Of all channels together, decoded at a time."""
UNKNOWN_FRAMES = 1 << 62
"""The library gives a number above this where the writer streamed to a pipe and could not tell the length."""
LONG_SAMPLES = 1 << 22
"""A waveform that is longer is not held in memory; 131 s at 32 kHz."""
QUALITY = "HQ"
LOST_SECONDS = 0.02
"""Less is what encoders round by."""
CONVERT = f"convert it to one of {' '.join(AUDIO_SUFFIXES)}"
CANCEL_DB = -20.0
"""Averaging the channels of a recording leaves about -3 dB of them; below this they cancel."""

Waveform = npt.NDArray[np.float32]


class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read from start to end: soundfile would seek after each block, which in an MP3 is inexact."""

    def seekable(self) -> bool:
        return False


def ignore(_: str) -> None:
    """Does nothing with a message."""


def decode(
    source: Path | BinaryIO,
    sample_rate: int,
    *,
    channel: int = 0,
    name: str = "",
    max_seconds: float = math.inf,
    note: Callable[[str], object] = ignore,
) -> Waveform:
    """Reads a file as mono at `sample_rate` in Hz.

    The resampler is soxr's HQ, after which the few samples that overshoot are clipped.

    Args:
        source: the file, or its content, open for reading bytes.
        sample_rate: in Hz.
        channel: 0 averages all channels; 1 takes the first (left) alone, 2 the second, and of fewer the last.
        name: what the file is called in messages; its path where not given.
        max_seconds: a longer one is refused before more of it is decoded.
        note: called with what is worth a message but no error: channels that cancel when they are averaged.

    Returns:
        (T,) float32 in [-1, 1].

    Raises:
        TooLongError: it is longer than `max_seconds`.
        DataError: the file is absent, empty, not audio or truncated, or its samples are none, not finite or far out
            of range.
    """
    return np.concatenate(
        list(stream(source, sample_rate, channel=channel, name=name, max_seconds=max_seconds, note=note))
    )


def stream(
    source: Path | BinaryIO,
    sample_rate: int,
    *,
    channel: int = 0,
    name: str = "",
    max_seconds: float = math.inf,
    max_samples: float = math.inf,
    note: Callable[[str], object] = ignore,
) -> Iterator[Waveform]:
    """Reads a file as `decode` does, block by block, so that a recording of many hours needs little memory.

    Args:
        source: the file, or its content, open for reading bytes.
        sample_rate: in Hz.
        channel: as for `decode`.
        name: what the file is called in messages; its path where not given.
        max_seconds: a longer one is refused, at once where its header says so.
        max_samples: so is one with more samples than this in all channels together: many channels at a high rate
            take long to decode.
        note: as for `decode`.

    Yields:
        (T,) float32 in [-1, 1], of any length each; joined they are what `decode` returns.

    Raises:
        DataError: as for `decode`, when the file's end shows it only after its blocks.
    """
    name = name or str(source)
    seconds, n_samples, n_given = 0.0, 0, 0
    levels = _Levels()
    with _explained(name):
        for file, part in _open_streams(source, name):
            n_known = file.frames if part.exact and file.frames < UNKNOWN_FRAMES else UNKNOWN_FRAMES
            if n_known < UNKNOWN_FRAMES:
                promised = n_known * file.channels
                _check_size(seconds + n_known / file.samplerate, n_samples + promised, name, max_seconds, max_samples)
            resampler = None
            if file.samplerate != sample_rate:
                resampler = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32", quality=QUALITY)
            n_frames = 0
            for block in _mono_blocks(file, n_known, channel, name, levels):
                n_frames += len(block)
                n_samples += len(block) * file.channels
                seconds += len(block) / file.samplerate
                _check_size(seconds, n_samples, name, max_seconds, max_samples)
                made = block if resampler is None else resampler.resample_chunk(block)
                n_given += len(made)
                if len(made):
                    yield np.clip(made, -1.0, 1.0)
            _check_end(file, part, n_frames, name)
            if resampler is not None:
                rest = resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
                n_given += len(rest)
                if len(rest):
                    yield np.clip(rest, -1.0, 1.0)
        if not n_samples:
            raise DataError(f"{name} holds no samples.")
        if not n_given:
            raise DataError(f"{name} is shorter than one sample at {sample_rate} Hz.")
    if levels.cancel:
        note(
            f"{name}: its channels cancel each other, {levels.difference_db:.0f} dB are left when they are averaged; "
            "data.channel 1 takes the first one alone"
        )


@dataclass(frozen=True)
class Header:
    """Length and form of a file, as its headers have them."""

    seconds: float
    """0.0 where no header has the length."""
    sample_rate: int
    """In Hz; of several streams in one file the first one's, as are the channels."""
    n_channels: int


def read_header(source: Path | BinaryIO, *, name: str = "") -> Header:
    """Returns length, rate and channels of a file, or of its content, without decoding it.

    Raises:
        DataError: it is absent, empty, truncated or not audio.
    """
    name = name or str(source)
    with _explained(name):
        found = list(_forms(source, name))
    if not found:
        raise DataError(f"{name} holds no samples.")
    seconds = sum(frames / rate for frames, rate, _ in found if frames < UNKNOWN_FRAMES)
    return Header(float(seconds), *found[0][1:])


def _forms(source: Path | BinaryIO, name: str) -> Iterator[tuple[int, int, int]]:
    """Yields samples, rate and channels of a file's streams."""
    with _opened(source, name) as (file, path):
        structure = _read_structure(file, name)
        for stream in structure.streams:
            if stream.form:
                yield stream.form
            else:
                with _open_stream(file, path, structure, stream, name) as sound:
                    yield sound.frames, sound.samplerate, sound.channels


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


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a clip's waveform."""

    sample_rate: int
    """In Hz."""
    n_samples: int
    fit: Literal["tile", "pad"]
    trim_db: float
    channel: int = 0


def prepare(
    source: Path | BinaryIO,
    sample_rate: int,
    n_samples: int,
    fit: Literal["tile", "pad"],
    trim_db: float,
) -> Waveform:
    """Decodes a file or its content, cuts its silent ends and fits it to `n_samples`.

    Returns:
        (n_samples,) float32 in [-1, 1].

    Raises:
        DataError: as for `decode`.
    """
    return np.concatenate(list(prepare_blocks(source, Recipe(sample_rate, n_samples, fit, trim_db))))


def prepare_blocks(
    source: Path | BinaryIO, recipe: Recipe, *, name: str = "", note: Callable[[str], object] = ignore
) -> Iterator[Waveform]:
    """Does what `prepare` does, block by block.

    What is longer than `LONG_SAMPLES` is decoded twice, first to find its peak and its silent ends, so that no more
    than a block of it is in memory.

    Args:
        source: the file, or its content, open for reading bytes.
        recipe: what to make of it.
        name: what the file is called in messages; its path where not given.
        note: as for `decode`.

    Yields:
        (T,) float32 in [-1, 1], `n_samples` in all.

    Raises:
        DataError: as for `decode`.
    """

    def blocks(note: Callable[[str], object] = ignore) -> Iterator[Waveform]:
        return stream(source, recipe.sample_rate, channel=recipe.channel, name=name, note=note)

    held: list[Waveform] = []
    peaks = _Peaks(trim_frame(recipe.sample_rate))
    n_read, long = 0, False
    for block in blocks(note):
        n_read += len(block)
        held.append(block)
        if n_read > LONG_SAMPLES:
            long = True
            for each in held:
                peaks.add(each)
            held.clear()
    if not long:
        yield from _fitted([trim_silence(np.concatenate(held), recipe.sample_rate, recipe.trim_db)], recipe)
        return
    for each in held:
        peaks.add(each)
    start, stop = peaks.sounding(recipe.trim_db, n_read)
    if stop - start > recipe.n_samples:
        start += (stop - start - recipe.n_samples) // 2
        stop = start + recipe.n_samples
    yield from _fitted(_Span(blocks, start, stop), recipe)


class _Peaks:
    """Largest absolute sample of each frame of a waveform that comes in blocks."""

    def __init__(self, frame: int) -> None:
        self.frame = frame
        self._peaks: list[npt.NDArray[np.float32]] = []
        self._rest = np.zeros(0, dtype=np.float32)

    def add(self, block: Waveform) -> None:
        levels = np.concatenate([self._rest, np.abs(block)])
        n_whole = len(levels) // self.frame * self.frame
        self._peaks.append(levels[:n_whole].reshape(-1, self.frame).max(axis=1))
        self._rest = levels[n_whole:]

    def sounding(self, trim_db: float, n_samples: int) -> tuple[int, int]:
        """Returns what `trim_silence` leaves of the `n_samples`, as start and end."""
        peaks = np.concatenate([*self._peaks, *([[self._rest.max()]] if len(self._rest) else [])])
        peak = float(peaks.max(initial=0.0))
        if trim_db <= 0.0 or peak == 0.0:
            return 0, n_samples
        loud = np.flatnonzero(peaks >= peak * 10.0 ** (-trim_db / 20.0))
        return int(loud[0]) * self.frame, min(n_samples, (int(loud[-1]) + 1) * self.frame)


@dataclass(frozen=True)
class _Span:
    """A part of a waveform, decoded again each time that it is gone through."""

    blocks: Callable[[], Iterator[Waveform]]
    start: int
    stop: int

    def __iter__(self) -> Iterator[Waveform]:
        position = 0
        for block in self.blocks():
            part = block[max(0, self.start - position) : max(0, self.stop - position)]
            position += len(block)
            if len(part):
                yield part
            if position >= self.stop:
                return


def _fitted(waveform: Iterable[Waveform], recipe: Recipe) -> Iterator[Waveform]:
    """Fits a waveform in blocks as `fit_to_length` does, without having it in memory whole."""
    n_left = recipe.n_samples
    if isinstance(waveform, list) and len(waveform[0]) > n_left:
        waveform = [fit_to_length(waveform[0], n_left, recipe.fit)]
    while n_left:
        for block in waveform:
            yield block[:n_left]
            n_left -= min(n_left, len(block))
            if not n_left:
                return
        if recipe.fit == "pad":
            waveform = [np.zeros(min(n_left, LONG_SAMPLES), dtype=np.float32)]


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns what reading a file may end in into a message."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{name} does not exist.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error


def _open_streams(source: Path | BinaryIO, name: str) -> Iterator[tuple[soundfile.SoundFile, Stream]]:
    """Opens a file's streams one after the other."""
    with _opened(source, name) as (file, path):
        structure = _read_structure(file, name)
        for stream in structure.streams:
            with _open_stream(file, path, structure, stream, name) as sound:
                yield sound, stream


@contextmanager
def _opened(source: Path | BinaryIO, name: str) -> Iterator[tuple[BinaryIO, Path | None]]:
    """Opens a file, or the content of a row of a Parquet file, for reading bytes."""
    if isinstance(source, Path) and source.parent.suffix.lower() == ".parquet":
        from esc_ensemble.data.parquet import is_row, read_row  # noqa: PLC0415 - few data sets are stored in Parquet

        source = io.BytesIO(read_row(source)) if is_row(source) else source
    if not isinstance(source, Path):
        yield source, None
        return
    if source.exists() and not source.is_file():
        raise DataError(f"{name} is not a file.")
    reason = absence(source)
    if reason:
        raise DataError(f"{name} {reason}.")
    with source.open("rb") as file:
        yield file, source


def _read_structure(file: BinaryIO, name: str) -> Structure:
    structure = read_structure(file)
    if not file.seek(0, os.SEEK_END):
        raise DataError(f"{name} is empty (0 bytes).")
    if structure.missing:
        raise DataError(f"{name} is truncated: {structure.missing}. Fetch or copy it again.")
    if structure.other:
        raise DataError(f"{name} holds {structure.other}, which cannot be decoded as audio; {CONVERT}.")
    return structure


def _open_stream(
    file: BinaryIO, path: Path | None, structure: Structure, stream: Stream, name: str
) -> soundfile.SoundFile:
    """Opens what libsndfile decodes at a time, by its path where it is a whole file."""
    opened: bytes | BinaryIO | Spliced = Spliced(file, stream.parts)
    if stream.parts == ((0, file.seek(0, os.SEEK_END)),):
        # The name as bytes: it need not be text where file systems do not ask for it.
        opened = os.fsencode(path) if path is not None and os.name == "posix" else file
        file.seek(0)
    try:
        sound = ForwardFile(opened)
    except soundfile.LibsndfileError as error:
        if structure.container:
            begins = f"it begins as {structure.container}"
            raise DataError(f"{name} is damaged: {begins}, but cannot be decoded.") from error
        if is_audio(Path(name), OTHER_AUDIO_SUFFIXES):
            raise DataError(f"{name} is of a kind that cannot be decoded; {CONVERT}.") from error
        raise DataError(f"{name} cannot be decoded as audio: its first bytes are of no known kind.") from error
    if not MIN_SAMPLE_RATE <= sound.samplerate <= MAX_SAMPLE_RATE:
        rate = sound.samplerate
        sound.close()
        raise DataError(
            f"{name} claims a sample rate of {rate} Hz; those that work are from {MIN_SAMPLE_RATE} to "
            f"{MAX_SAMPLE_RATE} Hz."
        )
    return sound


class _Levels:
    """Energy of the channels, and of what averaging leaves of it."""

    def __init__(self) -> None:
        self.channels, self.average = 0.0, 0.0

    def add(self, block: npt.NDArray[np.float32], average: Waveform) -> None:
        """Adds a block (T, channels) and its average (T,)."""
        self.channels += float(np.vdot(block, block)) / block.shape[1]
        self.average += float(np.vdot(average, average))

    @property
    def difference_db(self) -> float:
        """Level of the average over that of the channels in dB."""
        return 10.0 * math.log10(max(self.average, 1e-12 * self.channels) / self.channels) if self.channels else 0.0

    @property
    def cancel(self) -> bool:
        """Whether averaging loses what the channels hold."""
        return self.difference_db < CANCEL_DB


def _mono_blocks(
    file: soundfile.SoundFile, n_known: int, channel: int, name: str, levels: _Levels
) -> Iterator[Waveform]:
    """Reads one channel or the mean of all in blocks: a damaged header may promise more samples than memory holds."""
    n_frames, n_read = max(1, BLOCK_SAMPLES // file.channels), 0
    while n_read < n_known:  # what is behind the last sample is not for the decoder
        try:
            block = file.read(min(n_frames, n_known - n_read), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise DataError(
                f"{name} is damaged or truncated: decoding stopped after {n_read / file.samplerate:.2f} s "
                f"({error.error_string.strip()}). Fetch or copy it again."
            ) from error
        if not len(block):
            return
        n_read += len(block)
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            mono: Waveform
            if channel:
                mono = np.ascontiguousarray(block[:, min(channel, file.channels) - 1])  # (T, channels) -> (T,)
            else:
                mono = block.mean(axis=1)  # (T, channels) -> (T,)
                if file.channels > 1:
                    levels.add(block, mono)
        if not np.isfinite(mono).all():
            raise DataError(f"{name} holds samples that are NaN or infinite. Write it again without them.")
        peak = float(np.abs(mono).max())
        if peak > MAX_PEAK:
            raise DataError(
                f"{name} reaches {peak:g}; samples stored as floats must lie in [-1, 1]. Divide them by their full "
                "scale."
            )
        yield mono


def _check_end(file: soundfile.SoundFile, stream: Stream, n_frames: int, name: str) -> None:
    """Compares what was decoded of a stream with what is known of it."""
    if stream.exact and n_frames < file.frames < UNKNOWN_FRAMES:
        raise DataError(
            f"{name} is truncated: its header promises {file.frames} samples, {n_frames} could be decoded. Fetch or "
            "copy it again."
        )
    if n_frames / file.samplerate < stream.least_seconds - LOST_SECONDS:
        raise DataError(
            f"{name} is damaged: {n_frames / file.samplerate:.2f} s of {stream.least_seconds:.2f} s could be decoded. "
            "Fetch or copy it again."
        )


def _check_size(seconds: float, n_samples: float, name: str, max_seconds: float, max_samples: float) -> None:
    if seconds > max_seconds:
        raise TooLongError(f"{name} is longer than {max_seconds:g} s.")
    if n_samples > max_samples:
        raise TooLongError(f"{name} has more than {max_samples:.0f} samples in all its channels together.")
