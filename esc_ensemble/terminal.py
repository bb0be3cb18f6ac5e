"""Streams: what can be drawn on, and those that are missing."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib.util import find_spec
from typing import TextIO, TypeGuard


def can_draw(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal, and rich, which draws on it, is there: the smallest installation has it not."""
    return is_open(stream) and stream.isatty() and find_spec("rich") is not None


def is_open(stream: TextIO | None) -> TypeGuard[TextIO]:
    """Whether a stream can be written to: schedulers and pythonw start programs without any, or with closed ones."""
    return stream is not None and not getattr(stream, "closed", False)


def write_line(stream: TextIO | None, line: str) -> None:
    """Write a line of news, which is lost where the stream is missing, closed, or a pipe that nobody reads."""
    if not is_open(stream):
        return
    try:
        print(line, file=stream, flush=True)
    except OSError:
        _drop(stream)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Replace standard streams that are missing or closed by empty ones.

    Also descriptors 0 to 2 that are closed: the next file to be opened would get such a number, and what libraries
    print would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest number that is free
    with ExitStack() as stack:
        if not is_open(sys.stdout):
            stack.enter_context(redirect_stdout(stack.enter_context(_null("w"))))
        if not is_open(sys.stderr):
            stack.enter_context(redirect_stderr(stack.enter_context(_null("w"))))
        if not is_open(sys.stdin):
            stack.callback(setattr, sys, "stdin", sys.stdin)
            sys.stdin = stack.enter_context(_null("r"))
        yield


def _null(mode: str) -> TextIO:
    return open(os.devnull, mode, encoding="utf-8")  # type: ignore[return-value]  # noqa: PTH123


def _drop(stream: TextIO) -> None:
    """Direct a stream that failed to nowhere: what it holds would make the interpreter's last flush fail too."""
    with suppress(OSError, ValueError, io.UnsupportedOperation):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
