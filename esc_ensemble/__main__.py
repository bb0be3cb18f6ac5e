"""Where `esc-ens` and `python -m esc_ensemble` start: a command's failure becomes a message and an exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import cyclopts
from pydantic import ValidationError

from esc_ensemble.cli import app
from esc_ensemble.config import COMMANDS, TrainAConfig
from esc_ensemble.errors import EscError, list_problems
from esc_ensemble.progress import say
from esc_ensemble.settings import explain

INTERRUPTED = 130  # what shells give for Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit code: 0 done, 1 the work failed, 2 input or usage was wrong."""
    # Threads that wait spin by default, and on a busy machine starve the ones they wait for: ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt_once)
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character loses no result
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except KeyboardInterrupt:
        say("Stopped. What was finished is kept; the same command goes on from there.")
        return INTERRUPTED
    except cyclopts.CycloptsError as error:
        return _fail(_usage_message(error), 2, debug)
    except EscError as error:
        return _fail(str(error), error.exit_code, debug)
    except PermissionError as error:
        return _fail(f"{error.filename or 'A file'} cannot be opened: permission denied.", 2, debug)
    except Exception as error:  # noqa: BLE001 - the last line of defence; --debug shows all
        return _fail(
            f"Unexpected {type(error).__name__}: {error}\nThis is a fault in esc-ens; --debug shows where.",
            1,
            debug,
        )
    return 0


def _interrupt_once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape of a signal handler
    """Stops the command; Ctrl-C again and again does not get into the way of tidying up."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    say(f"esc-ens: {message}")
    return code


def _usage_message(error: cyclopts.CycloptsError) -> str:
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        title = cause.title.strip("]").rpartition("[")[2]  # the name of the settings, or `Optional[name]`
        kind = next((kind for kind in COMMANDS.values() if kind.__name__ == title), TrainAConfig)
        return list_problems("The flags cannot be used:", explain(kind, cause))
    return f"{error} (esc-ens COMMAND --help lists what there is)"


if __name__ == "__main__":
    sys.exit(main())
