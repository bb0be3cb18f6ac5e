"""Clients of `esc-ens serve`, good and bad, with sockets alone: what a library would not send is sent too."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import soundfile

START_SECONDS = 60
COMMAND = "import sys; from esc_ensemble.__main__ import main; sys.exit(main())"


@dataclass(frozen=True)
class Answer:
    """What came back, and after how long."""

    status: int
    headers: dict[str, str]
    """By names in lower case."""
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)


class Running:
    """A service in a process of its own.

    Args:
        process: with its messages piped.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line)
            if found := re.search(r"Listening on (http://\S+)", line):
                self.url = found[1]
                break
        else:
            raise RuntimeError(f"the service did not start:\n{''.join(self.said)}")
        parts = urlsplit(self.url)
        self.address = (parts.hostname or "", parts.port or 0)

    def ask(self, path: str, body: bytes | None = None, method: str = "", timeout: float = 60.0) -> Answer:
        """Sends one request on a connection of its own."""
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        try:
            return ask(connection, path, body, method)
        finally:
            connection.close()

    def connect(self, timeout: float = 30.0) -> socket.socket:
        """Opens a connection and sends nothing."""
        return socket.create_connection(self.address, timeout)

    def send(self, parts: Iterable[bytes], timeout: float = 30.0) -> Answer:
        """Sends bytes as they are, as far as they are taken, and reads the answer."""
        started = time.perf_counter()
        with self.connect(timeout) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                for part in parts:
                    connection.sendall(part)
            response = http.client.HTTPResponse(connection)
            response.begin()
            body = response.read()
        return Answer(response.status, _lower(response), body, time.perf_counter() - started)

    def memory(self, field: str = "VmHWM") -> float:
        """Gives the process's resident memory in MB, at its highest or (`VmRSS`) now; NaN where nobody tells."""
        with suppress(OSError):
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
            return int(re.findall(rf"{field}:\s+(\d+)", status)[0]) / 1000
        return float("nan")


@contextmanager
def running(model: Path, flags: Sequence[str] = (), **options: Any) -> Iterator[Running]:
    """Starts `esc-ens serve` at a free port and stops it in the end; `options` are `Popen`'s."""
    command = [sys.executable, "-c", COMMAND, "serve", str(model), "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
    try:
        yield Running(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def ask(connection: http.client.HTTPConnection, path: str, body: bytes | None = None, method: str = "") -> Answer:
    """Sends one request on a connection that may serve for more."""
    started = time.perf_counter()
    connection.request(method or ("GET" if body is None else "POST"), path, body)
    response = connection.getresponse()
    content = response.read()
    return Answer(response.status, _lower(response), content, time.perf_counter() - started)


def head(length: int | None, path: str = "/predict") -> bytes:
    """Gives the head of an upload of so many bytes; of one in chunks where not given."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {path} HTTP/1.1\r\nHost: service\r\n{size}\r\n\r\n".encode()


def zeros(n_bytes: int, *, chunked: bool = False) -> Iterator[bytes]:
    """Gives a body of so many bytes, which nobody has to hold."""
    block = bytes(1 << 20)
    part = b"%x\r\n%s\r\n" % (len(block), block) if chunked else block
    yield from (part for _ in range(n_bytes // len(block)))


def wav(seconds: float, sample_rate: int = 8000, seed: int = 0) -> bytes:
    """Gives a WAV file of noise."""
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * sample_rate))
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def flac_bomb(seconds: int, sample_rate: int = 44100, channels: int = 1, *, tells: bool = True) -> bytes:
    """Gives a FLAC of silence, some hundred times smaller than what it decodes to.

    Args:
        seconds: its length.
        sample_rate: in Hz.
        channels: up to 8.
        tells: whether the header says how long it is.
    """
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", samplerate=sample_rate, channels=channels, format="FLAC", subtype="PCM_16"
    ) as file:
        minute = np.zeros((60 * sample_rate, channels), dtype=np.int16)
        for _ in range(seconds // 60):
            file.write(minute)
    content = bytearray(buffer.getvalue())
    if not tells:  # the number of samples has the last 36 bits of these 5 bytes; 0 says that it is not known
        content[21] &= 0xF0
        content[22:26] = bytes(4)
    return bytes(content)


def trickle(connections: Sequence[socket.socket], rounds: int, pause: float) -> None:
    """Sends a byte on every connection, again and again; those that were closed are left alone."""
    for _ in range(rounds):
        for connection in connections:
            with suppress(OSError):
                connection.sendall(b"x")
        time.sleep(pause)


def _lower(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}
