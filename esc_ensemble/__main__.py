"""Where `esc-ens` and `python -m esc_ensemble` start: a command's failure becomes a message and an exit code.

Nothing is imported here that the smallest installation lacks: `infer` and `serve` have command lines of their own.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from types import FrameType

from esc_ensemble import __version__
from esc_ensemble.errors import ConfigError, EscError
from esc_ensemble.home import NO_TEMPORARY_FOLDER, provide_caches
from esc_ensemble.progress import say
from esc_ensemble.terminal import standard_streams

INTERRUPTED = 130  # what shells give for Ctrl-C
READER_GONE = 141  # and for a pipe that nobody reads
OWN_COMMAND_LINES = {"infer": "esc_ensemble.infer.command", "serve": "esc_ensemble.serve.command"}
"""Commands that need no other's packages, and the modules whose `run` does them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit code: 0 done, 1 the work failed, 2 input or usage was wrong."""
    # Threads that wait spin by default, and on a busy machine starve the ones they wait for: ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # onnxruntime 1.29 and later write events of each model to the user's cache, and send them to their makers.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt_once)
    provide_caches()
    with standard_streams():
        return _exit_code(list(sys.argv[1:] if arguments is None else arguments))


def _exit_code(tokens: list[str]) -> int:
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character loses no result
    try:
        _run(tokens)
        sys.stdout.flush()
    except KeyboardInterrupt:
        say("Stopped. No file is left half written; the same command goes on from what is finished.")
        return INTERRUPTED
    except SystemExit as end:  # after --help
        return int(end.code or 0)
    except Exception as error:  # noqa: BLE001 - the last line of defence; --debug shows all
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return READER_GONE
        if debug:
            traceback.print_exc()
        message, code = _explain(error)
        say(f"esc-ens: {message}")
        return code
    return 0


def _run(tokens: list[str]) -> None:
    command = next(iter(tokens), "")
    if command == "--version":
        print(__version__)
        return
    if command in OWN_COMMAND_LINES:
        importlib.import_module(OWN_COMMAND_LINES[command]).run(tokens[1:])
        return
    try:
        from esc_ensemble.cli import run  # noqa: PLC0415 - needs packages that the smallest installation lacks
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("esc_ensemble"):
            raise
        names = [name for name in OWN_COMMAND_LINES if name != "serve" or find_spec("fastapi")]
        here = f"This installation has {' and '.join(f'esc-ens {name}' for name in names)} (try --help)"
        rest = 'The rest: pip install "esc_ensemble[train]"'
        if command in ("", "--help", "-h"):
            print(f"esc-ens {__version__}\n{here}.\n{rest}")
            return
        raise ConfigError(f"{here}, but not esc-ens {command}: {error.name} is missing. {rest}") from error
    run(tokens)


def _reader_is_gone() -> bool:
    """Whether nobody reads stdout any more, as after `| head`; if so, leaving will not fail on it again."""
    if not hasattr(select, "poll"):  # Windows has no such pipes
        return False
    poll = select.poll()
    poll.register(sys.stdout, 0)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def _explain(error: Exception) -> tuple[str, int]:
    """Gives what is said of a failure, and the exit code."""
    if isinstance(error, EscError):
        return str(error), error.exit_code
    if isinstance(error, PermissionError):
        return f"{error.filename or 'A file'} cannot be opened: permission denied.", 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"No space left to write {error.filename or 'the result'}. Free some and type the same command again.", 1
    if isinstance(error, FileNotFoundError) and "usable temporary directory" in str(error):  # a library's attempt
        return NO_TEMPORARY_FOLDER, 1
    if isinstance(error, RuntimeError) and "determine home directory" in str(error):
        return "A path begins with ~, and that home folder is unknown. Write the whole path.", 2
    return f"Unexpected {type(error).__name__}: {error}\nThis is a fault in esc-ens; --debug shows where.", 1


def _interrupt_once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape of a signal handler
    """Stops the command; Ctrl-C again and again does not get into the way of tidying up."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
