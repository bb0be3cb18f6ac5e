"""Room for uploads, and who has to leave where there is none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request

from esc_ensemble.serve import uploads as module
from esc_ensemble.serve.limits import Limits
from esc_ensemble.serve.refusals import RefusalError
from esc_ensemble.serve.uploads import Uploads


class Client:
    """One that sends when it is told to."""

    def __init__(self, uploads: Uploads, headers: dict[str, str] | None = None) -> None:
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        request = Request({"type": "http", "method": "POST", "headers": pairs}, self.sent.get)
        self.leave = asyncio.Event()
        self.content = b""
        self.task = asyncio.create_task(self._upload(uploads, request))

    async def _upload(self, uploads: Uploads, request: Request) -> None:
        async with uploads.receive(request) as content:
            self.content = content.read()
            await self.leave.wait()

    async def send(self, n_bytes: int, more: bool = True) -> None:
        await self.sent.put({"type": "http.request", "body": b"x" * n_bytes, "more_body": more})
        for _ in range(5):
            await asyncio.sleep(0)

    async def refusal(self) -> tuple[int, str]:
        with pytest.raises(RefusalError) as refused:
            await asyncio.wait_for(self.task, 5)
        return refused.value.status, str(refused.value)

    async def end(self) -> None:
        self.leave.set()
        await self.task


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())  # type: ignore[arg-type]

    run.__name__ = test.__name__  # type: ignore[attr-defined]
    return run


@in_loop
async def test_a_body_is_held_as_long_as_it_is_used() -> None:
    uploads = Uploads(Limits())
    client = Client(uploads)
    await client.send(10)
    assert (uploads.n_receiving, uploads.n_bytes) == (1, 10)
    await client.send(5, more=False)
    assert (uploads.n_receiving, uploads.n_bytes, client.content) == (0, 15, b"x" * 15)
    await client.end()
    assert (uploads.n_bytes, uploads.n_received) == (0, 15)


@in_loop
async def test_a_declared_length_is_enough_to_refuse() -> None:
    uploads = Uploads(Limits(max_bytes=100))
    assert await Client(uploads, {"content-length": "101"}).refusal() == (413, "The upload is larger than 0.0001 MB.")
    undeclared = Client(uploads)
    await undeclared.send(60)
    await undeclared.send(60)
    assert (await undeclared.refusal())[0] == 413
    assert uploads.n_bytes == uploads.n_receiving == 0


@in_loop
async def test_a_slow_client_is_given_up() -> None:
    uploads = Uploads(Limits(timeout=0.05))
    client = Client(uploads)
    await client.send(3)
    assert await client.refusal() == (408, "The upload did not end within 0.05 s (3 bytes had come).")
    assert uploads.n_bytes == uploads.n_receiving == 0


@in_loop
async def test_a_client_that_leaves_takes_its_bytes_along() -> None:
    uploads = Uploads(Limits())
    client = Client(uploads)
    await client.send(3)
    await client.sent.put({"type": "http.disconnect"})
    with contextlib.suppress(Exception):
        await client.task
    assert uploads.n_bytes == uploads.n_receiving == 0


@in_loop
async def test_the_slowest_leaves_where_there_is_no_room() -> None:
    uploads = Uploads(Limits(max_bytes=100, max_concurrent=1, queue=2))  # room for 300 bytes
    clients = [Client(uploads) for _ in range(3)]
    for client, n_bytes in zip(clients, (90, 20, 90), strict=True):
        await client.send(n_bytes)
    late = Client(uploads)
    await late.send(99)
    assert uploads.n_bytes == 299
    await clients[0].send(10)
    status, message = await clients[0].refusal()
    assert (status, message) == (503, "There is no room for more uploads. Try again."), "all are new yet"
    for upload in uploads._receiving:
        upload.started -= module.FAIR_SECONDS + 1
    fast = Client(uploads)
    await fast.send(95)
    await fast.send(5, more=False)
    status, message = await clients[1].refusal()
    assert status == 503 and "the slowest" in message
    assert fast.content == b"x" * 100
    assert uploads.n_bytes == 90 + 99 + 100
    for client in (clients[2], late):
        await client.send(1, more=False)
        await client.end()
    await fast.end()
    assert uploads.n_bytes == uploads.n_receiving == 0


@in_loop
async def test_a_stop_waits_for_no_upload() -> None:
    uploads = Uploads(Limits())
    whole, part = Client(uploads), Client(uploads)
    await whole.send(3, more=False)
    await part.send(3)
    uploads.stop()
    assert await part.refusal() == (503, "The service is stopping.")
    assert await Client(uploads).refusal() == (503, "The service is stopping.")
    await whole.end()
