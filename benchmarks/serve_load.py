"""`esc-ens serve` under load, and among clients that mean no good.

A service in a process of its own answers 1,000 requests of 16 clients, each with a connection that it keeps and
clips of the data set. Then hostile clients come one after the other; after each of them the service has to answer
a good one.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import clients
import numpy as np
import timing

GIGABYTE = 1 << 30
N_SLOW = 100


def main() -> None:
    options = timing.parser(__doc__, repeats=1)
    options.add_argument("model", type=Path, help="file made by `esc-ens export`")
    options.add_argument("--requests", type=int, default=1000, help="in all")
    options.add_argument("--clients", type=int, default=16, help="at a time")
    options.add_argument("--concurrent", type=int, default=0, help="requests that the service works on at a time")
    options.add_argument("--no-hostile", action="store_true", help="leave the hostile clients out")
    options.set_defaults(threads=1)
    arguments = options.parse_args()
    flags = ["--threads", str(arguments.threads), "--max-concurrent", str(arguments.concurrent), "--timeout", "10"]
    with timing.data_folder(arguments) as data, clients.running(arguments.model, flags) as service:
        bodies = [path.read_bytes() for path in sorted((data / "audio").iterdir())]
        figures: dict[str, object] = load(service, bodies, arguments.requests, arguments.clients)
        if not arguments.no_hostile:
            figures |= {name: outcome(service, attack, bodies[0]) for name, attack in attacks(bodies[0]).items()}
            figures["memory at its highest, MB"] = service.memory()
    timing.print_result(f"serving {arguments.model.name}", figures, arguments)


def load(service: clients.Running, bodies: list[bytes], n_requests: int, n_clients: int) -> dict[str, object]:
    """Sends requests from many clients at once."""
    seconds: list[float] = []
    lost: list[str] = []
    numbers = iter(range(n_requests))
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection(*service.address, timeout=60)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            try:
                answer = clients.ask(connection, "/predict", bodies[number % len(bodies)])
                problem = "" if answer.status == 200 and answer.json["top"] else f"{answer.status}: {answer.body!r}"
            except (OSError, http.client.HTTPException) as error:
                problem = repr(error)
                connection.close()
            with lock:
                if problem:
                    lost.append(problem)
                else:
                    seconds.append(answer.seconds)
        connection.close()

    for body in bodies[:4]:  # not timed
        service.ask("/predict", body)
    alone = [service.ask("/predict", body).seconds for body in bodies[4:24]]
    started = time.perf_counter()
    with ThreadPoolExecutor(n_clients) as pool:
        for done in [pool.submit(client) for _ in range(n_clients)]:
            done.result()
    elapsed = time.perf_counter() - started
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]) if seconds else [float("nan")] * 3
    return {
        "one client, p50 ms": 1e3 * float(np.median(alone)),
        "requests a second": len(seconds) / elapsed,
        f"{n_clients} clients, p50 ms": 1e3 * float(p50),
        "p95 ms": 1e3 * float(p95),
        "p99 ms": 1e3 * float(p99),
        "answered": len(seconds),
        "lost": len(lost),
        **({"first lost": lost[0]} if lost else {}),
    }


Attack = Callable[[clients.Running], str]


def attacks(good: bytes) -> dict[str, Attack]:
    """Gives what hostile clients do, each telling what the service said to it."""

    def told(*parts: bytes) -> Attack:
        return lambda service: _said(service.send(parts))

    def body(content: bytes) -> Attack:
        return lambda service: _said(service.ask("/predict", content))

    return {
        "1 GB announced": told(clients.head(GIGABYTE)),
        "1 GB, sent anyway": lambda service: _said(_send(service, clients.head(GIGABYTE))),
        "1 GB in chunks": lambda service: _said(_send(service, clients.head(None))),
        "FLAC of 10 h": body(clients.flac_bomb(36_000)),
        "FLAC of 10 h that hides it": body(clients.flac_bomb(36_000, tells=False)),
        "FLAC of 8 channels at 655 kHz": body(clients.flac_bomb(300, 655_350, 8)),
        "nothing": body(b""),
        "text": body(Path(__file__).read_bytes()),
        "audio cut short": body(good[: len(good) // 2]),
        "no HTTP": told(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n"),
        f"{N_SLOW} slow clients": lambda service: _slow(service, good, clients.head(len(good))),
        f"{N_SLOW} that never end a head": lambda service: _slow(service, good, b"POST /predict HTTP/1.1\r\nX-a: "),
        f"{N_SLOW} that leave": _leave,
    }


def outcome(service: clients.Running, attack: Attack, good: bytes) -> str:
    """Lets one hostile client loose, then asks as a good one does."""
    started = time.perf_counter()
    said = attack(service)
    taken = time.perf_counter() - started
    health = service.ask("/health")
    after = service.ask("/predict", good)
    assert health.status == after.status == 200, (said, health, after)
    return (
        f"{said} [{taken:.2f} s; then a good client {1e3 * after.seconds:.0f} ms, health {1e3 * health.seconds:.0f} ms]"
    )


def _send(service: clients.Running, head: bytes) -> clients.Answer:
    """Sends a gigabyte of zeros, whatever the service says meanwhile."""
    return service.send(chain([head], clients.zeros(GIGABYTE, chunked=b"chunked" in head)))


def _slow(service: clients.Running, good: bytes, begin: bytes) -> str:
    """Good requests while many connections send a byte a second."""
    with ExitStack() as stack:
        slow = [stack.enter_context(service.connect()) for _ in range(N_SLOW)]
        for connection in slow:
            connection.sendall(begin)
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(1.0):
                clients.trickle(slow, rounds=1, pause=0.0)

        thread = threading.Thread(target=trickle)
        thread.start()
        answers = [service.ask("/predict", good) for _ in range(40)]
        stop.set()
        thread.join()
    assert {answer.status for answer in answers} == {200}
    return f"meanwhile 40 good requests, p50 {1e3 * np.median([each.seconds for each in answers]):.0f} ms"


def _leave(service: clients.Running) -> str:
    body = clients.wav(5.0)
    for _ in range(N_SLOW):
        with service.connect() as connection:
            connection.sendall(clients.head(len(body)) + body)
    return "all gone before their answers"


def _said(answer: clients.Answer) -> str:
    text = answer.body.decode("utf-8", "replace")
    return f"{answer.status} {text if len(text) <= 120 else text[:119] + '…'}"


if __name__ == "__main__":
    main()
