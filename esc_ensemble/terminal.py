"""What can be drawn on."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TextIO


def can_draw(stream: TextIO) -> bool:
    """Whether a stream is a terminal, and rich, which draws on it, is there: the smallest installation has it not."""
    return stream.isatty() and find_spec("rich") is not None
