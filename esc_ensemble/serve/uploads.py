"""Bodies of requests, in memory alone and never more of them than there is room for."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.requests import Request

from esc_ensemble.serve.limits import Limits
from esc_ensemble.serve.refusals import RefusalError, too_busy

FAIR_SECONDS = 2.0
"""That every upload has before it may have to leave for others."""


@dataclass(eq=False)
class _Upload:
    """A body on its way."""

    deadline: asyncio.Timeout
    started: float = field(default_factory=time.monotonic)
    content: io.BytesIO = field(default_factory=io.BytesIO)
    n_bytes: int = 0
    dropped: str = ""
    """Why it was given up from outside."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def bytes_per_second(self) -> float:
        return self.n_bytes / max(self.seconds, 1e-3)


class Uploads:
    """Receives bodies: each within a size and a time, all together within the room there is.

    Where there is no room, the slowest upload has to leave: a client that sends a byte now and then cannot keep out
    those that send.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.n_bytes = 0
        """Held by all uploads, whole or in part."""
        self.n_received = 0
        """Bytes that ever came in."""
        self._receiving: set[_Upload] = set()
        self._stopped = False

    @property
    def n_receiving(self) -> int:
        """Number of uploads on their way."""
        return len(self._receiving)

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[io.BytesIO]:
        """Reads a body to its end and holds it until the context is left.

        Raises:
            RefusalError: it is empty, too large or too slow, or there is no room for it.
            ClientDisconnect: the client left.
        """
        self._check_head(request)
        upload = _Upload(asyncio.timeout(self.limits.timeout))
        try:
            await self._fill(upload, request)
            upload.content.seek(0)
            yield upload.content
        finally:
            self._empty(upload)

    def stop(self) -> None:
        """Gives up what is on its way, and takes nothing more."""
        self._stopped = True
        for upload in self._receiving:
            _drop(upload, "The service is stopping.")

    def _check_head(self, request: Request) -> None:
        if self._stopped:
            raise too_busy("The service is stopping.")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.startswith("multipart/"):
            raise RefusalError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"{kind} is not taken: send the file's bytes as the body, without a form around them "
                "(curl --data-binary @FILE).",
            )
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise RefusalError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "A compressed body is not taken: send the file's bytes as they are."
            )
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self.limits.max_bytes:
            raise self._too_large()

    async def _fill(self, upload: _Upload, request: Request) -> None:
        try:
            async with upload.deadline:
                self._receiving.add(upload)
                try:
                    async for chunk in request.stream():
                        self._take(upload, chunk)
                finally:
                    self._receiving.discard(upload)
        except TimeoutError:
            if upload.dropped:
                raise too_busy(upload.dropped) from None
            raise RefusalError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"The upload did not end within {self.limits.timeout:g} s ({upload.n_bytes} bytes had come).",
            ) from None
        if upload.dropped:  # in the moment in which it ended
            raise too_busy(upload.dropped)
        if not upload.n_bytes:
            raise RefusalError(
                HTTPStatus.BAD_REQUEST,
                "The body is empty: send an audio file's bytes (curl --data-binary @FILE; mind the @).",
            )

    def _take(self, upload: _Upload, chunk: bytes) -> None:
        self.n_received += len(chunk)
        if upload.dropped:
            return
        if upload.n_bytes + len(chunk) > self.limits.max_bytes:
            raise self._too_large()
        while self.n_bytes + len(chunk) > self.limits.max_held:
            slow = [each for each in self._receiving if each.n_bytes and each.seconds > FAIR_SECONDS]
            slowest = min(slow, key=_speed, default=upload)
            if slowest is upload:
                raise too_busy("There is no room for more uploads. Try again.")
            _drop(slowest, "There was no room for more uploads, and this one was the slowest. Try again.")
            self._empty(slowest)
        upload.content.write(chunk)
        upload.n_bytes += len(chunk)
        self.n_bytes += len(chunk)

    def _empty(self, upload: _Upload) -> None:
        self.n_bytes -= upload.n_bytes
        upload.n_bytes = 0
        upload.content = io.BytesIO()

    def _too_large(self) -> RefusalError:
        return RefusalError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The upload is larger than {self.limits.max_bytes / 1e6:g} MB."
        )


def _drop(upload: _Upload, why: str) -> None:
    upload.dropped = why
    upload.deadline.reschedule(asyncio.get_running_loop().time())


def _speed(upload: _Upload) -> float:
    return upload.bytes_per_second
