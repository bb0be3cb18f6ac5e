"""uvicorn's HTTP/1.1 server with an end to every silence, and a stop that waits for nobody's upload.

uvicorn itself waits for a request's head, and for a client to take its answer, as long as the client likes.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from esc_ensemble.serve.limits import Limits
from esc_ensemble.serve.service import Service

GRACE_SECONDS = 10
"""That requests have to end in once the service is stopped."""
FREE_PIECES = 100
LEAST_PIECE = 256
"""Bytes that the pieces of a body must have on average, after the first `FREE_PIECES`: each takes some 100 us of the
only thread that talks to clients, so that chunks of one byte would keep it from all others."""


class Server(uvicorn.Server):
    """Serves one application of `create_app`.

    Args:
        app: the application.
        service: the one behind it.
        limits: of time and number of connections.
        on_start: called once connections are taken.
    """

    def __init__(self, app: Any, service: Service, limits: Limits, on_start: Callable[[], None]) -> None:
        self.service = service
        self.on_start = on_start
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded_protocol(limits),
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="critical",  # what goes wrong is answered and said by `Guard`
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        if self.started:
            self.on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends once the requests that were received whole are answered."""
        self.service.uploads.stop()
        await super().shutdown(sockets)


class _Connection(h11.Connection):
    """The state of one connection, which does not put up with a body in crumbs."""

    _n_pieces = 0
    _n_bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if type(event) is h11.Request:
            self._n_pieces = self._n_bytes = 0
        elif type(event) is h11.Data:
            self._n_pieces += 1
            self._n_bytes += len(event.data)
            if self._n_pieces > FREE_PIECES and self._n_bytes < LEAST_PIECE * self._n_pieces:
                raise h11.RemoteProtocolError("the body comes in too small pieces")
        return event


def bounded_protocol(limits: Limits) -> type[H11Protocol]:
    """Gives a protocol that keeps the limits of time and number.

    A connection is closed if a request's head does not arrive whole within `limits.timeout`, and cut if its client
    takes nothing of an answer for as long. Where there are too many, the oldest that has asked for nothing yet makes
    room.
    """
    silent: dict[H11Protocol, None] = {}  # those that wait for a head, the oldest first
    n_open = 0

    class BoundedProtocol(H11Protocol):
        """One connection."""

        _head: asyncio.TimerHandle | None = None
        _answer: asyncio.TimerHandle | None = None

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.conn = _Connection(h11.SERVER)

        def connection_made(self, transport: Any) -> None:
            nonlocal n_open
            n_open += 1
            super().connection_made(transport)
            if n_open > limits.max_connections:
                oldest = next(iter(silent), self)
                silent.pop(oldest, None)
                oldest.transport.abort()
            self._watch_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_head()

        def connection_lost(self, exc: Exception | None) -> None:
            nonlocal n_open
            n_open -= 1
            self._head_is_there()
            self._cancel_answer()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                body = json.dumps({"error": msg}).encode()
                head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
                self.transport.write(head.encode() + b"\r\nconnection: close\r\n\r\n" + body)
            self.transport.close()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._answer = self.loop.call_later(limits.timeout, self.transport.abort)

        def resume_writing(self) -> None:
            self._cancel_answer()
            super().resume_writing()

        def _watch_head(self) -> None:
            waits = self.cycle is None or self.cycle.response_complete
            if not waits or self.transport.is_closing():
                self._head_is_there()
            elif self._head is None:
                silent[self] = None
                self._head = self.loop.call_later(limits.timeout, self.transport.abort)

        def _head_is_there(self) -> None:
            silent.pop(self, None)
            if self._head is not None:
                self._head.cancel()
                self._head = None

        def _cancel_answer(self) -> None:
            if self._answer is not None:
                self._answer.cancel()
                self._answer = None

    return BoundedProtocol
