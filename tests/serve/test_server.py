"""A real server in a process of its own, among clients of all kinds."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import clients
import pytest

from tests.serve.models import CLASSES

GIGABYTE = 1 << 30
TIMEOUT = 2.0
LIMITS = ["--timeout", str(TIMEOUT), "--max-seconds", "60", "--max-concurrent", "2"]
WITHOUT_TRAINING = """
import sys
TRAINING = "torch torchaudio transformers cyclopts rich yaml pandas sklearn scipy optuna onnx jinja2".split()
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in TRAINING:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
from esc_ensemble.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
GOOD = clients.wav(1.0)


def forbid_files() -> None:
    """Lets a process write no byte to any file: such a write fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the service runs, and to which temporary files and caches would go."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def service(model: Path, empty: Path) -> Iterator[clients.Running]:
    places = dict.fromkeys(("TMPDIR", "HOME", "XDG_CACHE_HOME"), str(empty))
    environment = os.environ | places | {"PYTHONPATH": str(Path(__file__).parents[2])}
    options: dict[str, Any] = {"cwd": empty, "env": environment, "preexec_fn": forbid_files}
    with clients.running(model, LIMITS, **options) as running:
        yield running
    assert running.process.returncode == 0
    assert list(empty.iterdir()) == [], "no file is ever written"


def assert_answers(service: clients.Running, within: float = 5.0) -> None:
    for path, body in (("/health", None), ("/predict", GOOD)):
        answer = service.ask(path, body)
        assert answer.status == 200, answer
        assert answer.seconds < within


def test_many_clients_and_none_is_lost(service: clients.Running) -> None:
    bodies = [clients.wav(0.5 + 0.1 * (n % 7), seed=n) for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: service.ask("/predict", bodies[n % 16]), range(160)))
    assert {answer.status for answer in answers} == {200}
    for n, answer in enumerate(answers):
        assert answer.body == answers[n % 16].body, "each client gets the answer to its own clip"
    assert list(answers[0].json["probabilities"]) == list(CLASSES)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_gigabyte_is_refused_before_it_is_there(service: clients.Running, chunked: bool) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield clients.head(None if chunked else GIGABYTE)
        for part in clients.zeros(GIGABYTE, chunked=chunked):
            yield part
            sent += len(part)

    answer = service.send(body())
    assert (answer.status, answer.json) == (413, {"error": "The upload is larger than 20 MB."})
    assert answer.headers["connection"] == "close"
    assert sent < 0.2 * GIGABYTE
    assert answer.seconds < 10
    assert_answers(service)


def test_who_asks_before_sending_sends_nothing(service: clients.Running) -> None:
    head = clients.head(GIGABYTE).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    with service.connect() as connection:
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("tells", [True, False])
def test_a_bomb_does_not_go_off(service: clients.Running, tells: bool) -> None:
    bomb = clients.flac_bomb(7200, 8000, tells=tells)
    assert len(bomb) < 300_000, "of 115 MB"
    before = service.memory()
    answer = service.ask("/predict", bomb)
    assert (answer.status, answer.json) == (413, {"error": "The upload is longer than 60 s."})
    assert answer.seconds < 5
    assert not service.memory() - before > 50
    assert_answers(service)


def test_slow_clients_keep_nobody_waiting(service: clients.Running) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(service.connect()) for _ in range(100)]
        for number, connection in enumerate(slow):
            connection.sendall(clients.head(1000) + b"RI" if number % 2 else b"POST /predict HTTP/1.1\r\nX-a: ")
        end = time.monotonic() + TIMEOUT + 3
        gauge = service.ask("/metrics").body.split(b"\nesc_ens_uploads_receiving ")[1].split(b"\n")[0]
        assert gauge == b"50"
        while time.monotonic() < end - 3:
            assert_answers(service, within=2.0)
            clients.trickle(slow, rounds=1, pause=0.2)
        told = 0
        for connection in slow:
            connection.settimeout(max(0.1, end - time.monotonic()))
            with contextlib.suppress(ConnectionResetError):
                told += connection.recv(100).startswith(b"HTTP/1.1 408 ")
        assert told == 50, "who began a body is told; who never ended a head is not"
    assert_answers(service)


def test_who_leaves_is_not_waited_for(service: clients.Running) -> None:
    for _ in range(100):
        with service.connect() as connection:
            connection.sendall(clients.head(len(GOOD)) + GOOD)
    assert_answers(service)


def test_a_body_in_crumbs_is_refused(service: clients.Running) -> None:
    answer = service.send([clients.head(None), b"1\r\nx\r\n" * 5000])
    assert (answer.status, answer.json) == (400, {"error": "Invalid HTTP request received."})
    assert_answers(service)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_bad_http_is_told_so(service: clients.Running, sent: bytes) -> None:
    answer = service.send([sent])
    assert (answer.status, answer.json) == (400, {"error": "Invalid HTTP request received."})


def test_who_does_not_take_its_answers_is_cut(service: clients.Running) -> None:
    with service.connect() as connection, contextlib.suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
        connection.settimeout(1.0)
        for _ in range(100):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
    assert_answers(service)


def started(model: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WITHOUT_TRAINING, "serve", str(model), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_without_training_installed(model: Path, number: signal.Signals) -> None:
    process = started(model, "--port", "0", "--host", "localhost", *LIMITS)
    running = clients.Running(process)
    assert running.ask("/predict", GOOD).status == 200
    with running.connect() as connection:  # an upload on its way holds nothing up
        connection.sendall(clients.head(1000) + b"RIFF")
        time.sleep(0.2)
        begun = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert time.monotonic() - begun < 5
    assert (process.returncode, out, err) == (0, "", "Stopped.\n")
    assert running.said[0] == "tiny.onnx: 6 classes, clips of 1 s.\n"


def test_a_port_in_use_is_one_message(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = started(model, "--port", str(port))
        out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    expected = f"esc-ens: Port {port} is in use. Choose another with --port, or stop the program that has it.\n"
    assert (out, err) == ("", expected)
