"""An exported blend, ready to hear files and recordings of any length."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.cores import free_cores
from esc_ensemble.data.audio import decode
from esc_ensemble.data.walk import AUDIO_SUFFIXES, describe_passed_over, is_audio, walk
from esc_ensemble.errors import DataError, ModelFileError, list_problems
from esc_ensemble.infer.model_file import Device, check_place, open_session, read_metadata
from esc_ensemble.infer.windows import cut_windows
from esc_ensemble.progress import say

AHEAD_BYTES = 1 << 25
"""Of files, on disk, that are decoded ahead of being heard; larger ones one by one."""
BATCH_SAMPLES = 1 << 25
"""Held at a time; longer recordings are heard one by one."""


@dataclass(frozen=True)
class Window:
    """What the model hears in one stretch of a recording."""

    start: float
    """Seconds from the recording's beginning."""
    end: float
    probabilities: np.ndarray
    """(C,) float32, summing to 1."""


@dataclass(frozen=True)
class Prediction:
    """What the model hears in one file."""

    path: Path
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    """(C,) float32, summing to 1; of several windows their mean."""
    seconds: float
    """Length of the file."""
    windows: tuple[Window, ...] = ()
    """Stretches that were heard one by one; none where the file was heard as one clip."""

    def top(self, k: int, threshold: float = 0.0) -> list[tuple[str, float]]:
        """Gives the `k` likeliest classes with their probabilities, the likeliest first; none below `threshold`."""
        return top_classes(self.class_names, self.probabilities, k, threshold)


