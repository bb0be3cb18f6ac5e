"""One model and its clients: who is heard when, by which thread, and what is counted of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from starlette.requests import ClientDisconnect, Request

from esc_ensemble import __version__
from esc_ensemble.errors import DataError, TooLongError
from esc_ensemble.infer.classifier import Classifier, Prediction, Window
from esc_ensemble.serve import hearing
from esc_ensemble.serve.hearing import Question
from esc_ensemble.serve.limits import Limits
from esc_ensemble.serve.metrics import Metrics
from esc_ensemble.serve.refusals import RefusalError, too_busy
from esc_ensemble.serve.uploads import Uploads

SCORES = ("top1", "top3", "macro_f1", "log_loss", "ece")

Result = TypeVar("Result")


class Service:
    """Hears uploads with one classifier.

    An upload is received, waits for its turn, is decoded and heard; the event loop does none of the work. At most
    `limits.max_concurrent` are worked on; where there are two turns or more, recordings that are heard in windows
    leave one to all others, since they may take a hundred times as long.

    Args:
        classifier: the model.
        name: what it is called in answers.
        limits: what is taken on at most.
    """

    def __init__(self, classifier: Classifier, name: str, limits: Limits) -> None:
        self.classifier = classifier
        self.name = name
        self.limits = limits
        self.uploads = Uploads(limits)
        self.n_waiting = 0
        self.n_working = 0
        self.heard_seconds = 0.0
        self._turns = asyncio.Semaphore(limits.max_concurrent)
        self._long_turns = asyncio.Semaphore(max(1, limits.max_concurrent - 1))
        self._threads = ThreadPoolExecutor(limits.max_concurrent, thread_name_prefix="hearing")
        self.metrics = Metrics({"model": name, "version": __version__})
        self.metrics.gauges |= {
            "uploads_receiving": ("Uploads on their way.", lambda: self.uploads.n_receiving),
            "requests_waiting": ("Uploads that wait for their turn.", lambda: self.n_waiting),
            "requests_working": ("Uploads being decoded or heard.", lambda: self.n_working),
            "held_bytes": ("Bytes of uploads in memory.", lambda: self.uploads.n_bytes),
        }
        self.metrics.counters |= {
            "received_bytes_total": ("Bytes of uploads, of refused ones too.", lambda: self.uploads.n_received),
            "heard_seconds_total": ("Seconds of audio that predictions were made of.", lambda: self.heard_seconds),
        }

    async def predict(self, request: Request, question: Question) -> bytes:
        """Receives an upload and gives the answer as JSON.

        Raises:
            RefusalError: the upload is no audio, breaks a limit, or there is no room for it.
            ClientDisconnect: the client left.
        """
        self._check_queue(question.windows)  # before the body is sent in vain
        async with self.uploads.receive(request) as content:
            return await _unless_gone(request, self._hear(content, question))

    def about(self) -> dict[str, Any]:
        """Gives what there is to know of the model and of the limits, as plain values."""
        metadata = self.classifier.metadata
        return {
            "model": self.name,
            "version": __version__,
            "classes": list(self.classifier.class_names),
            "sample_rate": self.classifier.sample_rate,
            "clip_seconds": self.classifier.clip_seconds,
            "tta": bool(metadata["tta"]),
            "members": [
                {"run": member.get("run"), "folds": member.get("folds"), "weight": member.get("weight")}
                for member in metadata["members"]
            ],
            "scores": [_summary(score) for score in metadata.get("scores", ())],
            "limits": {
                "megabytes": self.limits.max_bytes / 1e6,
                "seconds": self.limits.max_seconds,
                "windows": self.limits.max_windows,
            },
        }

    def stop(self) -> None:
        """Lets go of the threads; what they are at ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _hear(self, content: BinaryIO, question: Question) -> bytes:
        upload = hearing.Upload(content, self.classifier.sample_rate, self.limits, self.classifier.channel)
        windows: list[Window] = []
        notes: list[str] = []
        async with self._turn(question.windows):
            try:
                if question.windows:
                    n_samples = await self._work(upload.count, notes.append)
                    windows = await self._hear_windows(upload, n_samples, question.overlap)
                    probabilities = np.mean([window.probabilities for window in windows], axis=0)
                else:
                    waveform = await self._work(upload.read, notes.append)
                    n_samples = len(waveform)
                    (probabilities,) = await self._work(self.classifier.listen, waveform[np.newaxis])
            except TooLongError as error:
                raise RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from error
            except hearing.NotAudioError as error:
                raise RefusalError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, str(error)) from error
            except DataError as error:
                raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
            seconds = n_samples / self.classifier.sample_rate
            self.heard_seconds += seconds
        prediction = Prediction(Path(), self.classifier.class_names, probabilities, seconds, tuple(windows))
        return hearing.answer(self.name, prediction, question, notes)

    async def _hear_windows(self, upload: hearing.Upload, n_samples: int, overlap: float) -> list[Window]:
        hearing.check_number(n_samples, self.classifier.n_samples, overlap, self.limits)
        windows: list[Window] = []
        batches = upload.windows(self.classifier.n_samples, overlap)
        while batch := await self._work(next, batches, None):  # a client that left is noticed between them
            windows += await self._work(hearing.listen, self.classifier, batch)
        return windows

    async def _work(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    @asynccontextmanager
    async def _turn(self, long: bool) -> AsyncIterator[None]:
        self._check_queue(long)
        self.n_waiting += 1
        try:
            if long:
                await self._long_turns.acquire()
            try:
                await self._turns.acquire()
            except BaseException:
                if long:
                    self._long_turns.release()
                raise
        finally:
            self.n_waiting -= 1
        self.n_working += 1
        try:
            yield
        finally:
            self.n_working -= 1
            self._turns.release()
            if long:
                self._long_turns.release()

    def _check_queue(self, long: bool) -> None:
        would_wait = self._turns.locked() or (long and self._long_turns.locked())
        if would_wait and self.n_waiting >= self.limits.queue:
            raise too_busy(f"{self.n_waiting} requests are waiting already. Try again.")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Gives what work comes to; gives it up as soon as the client leaves, so that nobody waits behind the departed.

    Raises:
        ClientDisconnect: the client left.
    """
    working, watching = asyncio.create_task(work), asyncio.create_task(_leaves(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.wait((working, watching))


async def _leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _summary(score: dict[str, Any]) -> dict[str, Any]:
    told = {name: score[name] for name in ("name", "title", "cross_fitted", "top1_interval") if name in score}
    metrics = score.get("metrics", {})
    return told | {name: metrics[name] for name in SCORES if name in metrics}
