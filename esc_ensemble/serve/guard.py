"""What holds for every request, whatever becomes of it: counted, answered in one form, no traceback, no body left."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Collection
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from esc_ensemble.progress import say
from esc_ensemble.serve.metrics import Metrics
from esc_ensemble.serve.refusals import GONE, error_response

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PREDICT = "/predict"
LINGER_SECONDS = 2.0
LINGER_UPLOADS = 4
"""How many times the largest upload is read on of a body that is not wanted any more."""
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
LONGEST_LINE = 500


class Guard:
    """Stands before the application.

    Args:
        app: the application.
        metrics: where requests are counted.
        paths: those that are counted by name; whatever else clients ask for is one.
        max_bytes: of the largest upload.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str], max_bytes: int) -> None:
        self.app = app
        self.metrics = metrics
        self.paths = frozenset(paths)
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self.paths else "other"
        method = scope["method"] if scope["method"] in METHODS else "other"
        exchange = _Exchange(scope, receive, send, self.max_bytes * LINGER_UPLOADS)
        started = time.monotonic()
        self.metrics.in_flight += 1
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = exchange.status or GONE
        except asyncio.CancelledError:  # the service stops, and has waited for as long as it does
            if not exchange.status:
                stopping = error_response(HTTPStatus.SERVICE_UNAVAILABLE, "The service is stopping.")
                await stopping(scope, exchange.receive, exchange.send)
            raise
        except Exception as error:  # noqa: BLE001 - the last line of defence; the log says what it was
            say(f"esc-ens serve: {method} {path} failed: {_in_a_line(error)}")
            if not exchange.status:
                response = error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "This failed, and it is our fault.")
                await response(scope, exchange.receive, exchange.send)
        finally:
            self.metrics.in_flight -= 1
            self.metrics.count(method, path, exchange.status or GONE)
            if path == PREDICT and exchange.status == HTTPStatus.OK:
                self.metrics.time(time.monotonic() - started)


class _Exchange:
    """One request and its answer.

    An answer may go out before the body has come in. Then the connection is closed, or the server would go on reading;
    but not at once: unread bytes turn the closing into a reset, which may overtake the answer.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, linger_bytes: int) -> None:
        headers = dict(scope["headers"])
        self.status = 0
        self.linger_bytes = linger_bytes
        self._receive = receive
        self._send = send
        self._unread = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers

    async def receive(self) -> Message:
        message = await self._receive()
        self._unread = self._unread and message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            closing = [(b"connection", b"close")] if self._unread else []
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS, *closing]}
        elif self._unread and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        n_bytes = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while self._unread and n_bytes < self.linger_bytes:
                    n_bytes += len((await self.receive()).get("body", b""))


def _in_a_line(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST_LINE]}{place}"