class Classifier:
    """An exported blend, ready to hear files.

    Silence is cut, and the length fitted, inside the file: what goes in is the waveform as it is.

    Args:
        model: the `.onnx` file.
        threads: CPU threads; 0 takes the cores this process may use.
        device: auto takes a GPU where onnxruntime has one.
        channel: of files with several: 0 averages them, 1 takes the first alone; as in training where not given.
        lasting: made to hear clips of ever new lengths for weeks: memory does not grow with each of them, for some
            percent of the speed.

    Raises:
        ModelFileError: the file is missing, not ONNX, or was not exported by esc_ensemble.
        ConfigError: onnxruntime is not there, or a GPU is asked for that it does not have.
    """

    def __init__(
        self,
        model: str | Path,
        threads: int = 0,
        device: Device = "auto",
        *,
        channel: int | None = None,
        lasting: bool = False,
    ) -> None:
        model = Path(model)
        check_place(model)
        self.model = model
        self.session = open_session(model, threads, device, lasting)
        self.metadata = read_metadata(self.session, model)
        self.class_names: tuple[str, ...] = tuple(self.metadata["class_names"])
        # The data set's own; empty where the runs did not say.
        self.class_numbers: tuple[int, ...] = tuple(self.metadata.get("class_numbers", ()))
        self.sample_rate: int = self.metadata["sample_rate"]
        self.clip_seconds: float = self.metadata["clip_seconds"]
        self.n_samples: int = self.metadata["n_samples"]
        self.channel: int = self.metadata.get("channel", 0) if channel is None else channel

    def listen(self, waveforms: np.ndarray) -> np.ndarray:
        """Gives probabilities (B, C) of waveforms (B, T), float32 in [-1, 1] at `sample_rate`, of any length T >= 1.

        Raises:
            ModelFileError: the model gives no numbers.
        """
        outputs = self.session.run(["probabilities"], {"waveform": waveforms.astype(np.float32, copy=False)})
        probabilities = np.asarray(outputs[0])
        if not np.isfinite(probabilities).all():
            raise ModelFileError(f"{self.model} gives no numbers: the file is damaged. Export or copy it again.")
        return probabilities

    def read(self, path: Path) -> np.ndarray:
        """Reads a file as a waveform (T,) at the model's rate.

        Raises:
            DataError: the file is missing or is not sound audio.
        """
        return decode(path, self.sample_rate, channel=self.channel, note=note_channels)

    def predict(
        self,
        paths: Iterable[str | Path],
        *,
        batch_size: int = 16,
        skip_bad: bool = False,
        windows: bool = False,
        overlap: float = 0.5,
        workers: int = 0,
        on_window: Callable[[], object] | None = None,
    ) -> Iterator[Prediction]:
        """Hears files in their order; decoding runs ahead in threads.

        Args:
            paths: audio files.
            batch_size: waveforms at a time; those of one length are heard together.
            skip_bad: leave out files that cannot be read, and say which, instead of raising.
            windows: hear all of recordings that are longer than the training's clips, stretch by stretch; without it
                their middle is heard, as in training.
            overlap: part of a window that the next one hears too.
            workers: threads that decode; 0 takes the free cores.
            on_window: called after each window, for a display of progress.

        Raises:
            DataError: names every file that cannot be read.
        """
        files = [Path(path) for path in paths]
        if windows:
            yield from self._predict_windows(files, batch_size, overlap, skip_bad, on_window or (lambda: None))
            return
        workers = workers or free_cores()
        bad: list[str] = []
        pool = ThreadPoolExecutor(workers)
        try:
            read = _ahead(pool, self._try_read, files, max(batch_size, 2 * workers))
            for batch in _batches(zip(files, read, strict=True), batch_size, size=_n_samples, most=BATCH_SAMPLES):
                errors = [str(found) for _, found in batch if isinstance(found, DataError)]
                bad += errors
                if errors and skip_bad:
                    say(list_problems("Left out:", errors))
                good = [(path, found) for path, found in batch if isinstance(found, np.ndarray)]
                if good and (skip_bad or not bad):
                    heard = self._listen_each([waveform for _, waveform in good])
                    for (path, waveform), row in zip(good, heard, strict=True):
                        yield Prediction(path, self.class_names, row, len(waveform) / self.sample_rate)
        finally:  # nobody waits for files that are not wanted any more
            pool.shutdown(wait=False, cancel_futures=True)
        if bad and not skip_bad:
            raise _unreadable(bad)

    def _try_read(self, path: Path) -> np.ndarray | DataError:
        try:
            return self.read(path)
        except DataError as error:
            return error

    def _listen_each(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Hears waveforms (T,), those of one length together: zeros behind a clip would not be nothing to the model."""
        heard: list[np.ndarray] = [np.empty(0)] * len(waveforms)
        lengths = np.array([len(waveform) for waveform in waveforms])
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            for place, row in zip(places, self.listen(np.stack([waveforms[int(n)] for n in places])), strict=True):
                heard[place] = row
        return heard

    def _predict_windows(
        self, files: Sequence[Path], batch_size: int, overlap: float, skip_bad: bool, on_window: Callable[[], object]
    ) -> Iterator[Prediction]:
        bad: list[str] = []
        for path in files:
            try:
                found = []
                for window in self._hear_windows(path, batch_size, overlap):
                    found.append(window)
                    on_window()
            except DataError as error:
                bad.append(str(error))
                if skip_bad:
                    say(list_problems("Left out:", bad[-1:]))
                continue
            if skip_bad or not bad:
                heard = np.stack([window.probabilities for window in found])  # (number of windows, C)
                yield Prediction(path, self.class_names, heard.mean(axis=0), found[-1].end, tuple(found))
        if bad and not skip_bad:
            raise _unreadable(bad)

    def _hear_windows(self, path: Path, batch_size: int, overlap: float) -> Iterator[Window]:
        cut = cut_windows(path, self.sample_rate, self.n_samples, overlap, channel=self.channel, note=note_channels)
        for batch in _batches(cut, batch_size):
            for (start, waveform), row in zip(batch, self._listen_each([each for _, each in batch]), strict=True):
                begin = start / self.sample_rate
                yield Window(begin, begin + len(waveform) / self.sample_rate, row)


def note_channels(text: str) -> None:
    """Reports what decoding has noted; the flag is that of this command."""
    say(f"Note: {text.replace('data.channel', '--channel')}.")


def top_classes(
    class_names: Sequence[str], probabilities: np.ndarray, k: int, threshold: float = 0.0
) -> list[tuple[str, float]]:
    """Gives the `k` likeliest classes with their probabilities, the likeliest first; none below `threshold`."""
    order = np.argsort(-probabilities, kind="stable")[:k]
    chosen = [(class_names[number], float(probabilities[number])) for number in order]
    return [(name, probability) for name, probability in chosen if probability >= threshold]


def find_audio(paths: Iterable[Path]) -> list[Path]:
    """Returns the named files, and all audio files below the named folders, in order of name.

    Links that lead nowhere and audio that cannot be decoded here are among them: reading them names what is wrong.

    Raises:
        DataError: a path does not exist, or there is no audio at all.
    """
    found: list[Path] = []
    problems = []
    for path in paths:
        if path.is_dir():
            walked = walk(path)
            files = sorted(file for file in (*walked.files, *walked.dead_links) if is_audio(file))
            passed_over = describe_passed_over(walked, path)
            if passed_over:
                say(f"Note: {passed_over}")
            if not files:
                problems.append(f"{path}: no audio file in this folder ({', '.join(sorted(AUDIO_SUFFIXES))})")
            found += files
        elif path.exists():
            found.append(path)
        else:
            problems.append(f"{path}: no such file or folder")
    if problems:
        raise DataError(list_problems("There is no audio to take:", problems))
    return list(dict.fromkeys(found))


def _ahead(pool: ThreadPoolExecutor, read: Any, files: Sequence[Path], n_ahead: int) -> Iterator[Any]:
    """Gives what `read` makes of each file, in order, while the pool is at work on the next ones, large ones apart."""
    waiting: deque[tuple[Future[Any], int]] = deque()
    n_bytes = 0
    for path in files:
        n_own = path.stat().st_size if path.is_file() else 0
        while waiting and (len(waiting) > n_ahead or n_bytes + n_own > AHEAD_BYTES):
            future, n_done = waiting.popleft()
            yield future.result()
            n_bytes -= n_done
        waiting.append((pool.submit(read, path), n_own))
        n_bytes += n_own
    while waiting:
        yield waiting.popleft()[0].result()


def _batches(
    items: Iterable[Any], number: int, *, size: Callable[[Any], int] = lambda _: 0, most: int = 1
) -> Iterator[list[Any]]:
    """Gives lists of `number` items, or fewer where they are large: at `most` together, or beyond it by the last."""
    batch, total = [], 0
    for item in items:
        batch.append(item)
        total += size(item)
        if len(batch) == number or total >= most:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _n_samples(item: tuple[Path, np.ndarray | DataError]) -> int:
    return len(item[1]) if isinstance(item[1], np.ndarray) else 0


def _unreadable(bad: Sequence[str]) -> DataError:
    return DataError(list_problems("These files cannot be heard:", bad, "Leave them out with --skip-bad."))
