"""The work itself, in plain functions that threads run: bytes to a waveform, a waveform to an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

import numpy as np

from esc_ensemble.data.audio import Waveform, ignore, stream
from esc_ensemble.data.containers import read_container
from esc_ensemble.errors import DataError, TooLongError
from esc_ensemble.infer.classifier import Classifier, Prediction, Window
from esc_ensemble.infer.output import to_json
from esc_ensemble.infer.windows import count_windows, cut
from esc_ensemble.serve.limits import Limits

NAME = "The upload"
"""What an audio file is called in messages: its name on the client's disk is not known here."""
WINDOWS_AT_A_TIME = 4
"""Heard in one go."""

Cut = tuple[int, Waveform]
"""Where a window begins in samples, and the window (N,)."""


@dataclass(frozen=True)
class Question:
    """What a client wants to know of a recording."""

    top: int = 5
    """Classes to name."""
    threshold: float = 0.0
    """No class is named that is less probable."""
    windows: bool = False
    """Hear all of it, stretch by stretch; else the middle of what is longer than the training's clips."""
    overlap: float = 0.5
    """Part of a window that the next one hears too, from 0 up to, but not, 1."""


class NotAudioError(DataError):
    """The bytes are no audio file of a kind that is decoded."""


@dataclass(frozen=True)
class Upload:
    """An audio file that was sent, decoded block by block as often as it is asked for."""

    content: BinaryIO
    sample_rate: int
    limits: Limits
    channel: int = 0

    def blocks(self, note: Callable[[str], object] = ignore) -> Iterator[Waveform]:
        """Yields the waveform in blocks (T,), float32 in [-1, 1].

        Raises:
            NotAudioError: it is no audio.
            TooLongError: the recording is longer, or has more samples, than allowed.
            DataError: it is damaged.
        """
        if not read_container(self.content):  # libsndfile knows thirty more, some of whose decoders are rarely tested
            raise NotAudioError(f"{NAME} does not begin as WAV, FLAC, Ogg, Opus, MP3 or AIFF files do.")
        return stream(
            self.content,
            self.sample_rate,
            channel=self.channel,
            name=NAME,
            max_seconds=self.limits.max_seconds,
            max_samples=self.limits.max_samples,
            note=note,
        )

    def read(self, note: Callable[[str], object] = ignore) -> Waveform:
        """Returns the waveform (T,).

        Raises:
            DataError: as for `blocks`.
        """
        return np.concatenate(list(self.blocks(note)))

    def count(self, note: Callable[[str], object] = ignore) -> int:
        """Returns the number of samples, so that damage is found before anything is predicted.

        Raises:
            DataError: as for `blocks`.
        """
        return sum(map(len, self.blocks(note)))

    def windows(self, n_window: int, overlap: float) -> Iterator[list[Cut]]:
        """Cuts it into windows and yields a few of them at a time."""
        windows = cut(self.blocks(), n_window, overlap)
        while batch := list(islice(windows, WINDOWS_AT_A_TIME)):
            yield batch


def check_number(n_samples: int, n_window: int, overlap: float, limits: Limits) -> None:
    """Checks how many windows a recording of `n_samples` would make.

    Raises:
        TooLongError: there are too many to hear.
    """
    n_windows = count_windows(n_samples, n_window, overlap)
    if n_windows > limits.max_windows:
        raise TooLongError(
            f"{NAME} makes {n_windows} windows with an overlap of {overlap:g}; at most {limits.max_windows} are "
            "heard. Take less overlap, or send it in parts."
        )


def listen(classifier: Classifier, batch: Sequence[Cut]) -> list[Window]:
    """Hears windows of one length."""
    heard = classifier.listen(np.stack([waveform for _, waveform in batch]))  # (windows, N) -> (windows, C)
    found = []
    for (start, waveform), row in zip(batch, heard, strict=True):
        begin = start / classifier.sample_rate
        found.append(Window(begin, begin + len(waveform) / classifier.sample_rate, row))
    return found


def answer(model: str, prediction: Prediction, question: Question, notes: Sequence[str]) -> bytes:
    """Returns the answer as JSON."""
    values = to_json(prediction, question.top, question.threshold)
    del values["file"]  # an upload has no name
    if notes:
        values["notes"] = list(notes)
    return json.dumps({"model": model, **values}, ensure_ascii=False, allow_nan=False).encode()
