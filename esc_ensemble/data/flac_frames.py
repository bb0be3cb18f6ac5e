"""FLAC: its frames, whose headers say where they belong.

The Kaggle kernel carries a copy of the part between the two marks, and a test compares the texts.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import lru_cache

from esc_ensemble.data.streams import BLOCK_BYTES, Reader, Stream, Structure, patched, unpack

# --- copied into kaggle_kernel.py

FLAC_SYNC = re.compile(rb"\xff[\xf8\xf9]")
FLAC_HEADER = 16
"""Bytes of the longest header of a frame."""


def read_flac(reader: Reader, start: int) -> Structure:
    """Holds the number of samples in the header to the frames, whose headers say where they belong."""
    stop = reader.find(b"fLaC\0\0\0\x22", start + 4, reader.size)
    stop = reader.size if stop < 0 else stop
    told = unpack(reader, ">Q", start + 18)
    n_told = told & ((1 << 36) - 1)
    n_found, ahead, n_ahead = 0, 0, 0
    for first, size in _flac_frames(reader, start + 42, stop, unpack(reader, ">H", start + 8)):
        if first == n_found:
            n_found, n_ahead = first + size, 0
        else:  # a frame that others follow, or bytes that look like one
            n_ahead = n_ahead + 1 if first == ahead else 0
            ahead = first + size
            if first > n_found and n_ahead:
                return Structure(missing=f"behind its first {n_found} samples some are not there")
    if not n_found and not n_told:
        return Structure(missing="it ends before its samples begin")
    parts: tuple[bytes | tuple[int, int], ...] = ((start, stop),)
    if n_found > n_told:
        parts = patched(start, stop, [(start + 18, struct.pack(">Q", told - n_told + n_found))])
    return Structure((Stream(parts),), end=stop)


def _flac_frames(reader: Reader, start: int, stop: int, fixed_size: int) -> Iterator[tuple[int, int]]:
    """Yields the first sample and the number of samples of each frame, by what looks like its header."""
    while start < stop:
        block = reader.at(start, min(BLOCK_BYTES, stop - start))
        n_here = len(block) if start + len(block) >= stop else len(block) - FLAC_HEADER
        for found in FLAC_SYNC.finditer(block, 0, n_here):
            head = block[found.start() : found.start() + FLAC_HEADER]
            if len(head) < 6:  # the file ends here
                continue
            n_coded = len(format(head[4], "08b").split("0")[0]) or 1
            size_code, rate_code = head[2] >> 4, head[2] & 15
            n_size = {6: 1, 7: 2}.get(size_code, 0)
            end = 4 + n_coded + n_size + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
            if not size_code or len(head) <= end or _crc8(head[:end]) != head[end]:
                continue
            number = head[4] & (0x7F >> n_coded if n_coded > 1 else 0x7F)
            for byte in head[5 : 4 + n_coded]:
                number = number << 6 | byte & 0x3F
            if n_size:
                size = 1 + int.from_bytes(head[4 + n_coded : 4 + n_coded + n_size], "big")
            else:
                size = 192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
            yield (number if head[1] & 1 else number * fixed_size), size
        start += n_here


def _crc8(content: bytes) -> int:
    crc, table = 0, _crc8_table()
    for byte in content:
        crc = table[crc ^ byte]
    return crc


@lru_cache(1)
def _crc8_table() -> bytes:
    table = bytearray(range(256))
    for _ in range(8):
        table = bytearray((crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1 for crc in table)
    return bytes(table)


# --- end of the copy
