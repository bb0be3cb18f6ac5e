"""What libsndfile decodes at a time: ranges of a file, and corrected bytes between them.

The Kaggle kernel carries a copy of the part between the two marks, and a test compares the texts.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

# --- copied into kaggle_kernel.py

BLOCK_BYTES = 1 << 18
FEW_SAMPLES = 1024
"""Bytes behind a file that are too few to ask what they are."""


@dataclass(frozen=True)
class Stream:
    """What libsndfile decodes at a time."""

    parts: tuple[bytes | tuple[int, int], ...]
    """Its content: bytes, and ranges (start, end) of the file."""
    exact: bool = True
    """Whether as many samples must come out as its header promises; not where writers leave another number."""
    least_seconds: float = 0.0
    """Of sound that must come out."""
    form: tuple[int, int, int] | None = None
    """Samples, rate in Hz and channels where they are known already; libsndfile takes longer to open Vorbis."""


@dataclass(frozen=True)
class Structure:
    """What a file is made of."""

    streams: tuple[Stream, ...] = ()
    missing: str = ""
    """Why samples are missing; empty where none are."""
    end: int = 0
    """Where the last stream ends."""
    container: str = ""
    """WAV, AIFF, W64, CAF, AU, NIST, FLAC, Ogg or MP3; empty where it is none of them."""
    other: str = ""
    """The kind of a file that is known and not decoded."""


class Reader:
    """Random access to the bytes of a file, a block at a time."""

    def __init__(self, file: BinaryIO | Spliced) -> None:
        self.file = file
        self.size = file.seek(0, io.SEEK_END)
        self._start, self._block = 0, b""

    def at(self, position: int, n_bytes: int) -> bytes:
        """Returns `n_bytes` from `position` on, or fewer at the end of the file."""
        if position >= self.size:  # a damaged size may lead anywhere
            return b""
        offset = position - self._start
        if offset < 0 or offset + n_bytes > len(self._block):
            self.file.seek(position)
            self._start, self._block, offset = position, self.file.read(max(n_bytes, BLOCK_BYTES)), 0
        return self._block[offset : offset + n_bytes]

    def find(self, wanted: bytes, start: int, stop: int) -> int:
        """Returns the first position of `wanted` from `start` on that ends by `stop`, or -1."""
        while start + len(wanted) <= stop:
            n_bytes = min(BLOCK_BYTES, stop - start)
            place = self.at(start, n_bytes).find(wanted)
            if place >= 0:
                return start + place
            start += max(1, n_bytes - len(wanted) + 1)
        return -1


class Spliced(io.RawIOBase):
    """A read-only file made of ranges of another one and of bytes in between."""

    def __init__(self, file: BinaryIO | Spliced, parts: Sequence[bytes | tuple[int, int]]) -> None:
        super().__init__()
        self._file, self._parts = file, parts
        self._starts, n_bytes = [], 0
        for part in parts:
            self._starts.append(n_bytes)
            n_bytes += length(part)
        self._size, self._position, self._number = n_bytes, 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._position, self._size)[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n_wanted, n_done = min(len(view), max(0, self._size - self._position)), 0
        while n_done < n_wanted:
            got = self._read_part(n_wanted - n_done)
            if not got:
                break
            view[n_done : n_done + len(got)] = got
            n_done += len(got)
            self._position += len(got)
        return n_done

    def _read_part(self, n_bytes: int) -> bytes:
        """Reads on from the position, in one part alone."""
        if self._starts[self._number] > self._position:
            self._number = 0
        while self._number + 1 < len(self._starts) and self._starts[self._number + 1] <= self._position:
            self._number += 1
        part, offset = self._parts[self._number], self._position - self._starts[self._number]
        if isinstance(part, bytes):
            return part[offset : offset + n_bytes]
        self._file.seek(part[0] + offset)
        return self._file.read(min(n_bytes, part[1] - part[0] - offset))


def length(part: bytes | tuple[int, int]) -> int:
    """Returns the number of bytes of a part."""
    return len(part) if isinstance(part, bytes) else part[1] - part[0]


def unpack(reader: Reader, size_format: str, position: int) -> int:
    """Returns the number at a position, in a format of `struct`; as if zeros followed the file."""
    n_bytes = struct.calcsize(size_format)
    return int(struct.unpack(size_format, reader.at(position, n_bytes).ljust(n_bytes, b"\0"))[0])


def patched(start: int, stop: int, patches: Sequence[tuple[int, bytes]]) -> tuple[bytes | tuple[int, int], ...]:
    """Returns the parts of a range in which bytes at some positions are replaced."""
    parts: list[bytes | tuple[int, int]] = []
    for position, content in patches:
        parts += [(start, position), content]
        start = position + len(content)
    return (*parts, (start, stop))


def after_tags(reader: Reader, start: int, stop: int) -> int:
    """Skips tags before and behind audio: ID3v1, ID3v2, APE, Lyrics3."""
    while start < stop:
        head = reader.at(start, 32)
        if head[:3] == b"ID3" and len(head) >= 10:
            size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            start += 10 + size + (10 if head[5] & 0x10 else 0)
        elif head[:3] == b"TAG":
            start += 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            size, flags = struct.unpack("<12xI4xI8x", head)
            start += 32 + (size if flags & 0x2000_0000 else 0)
        elif head[:11] == b"LYRICSBEGIN":
            end = reader.find(b"LYRICS200", start, stop)
            start = end + 9 if end >= 0 else stop
        else:
            break
    return min(start, stop)


# --- end of the copy
