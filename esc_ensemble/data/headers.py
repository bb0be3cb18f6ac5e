"""Length, rate and channels of all clips, as the headers of their files have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from esc_ensemble.data.audio import Header, read_header
from esc_ensemble.data.decoding import map_files
from esc_ensemble.data.tables import plural
from esc_ensemble.errors import DataError
from esc_ensemble.progress import progress

MOST_NAMED = 5
MANY = 5_000
CHUNK = 64


@dataclass(frozen=True)
class Headers:
    """The headers that could be read, and a message for each of the others."""

    found: tuple[Header, ...]
    unreadable: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Returns them in a few lines for people."""
        lines = []
        if self.found:
            seconds = np.array([header.seconds for header in self.found])
            lines = [
                f"Durations: {seconds.min():.3g} to {seconds.max():.3g} s, median {np.median(seconds):.3g} s, "
                f"{seconds.sum() / 3600:.2f} h in all",
                f"Sample rates: {_counted(self.rates, 'Hz')}",
                f"Channels: {_counted(self.channels, '')}",
            ]
        if self.unreadable:
            more = len(self.unreadable) - MOST_NAMED
            lines.append(f"{plural(len(self.unreadable), 'file')} cannot be opened:")
            lines += [f"  {message}" for message in self.unreadable[:MOST_NAMED]]
            lines += [f"  and {more} more"] * (more > 0)
        return lines

    @property
    def rates(self) -> Counter[int]:
        """Hz -> clips."""
        return Counter(header.sample_rate for header in self.found)

    @property
    def channels(self) -> Counter[int]:
        """Channels -> clips."""
        return Counter(header.n_channels for header in self.found)

    def to_json(self) -> dict[str, Any]:
        """Returns the same as plain values."""
        seconds = [header.seconds for header in self.found]
        return {
            "seconds": {
                "min": min(seconds, default=None),
                "median": float(np.median(seconds)) if seconds else None,
                "max": max(seconds, default=None),
                "total": sum(seconds),
            },
            "sample_rates": {str(rate): n for rate, n in self.rates.most_common()},
            "channels": {str(n_channels): n for n_channels, n in self.channels.most_common()},
            "unreadable": list(self.unreadable),
        }


def read_headers(paths: Sequence[Path]) -> Headers:
    """Reads the headers of files, or of rows of Parquet files, without decoding them.

    In threads, since libsndfile releases the interpreter's lock; in processes where there are many files.
    """
    found, unreadable = [], []
    with progress("Headers", len(paths), in_passing=True) as advance:
        for result in map_files(_read_header, paths, threads=len(paths) < MANY, size=CHUNK):
            if isinstance(result, Header):
                found.append(result)
            else:
                unreadable.append(result)
            advance()
    return Headers(tuple(found), tuple(unreadable))


def _read_header(source: Path | BinaryIO, *, name: str) -> Header | str:
    try:
        return read_header(source, name=name)
    except DataError as error:
        return str(error)


def _counted(counts: Counter[int], unit: str) -> str:
    return ", ".join(f"{value} {unit}".rstrip() + f" ({n})" for value, n in counts.most_common())
