"""`esc-ens serve`: the model, the port, and everything that is limited."""

from __future__ import annotations

import argparse
import errno
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from esc_ensemble.arguments import Parser, at_least
from esc_ensemble.cores import free_cores
from esc_ensemble.errors import ConfigError, WorkError
from esc_ensemble.infer.classifier import Classifier
from esc_ensemble.progress import say
from esc_ensemble.serve.limits import Limits

OWN_FILES = 50
"""Open files that are no connections, on the safe side."""


def parser() -> argparse.ArgumentParser:
    """Gives the command's flags."""
    flags = Parser("serve", "Answer HTTP requests: audio in, names of sounds out; torch is not needed.")
    flags.add_argument("model", type=Path, help="file made by `esc-ens export`")
    where = flags.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 is all of them (127.0.0.1)")
    where.add_argument("--port", type=_port, default=8000, help="port to listen at; 0 takes a free one (8000)")
    limits = flags.add_argument_group("limits")
    limits.add_argument("--max-megabytes", type=_above_zero, default=20.0, help="of one upload (20)")
    limits.add_argument("--max-seconds", type=_above_zero, default=600.0, help="of one recording (600)")
    limits.add_argument("--max-windows", type=at_least(1), default=500, help="that a recording is cut into (500)")
    limits.add_argument(
        "--max-concurrent", type=at_least(0), default=0, help="requests worked on at a time; 0 takes the free cores"
    )
    limits.add_argument("--queue", type=at_least(0), default=32, help="requests that may wait for them (32)")
    limits.add_argument(
        "--timeout", type=_above_zero, default=30.0, help="seconds for a client to send its request (30)"
    )
    flags.add_argument("--top", type=at_least(1), default=5, help="classes to name where a request does not say (5)")
    work = flags.add_argument_group("machine")
    work.add_argument("--threads", type=at_least(0), default=1, help="CPU threads for each request; 0: free cores (1)")
    work.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one"
    )
    return flags


def run(tokens: Sequence[str]) -> None:
    """Serves until it is stopped.

    Raises:
        EscError: a flag or the model cannot be used, a package is missing, or the port is taken.
    """
    flags = parser().parse_args(tokens)
    missing = [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed. Install what serving "
            'needs: pip install "esc_ensemble[serve]"'
        )
    limits = Limits(
        max_bytes=round(flags.max_megabytes * 1e6),
        max_seconds=flags.max_seconds,
        max_windows=flags.max_windows,
        max_concurrent=flags.max_concurrent or free_cores(),
        queue=flags.queue,
        timeout=flags.timeout,
        max_connections=_possible_connections(),
    )
    with _bind(flags.host, flags.port) as listener:  # before the model: loading it takes longer
        classifier = Classifier(flags.model, flags.threads, flags.device, lasting=True)
        # The first run sets up memory, and shows whether the file works at all.
        classifier.listen(np.zeros((1, classifier.n_samples), dtype=np.float32))
        _serve(classifier, flags, limits, listener)
    say("Stopped.")


def _serve(classifier: Classifier, flags: argparse.Namespace, limits: Limits, listener: socket.socket) -> None:
    from esc_ensemble.serve.app import create_app  # noqa: PLC0415 - the flags are explained without fastapi too
    from esc_ensemble.serve.server import Server  # noqa: PLC0415

    app = create_app(classifier, limits, flags.model.stem, flags.top)
    server = Server(app, app.state.service, limits, lambda: _announce(flags.model, classifier, listener))
    with _quiet_decoders(), _stopped_by_signals():
        try:
            server.run(sockets=[listener])
        except OSError as error:  # two that were started at once may both have bound it
            raise _explain(error, flags.host, flags.port) from error


def _announce(model: Path, classifier: Classifier, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    say(f"{model.name}: {len(classifier.class_names)} classes, clips of {classifier.clip_seconds:g} s.")
    if host not in ("127.0.0.1", "::1"):
        say("Anyone who reaches this machine may ask; for TLS and passwords put a proxy in front.")
    say(f"Listening on {address} (Ctrl-C stops it).")


def _bind(host: str, port: int) -> socket.socket:
    """Takes a port; connections are refused until the model is there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # the latter where a part of the name is too long
        raise _explain(error, host, port) from error
    try:
        if os.name == "posix":  # elsewhere it would let two programs listen
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _explain(error, host, port) from error
    return listener


def _explain(error: OSError | UnicodeError, host: str, port: int) -> ConfigError | WorkError:
    if isinstance(error, (socket.gaierror, UnicodeError)) or error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(f"--host is {host}, which is no address of this machine (127.0.0.1, 0.0.0.0, ::).")
    if error.errno == errno.EADDRINUSE:
        return WorkError(f"Port {port} is in use. Choose another with --port, or stop the program that has it.")
    if isinstance(error, PermissionError):
        return WorkError(f"Port {port} may not be listened at by this user. Choose one above 1023 with --port.")
    return WorkError(f"Port {port} of {host} cannot be listened at: {error.strerror or error}.")


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Ends quietly on Ctrl-C, and on SIGTERM, which is how service managers and containers stop a program."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        yield


@contextmanager
def _quiet_decoders() -> Iterator[None]:
    """Keeps our own messages, and drops those of C libraries: they write lines about every damaged file.

    A client could fill a log with them.
    """
    try:
        errors, results = sys.stderr.fileno(), sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # missing, or replaced by something that is no file
        yield
        return
    sys.stdout.flush()
    ours, kept, nothing = sys.stderr, (os.dup(errors), os.dup(results)), os.open(os.devnull, os.O_WRONLY)
    try:
        with os.fdopen(os.dup(errors), "w", buffering=1, errors="backslashreplace") as sys.stderr:
            os.dup2(nothing, errors)
            os.dup2(nothing, results)
            yield
    finally:
        sys.stderr = ours
        os.dup2(kept[0], errors)
        os.dup2(kept[1], results)
        for descriptor in (*kept, nothing):
            os.close(descriptor)


def _possible_connections() -> int:
    """Gives how many connections fit into the number of files that this process may open."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return Limits.max_connections
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(Limits.max_connections, allowed - OWN_FILES))


def _port(text: str) -> int:
    """A kind of flag: a TCP port."""
    value = at_least(0)(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"must be at most 65535 (found {value})")
    return value


def _above_zero(text: str) -> float:
    """A kind of flag: a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0 (found {text})")
    return value
