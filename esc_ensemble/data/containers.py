"""What an audio file is by its first bytes, and whether it ends before they say that it should.

Decoders accept files that are cut short without a word.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

OGG_PAGE_MAX = 27 + 255 + 255 * 255
OGG_LAST_PAGE = 0x04
# Writers that stream to a pipe cannot go back to fill in the size and leave a number near 2^31 or 2^32.
RIFF_SIZE_UNKNOWN = 0x7FFF_0000
MOST_TAGS = 4


def container(file: BinaryIO) -> str:
    """Names the container: WAV, AIFF, FLAC, Ogg or MP3; empty where it is none of them.

    Args:
        file: open for reading bytes; where it stands does not matter.
    """
    start, head = 0, b""
    for _ in range(MOST_TAGS):
        file.seek(start)
        head = file.read(12).ljust(12)
        if head[:3] != b"ID3":  # a tag that may stand before any of them
            break
        start += 10 + _tag_size(head)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:] == b"WAVE":
        return "WAV"
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        return "AIFF"
    if head[0] == 0xFF and head[1] >= 0xE0:
        return "MP3"
    return {b"fLaC": "FLAC", b"OggS": "Ogg"}.get(head[:4], "")


def missing_end(file: BinaryIO) -> str:
    """Says what shows that a WAV, AIFF, Ogg or MP3 file is cut short; empty where nothing does.

    FLAC needs no look: its header holds the number of samples, which decoding is held to.

    Args:
        file: open for reading bytes; where it stands does not matter.

    Raises:
        OSError: the file cannot be read.
    """
    n_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12).ljust(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        return _short_chunk(file, n_bytes, b"data", "<4sI")
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        return _short_chunk(file, n_bytes, b"SSND", ">4sI")
    if head[:4] == b"OggS":
        return _short_ogg(file, n_bytes)
    if head[:3] == b"ID3" or (head[0] == 0xFF and head[1] >= 0xE0):
        return _short_mp3(file, n_bytes, head)
    return ""


def _short_chunk(file: BinaryIO, n_bytes: int, wanted: bytes, layout: str) -> str:
    """Walks the chunks after the 12-byte head and holds the one with the samples to the file's size."""
    position = 12
    while position + 8 <= n_bytes:
        file.seek(position)
        name, size = struct.unpack(layout, file.read(8))
        left = n_bytes - position - 8
        if name == wanted:
            if left < size < RIFF_SIZE_UNKNOWN:
                return f"its header promises {size} bytes of samples, {left} are there"
            return ""
        position += 8 + size + size % 2  # chunks start at even positions
    return "it ends before its samples begin"


def _short_ogg(file: BinaryIO, n_bytes: int) -> str:
    """Looks for a page that ends where the file does and is marked as the stream's last (RFC 3533)."""
    start = max(0, n_bytes - OGG_PAGE_MAX)
    file.seek(start)
    tail = file.read()
    position = tail.rfind(b"OggS")
    while position >= 0:
        # The four letters may also stand inside a page by chance, so only a page of the right length counts.
        header = tail[position : position + 27]
        if len(header) == 27 and header[4] == 0:
            n_segments = header[26]
            segments = tail[position + 27 : position + 27 + n_segments]
            if position + 27 + n_segments + sum(segments) == len(tail):
                return "" if header[5] & OGG_LAST_PAGE else "its last page is not marked as the end of the stream"
        position = tail.rfind(b"OggS", 0, position)
    return "its last page is not whole"


def _short_mp3(file: BinaryIO, n_bytes: int, head: bytes) -> str:
    """Holds the file to the number of bytes that the Xing header tells, where the encoder wrote one."""
    start = 0
    if head[:3] == b"ID3":  # a tag before the first frame
        start = 10 + _tag_size(head)
    file.seek(start)
    frame = file.read(256)
    position = max(frame.find(b"Xing"), frame.find(b"Info"))
    tells_bytes = position >= 0 and len(frame) >= position + 16 and frame[position + 7] & 2
    if not tells_bytes:
        return ""
    place = position + (12 if frame[position + 7] & 1 else 8)  # the number of frames may stand before
    (size,) = struct.unpack(">I", frame[place : place + 4])
    left = n_bytes - start
    return f"its header promises {size} bytes, {left} are there" if left < size else ""


def _tag_size(head: bytes) -> int:
    """Gives the length of an ID3 tag without its head, which holds 7 bits of it a byte."""
    return sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
