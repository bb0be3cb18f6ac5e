"""What an audio file is made of: where its samples are, whether some are missing, and how to pass it to libsndfile.

libsndfile trusts headers. It stops where an estimated length ends, reads only the first of several streams, and takes a
truncated file for a whole one. So the structure of a file is read first: chunks (WAV, AIFF, W64, CAF), pages (Ogg) and
frames (MP3, FLAC). The result is one or more streams that libsndfile decodes to their last sample, or the reason why
samples are missing. Wrong sizes, absent end marks and tags are corrected on the way: they are no reason for a refusal.

The Kaggle kernel carries a copy of the part between the two marks, and a test compares the texts.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, BinaryIO

# --- copied into kaggle_kernel.py

BLOCK_BYTES = 1 << 18
SEARCH_BYTES = 1 << 18
"""How far into a file the beginning of audio is looked for."""
UNKNOWN_SIZE = 0x7F00_0000
"""Writers that cannot go back to fill in a 32-bit size leave 0 or a number from here on."""
FORGIVEN_BYTES = 128
"""A size may be too large by this or by the length of the header: some writers count the header too."""
FEW_SAMPLES = 1024
"""Bytes behind a file that are too few to ask what they are."""
FEW_BYTES = 16
"""Of the last MPEG frame that may be missing."""
SYNC_FRAMES = 4
"""Consecutive MPEG frames that are taken for audio where other bytes are before them."""
DECODER_DELAY = 529
"""Samples that MP3 decoders drop at the beginning of a stream with a header that says how many more to drop."""


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
            n_bytes += _length(part)
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


def _length(part: bytes | tuple[int, int]) -> int:
    return len(part) if isinstance(part, bytes) else part[1] - part[0]


def read_structure(file: BinaryIO) -> Structure:
    """Reads what a file is made of.

    Args:
        file: open for reading bytes; its position does not matter.

    Raises:
        OSError: the file cannot be read.
    """
    reader = Reader(file)
    container, start = _locate(reader)
    if not container:
        return Structure((Stream(((0, reader.size),)),), other=_other_kind(reader.at(start, 16)))
    found = _read_one(reader, container, start)
    structure = found
    while not found.missing:  # files that were put one behind the other
        start = _after_tags(reader, found.end, reader.size)
        following = _container_at(reader, start) if start + 16 <= reader.size else ""
        if following in ("", "MP3", "AU"):
            break
        found = _read_one(reader, following, start)
        structure = replace(structure, streams=structure.streams + found.streams, missing=found.missing)
    return replace(structure, container=container)


def read_container(file: BinaryIO) -> str:
    """Names the container: WAV, AIFF, W64, CAF, AU, NIST, FLAC, Ogg or MP3; empty where it is none of them.

    Args:
        file: open for reading bytes; its position does not matter.
    """
    return _locate(Reader(file))[0]


def _read_one(reader: Reader, container: str, start: int) -> Structure:
    if container == "FLAC":
        return _read_flac(reader, start)
    if container == "Ogg":
        return _read_ogg(reader, start)
    if container == "MP3":
        return _read_mpeg(reader, start, reader.size)
    if container == "AU":
        return _read_au(reader, start)
    if container == "NIST":
        return _read_nist(reader, start)
    return _read_chunks(reader, start, FORMS[container])


# Where audio begins

W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
MAGICS = (b"NIST_1A", b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", W64_RIFF, b"caff", b".snd")
OTHER_KINDS = {
    b"\x1aE\xdf\xa3": "WebM or Matroska",
    b"0&\xb2u": "WMA",
    b"#!AMR": "AMR",
    b"wvpk": "WavPack",
    b"MAC ": "Monkey's Audio",
    b"TTA1": "TTA",
    b"ADIF": "AAC",
    b"\xff\xf1": "AAC",
    b"\xff\xf9": "AAC",
    b"DSD ": "DSF",
    b"Creative Voice": "VOC",
    b"FRM8": "DSDIFF",
    b"%PDF": "PDF",
    b"PK\x03\x04": "ZIP",
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"\x1f\x8b": "gzip",
    b"<!DOCTYPE": "HTML",
    b"<html": "HTML",
}
"""First bytes of files that libsndfile does not decode, in which what looks like audio is chance."""


def _other_kind(head: bytes) -> str:
    kinds = [kind for magic, kind in OTHER_KINDS.items() if head.startswith(magic)]
    return "MP4" if head[4:8] == b"ftyp" else kinds[0] if kinds else ""


def _locate(reader: Reader) -> tuple[str, int]:
    """Returns the container and where it begins, behind tags and bytes that are no audio."""
    start = _after_tags(reader, 0, reader.size)
    found = _container_at(reader, start)
    if found or _other_kind(reader.at(start, 16)):
        return found, start
    stop = min(reader.size, start + SEARCH_BYTES)
    places = [reader.find(magic, start, stop) for magic in MAGICS]
    for place in sorted(place for place in places if place >= 0):
        found = _container_at(reader, place)
        if found:
            return found, place
    frame = _next_frame(reader, start, stop)
    return ("MP3", frame) if frame >= 0 else ("", 0)


def _container_at(reader: Reader, start: int) -> str:
    """Names the container that begins at `start`."""
    head = reader.at(start, 16).ljust(16)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return "WAV"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    for magic, name in (
        (W64_RIFF, "W64"),
        (b"fLaC", "FLAC"),
        (b"OggS", "Ogg"),
        (b"caff\0\1", "CAF"),
        (b"NIST_1A", "NIST"),
    ):
        if head.startswith(magic):
            return name
    if head[:4] == b".snd" and struct.unpack(">I", head[4:8])[0] in range(24, 1 << 16):
        return "AU"
    return "MP3" if _in_step(reader, start, reader.size) or _is_free_format(reader, start) else ""


def _after_tags(reader: Reader, start: int, stop: int) -> int:
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


# Chunks: WAV, AIFF, W64, CAF


@dataclass(frozen=True)
class _Form:
    """How a container writes chunks."""

    first: int
    """Where the first one begins."""
    samples: bytes
    """Name of the one with the samples."""
    size: str
    """How a size is written, for `struct`."""
    outer: int
    """Where the size of the whole is; -1 where there is none."""
    align: int
    counted: int = 0
    """Bytes of a chunk's header that its size includes."""


FORMS = {
    "WAV": _Form(12, b"data", "<I", 4, 2),
    "AIFF": _Form(12, b"SSND", ">I", 4, 2),
    "W64": _Form(40, b"data" + W64_TAIL, "<Q", 16, 8, 24),
    "CAF": _Form(8, b"data", ">q", -1, 1),
}


def _read_chunks(reader: Reader, start: int, form: _Form) -> Structure:
    if reader.at(start, 4) == b"RIFX":
        form = replace(form, size=">I")
    chunks = dict(_walk_chunks(reader, start + form.first, start, form))
    if form.samples not in chunks:
        return Structure(missing="it ends before its samples begin")
    body, size = chunks[form.samples]
    at_size = body - struct.calcsize(form.size)
    at_outer, outer_format, size_format = start + form.outer, form.size, form.size
    if reader.at(start, 4) == b"RF64" and b"ds64" in chunks and size == 0xFFFF_FFFF:
        at_outer = chunks[b"ds64"][0]
        at_size, outer_format, size_format = at_outer + 8, "<Q", "<Q"
        size = _unpack(reader, size_format, at_size)
    header = 0 if form.counted else 8  # not in the size of the whole
    end = reader.size
    told = start + header + _unpack(reader, outer_format, at_outer) if form.outer >= 0 else end
    left = end - body
    if _is_unknown(size, size_format):
        stop = _end_of_unknown(reader, body, told, size, form)
    elif size > left:
        if size - left > max(FORGIVEN_BYTES, min(body - start, 4 * FORGIVEN_BYTES)):
            return Structure(missing=f"its header promises {size} bytes of samples, {left} are there")
        stop = end
    else:
        stop = body + size
        behind = stop + (start - stop) % form.align
        if behind < told <= end and not _are_chunks(reader, behind, told, start, form):
            stop = told  # the size of the whole was brought up to date, that of the samples was not
        elif told <= behind and _may_be_samples(reader, behind):
            return Structure(
                missing=f"behind the {size} bytes of samples that its header counts {end - behind} more follow"
            )
    name, (at_format, n_format) = ("fmt ", chunks.get(b"fmt ", (0, 0)))
    if form.samples == b"data" and name and n_format and reader.at(at_format, 2) in (b"\x55\0", b"\x50\0"):
        return _read_mpeg(reader, body, stop)
    outer_end = told if stop <= told <= end + 1 and stop == body + size else stop
    patches = []
    if stop != body + size:
        patches.append((at_size, struct.pack(size_format, stop - body + form.counted)))
    if form.outer >= 0 and told != outer_end:
        patches.append((at_outer, struct.pack(outer_format, outer_end - start - header)))
    outer_end = min(outer_end, end)
    parts = _patched(start, outer_end, sorted(patches)) if patches or start or outer_end < end else ((0, end),)
    return Structure((Stream(parts),), end=outer_end + (start - outer_end) % form.align)


def _walk_chunks(reader: Reader, position: int, start: int, form: _Form) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yields names of chunks with where their content begins and its size, until that of the samples."""
    n_name, n_size = len(form.samples), struct.calcsize(form.size)
    while position + n_name + n_size <= reader.size:
        name = reader.at(position, n_name)
        body = position + n_name + n_size
        size = _unpack(reader, form.size, position + n_name) - form.counted
        yield name, (body, size)
        if name == form.samples or size < 0:
            return
        end = body + size
        padding = (start - end) % form.align
        # Some writers leave out the byte that makes lengths even.
        position = end if padding == 1 and reader.at(end, n_name) == form.samples else end + padding


def _are_chunks(reader: Reader, position: int, stop: int, start: int, form: _Form) -> bool:
    """Whether what is from `position` to `stop` is nothing but chunks, or too little to be one."""
    n_name, n_size = len(form.samples), struct.calcsize(form.size)
    while position + n_name + n_size <= stop:
        name = reader.at(position, 4)
        size = _unpack(reader, form.size, position + n_name) - form.counted
        if not all(0x20 <= byte < 0x7F for byte in name) or size < 0:
            return False
        position += n_name + n_size + size
        position += (start - position) % form.align
    return position <= stop + 1 or stop == reader.size


def _may_be_samples(reader: Reader, position: int) -> bool:
    """Whether what follows a file is neither another one nor tags, text, zeros or little."""
    position = _after_tags(reader, position, reader.size)
    content = reader.at(position, BLOCK_BYTES)
    if len(content) < FEW_SAMPLES or _container_at(reader, position) not in ("", "MP3"):
        return False
    return bool(content.strip(b"\0")) and any(byte < 9 for byte in content[:256])


def _is_unknown(size: int, size_format: str) -> bool:
    return size <= 0 or size >= (UNKNOWN_SIZE if size_format.endswith("I") else 1 << 62)


def _end_of_unknown(reader: Reader, body: int, told: int, size: int, form: _Form) -> int:
    """Returns where samples end whose size was never filled in."""
    end = reader.size
    if size == 0 and body < told == end and _are_chunks(reader, body, end, body, form):
        return body  # there are none
    return _before_tags(reader, body, told if body < told < end else end)


def _before_tags(reader: Reader, start: int, stop: int) -> int:
    """Returns `stop`, or where a tag of a fixed place before it begins."""
    if stop - 128 >= start and reader.at(stop - 128, 3) == b"TAG":
        stop -= 128
    if stop - 32 >= start and reader.at(stop - 32, 8) == b"APETAGEX":
        size, flags = struct.unpack("<12xI4xI8x", reader.at(stop - 32, 32))
        stop -= size + (32 if flags & 0x8000_0000 else 0)
    return max(start, stop)


def _read_au(reader: Reader, start: int) -> Structure:
    offset, size = struct.unpack(">4xII", reader.at(start, 12))
    body = start + offset
    left = reader.size - body
    if not _is_unknown(size, ">I") and size - left > FORGIVEN_BYTES:
        return Structure(missing=f"its header promises {size} bytes of samples, {left} are there")
    stop = body + size if 0 < size <= left else _before_tags(reader, body, reader.size)
    parts = _patched(start, stop, [(start + 8, struct.pack(">I", min(stop - body, 0xFFFF_FFFF)))])
    return Structure((Stream(parts if start or stop != body + size else ((0, reader.size),)),), end=stop)


def _read_nist(reader: Reader, start: int) -> Structure:
    """Reads a SPHERE file, whose header is text."""
    words = reader.at(start, 1024).split()
    fields = {
        name: int(value)
        for name, kind, value in zip(words, words[1:], words[2:], strict=False)
        if kind == b"-i" and value.isdigit()
    }
    n_bytes = fields.get(b"sample_count", 0) * fields.get(b"channel_count", 1) * fields.get(b"sample_n_bytes", 0)
    body = start + (int(words[1]) if words[1:] and words[1].isdigit() else 1024)
    if n_bytes > reader.size - body + FORGIVEN_BYTES:
        return Structure(
            missing=f"its header promises {n_bytes} bytes of samples, {max(0, reader.size - body)} are there"
        )
    return Structure((Stream(((start, reader.size),)),), end=reader.size)


def _unpack(reader: Reader, size_format: str, position: int) -> int:
    n_bytes = struct.calcsize(size_format)
    return int(struct.unpack(size_format, reader.at(position, n_bytes).ljust(n_bytes, b"\0"))[0])


def _patched(start: int, stop: int, patches: Sequence[tuple[int, bytes]]) -> tuple[bytes | tuple[int, int], ...]:
    """Returns the parts of a range in which bytes at some positions are replaced."""
    parts: list[bytes | tuple[int, int]] = []
    for position, content in patches:
        parts += [(start, position), content]
        start = position + len(content)
    return (*parts, (start, stop))


# FLAC


def _read_flac(reader: Reader, start: int) -> Structure:
    """Holds the number of samples in the header to the frames, whose headers say where they belong."""
    stop = reader.find(b"fLaC\0\0\0\x22", start + 4, reader.size)
    stop = reader.size if stop < 0 else stop
    told = _unpack(reader, ">Q", start + 18)
    n_told = told & ((1 << 36) - 1)
    n_found, ahead, n_ahead = 0, 0, 0
    for first, size in _flac_frames(reader, start + 42, stop, _unpack(reader, ">H", start + 8)):
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
        parts = _patched(start, stop, [(start + 18, struct.pack(">Q", told - n_told + n_found))])
    return Structure((Stream(parts),), end=stop)


def _flac_frames(reader: Reader, start: int, stop: int, fixed_size: int) -> Iterator[tuple[int, int]]:
    """Yields the first sample and the number of samples of each frame, by what looks like its header."""
    while start < stop:
        block = reader.at(start, min(BLOCK_BYTES, stop - start))
        n_here = len(block) if start + len(block) >= stop else len(block) - FLAC_HEADER
        for found in FLAC_SYNC.finditer(block, 0, n_here):
            head = block[found.start() : found.start() + FLAC_HEADER]
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


FLAC_SYNC = re.compile(rb"\xff[\xf8\xf9]")
FLAC_HEADER = 16
"""Bytes of the longest header of a frame."""


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


# Ogg

OGG_FIRST, OGG_LAST = 2, 4


@dataclass
class _Link:
    """A logical stream of an Ogg file."""

    serial: bytes
    kind: str
    """vorbis, opus, speex, flac, or empty where it is no audio."""
    ranges: list[tuple[int, int]] = field(default_factory=list)
    bodies: list[tuple[int, int]] = field(default_factory=list)
    number: int = 0
    """Of the next page."""
    granules: list[int] = field(default_factory=list)
    """Samples up to the end of each page that completes a packet."""
    ended: bool = False
    problem: str = ""


@dataclass(frozen=True)
class _Page:
    """A page, or what is in the place of one."""

    start: int
    body: int
    stop: int
    flags: int = 0
    serial: bytes = b""
    number: int = 0
    granule: int = 0
    damage: str = ""


def _read_ogg(reader: Reader, start: int) -> Structure:
    links: list[_Link] = []
    end = start
    for page in _pages(reader, start):
        if page.damage:
            if page.stop >= reader.size:
                return Structure(missing=page.damage)
            if links:
                links[-1].problem = page.damage
            continue
        link = next((each for each in reversed(links) if each.serial == page.serial), None)
        if page.flags & OGG_FIRST and (link is None or link.number > 1 or page.number == 0):
            link = _Link(page.serial, _codec(reader.at(page.body, 8)), number=page.number)
            links.append(link)
        if link is not None:
            # Recordings of a broadcast go on anywhere behind the pages with the headers.
            if page.number > link.number and len(link.ranges) > 2 and not link.problem:
                link.problem = f"{page.number - link.number} pages before byte {page.start} are not there"
            link.number = page.number + 1
            link.ranges.append((page.start, page.stop))
            link.bodies.append((page.body, page.stop))
            link.ended = bool(page.flags & OGG_LAST)
            if page.granule > 0:
                link.granules.append(page.granule)
        end = page.stop
    audio = [link for link in links if link.kind]
    if not audio:
        return Structure(missing="it has no stream of Vorbis, Opus, Speex or FLAC that begins")
    problem = next((link.problem for link in audio if link.problem), "")
    return Structure(tuple(_ogg_stream(reader, link) for link in audio), missing=problem, end=end)


def _pages(reader: Reader, position: int) -> Iterator[_Page]:
    """Yields the pages of an Ogg file, and one with a damage for each that is not whole."""
    while 0 <= position < reader.size:
        head = reader.at(position, 27 + 255)
        if head[:5] == b"OggS\0":
            n_head = 27 + (head[26] if len(head) >= 27 else 0)
            stop = position + n_head + sum(head[27:n_head])
            page = reader.at(position, stop - position)
            if len(head) < 27 or len(page) < stop - position:
                if reader.find(b"OggS\0", position + 1, reader.size) < 0:
                    yield _Page(position, position, reader.size, damage="its last page is not whole")
            elif _ogg_crc(page[:22] + bytes(4) + page[26:]) == head[22:26]:
                granule, serial, number = struct.unpack("<q4sI", head[6:22])
                yield _Page(position, position + n_head, stop, head[5], serial, number, granule)
                position = stop
                continue
            else:
                yield _Page(position, position, position, damage=f"the page at byte {position} is damaged")
        # Bytes that are no page: the next one may be behind them.
        position = reader.find(b"OggS\0", position + 1, reader.size)


def _ogg_stream(reader: Reader, link: _Link) -> Stream:
    """Returns the pages of a link; of FLAC what they hold, which is a FLAC file but for its first 9 bytes."""
    if link.kind == "flac":
        (start, stop), *rest = _joined([(link.bodies[0][0] + 9, link.bodies[0][1]), *link.bodies[1:]])
        (inner,) = _read_flac(Reader(Spliced(reader.file, ((start, stop), *rest))), 0).streams
        patches = [(start + 18, part) for part in inner.parts if isinstance(part, bytes)]
        return replace(inner, parts=(*_patched(start, stop, patches), *rest))
    head = reader.at(link.bodies[0][0], 40).ljust(40, b"\0")
    rate = {"opus": 48_000, "vorbis": _number(head[12:16]), "speex": _number(head[36:40])}[link.kind]
    # Of what the first page with sound holds only the end is known.
    least = (link.granules[-1] - link.granules[0]) / max(1, rate) if link.granules else 0.0
    parts: tuple[bytes | tuple[int, int], ...] = _joined(link.ranges)
    if not link.ended and link.kind == "opus":  # which libsndfile takes for malformed
        start, stop = link.ranges[-1]
        page = bytearray(reader.at(start, stop - start))
        page[5] |= OGG_LAST
        page[22:26] = bytes(4)
        page[22:26] = _ogg_crc(bytes(page))
        parts = (*_joined(link.ranges[:-1]), bytes(page))
    return Stream(parts, exact=False, least_seconds=least, form=_vorbis_form(reader, link, head))


def _vorbis_form(reader: Reader, link: _Link, head: bytes) -> tuple[int, int, int] | None:
    """Returns samples, rate and channels of a Vorbis stream that begins with its first sample."""
    first = next((start for start, stop in link.ranges[1:] if _number(reader.at(start + 6, 8)) > 0), 0)
    if link.kind != "vorbis" or not link.granules or not first:
        return None
    lacing = reader.at(first + 27, reader.at(first + 26, 1)[0])
    longest = sum(size < 255 for size in lacing) << (head[28] >> 4)  # packets on the page times the longest block
    return (link.granules[-1], _number(head[12:16]), head[11]) if link.granules[0] <= longest else None


def _number(content: bytes) -> int:
    return int.from_bytes(content, "little")


def _joined(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Joins ranges that touch."""
    joined = [ranges[0]]
    for start, stop in ranges[1:]:
        if start == joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(page: bytes) -> bytes:
    """Returns a page's checksum: zlib's polynomial, with the bits of each byte in the other order."""
    crc = zlib.crc32(page.translate(REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return crc.to_bytes(4, "big").translate(REVERSED)


def _codec(head: bytes) -> str:
    return {b"\x01vorbis": "vorbis", b"OpusHea": "opus", b"Speex  ": "speex", b"\x7fFLAC\1\0": "flac"}.get(head[:7], "")


# MPEG audio


@dataclass
class _Run:
    """Consecutive MPEG frames that one decoder takes."""

    kind: tuple[int, int, bool]
    """Version and layer, rate (of layers I and II also the bit rate), whether mono."""
    ranges: list[tuple[int, int]]
    n_frames: int = 0


def _read_mpeg(reader: Reader, start: int, stop: int) -> Structure:
    """Counts the frames, so that the decoder need not estimate how many there are."""
    runs: list[_Run] = []
    position, n_gaps, n_lacking = start, 0, 0
    while position + 4 <= stop:
        head = reader.at(position, 4)
        n_frame = _frame_bytes(head)
        kind = _frame_kind(head)
        if n_frame and not (runs and kind == runs[-1].kind and position == runs[-1].ranges[-1][1]):
            n_frame = n_frame if _in_step(reader, position, stop) else 0
            if n_frame and (not runs or kind != runs[-1].kind):
                runs.append(_Run(kind, [(position, position)]))
            elif n_frame:
                runs[-1].ranges.append((position, position))
        if n_frame:
            n_lacking = max(0, position + n_frame - stop)
            runs[-1].ranges[-1] = (runs[-1].ranges[-1][0], min(stop, position + n_frame))
            runs[-1].n_frames += 1
            position += n_frame
            continue
        behind = _after_tags(reader, position, stop)
        if behind == position:
            behind = _next_frame(reader, position + 1, stop)
            n_gaps += behind >= 0 or stop - position > FEW_SAMPLES
            if behind < 0:
                break
        position = behind
    if not runs:  # free format, which has frames of a length of its own
        return Structure((Stream(((start, stop) if start else (0, reader.size),), exact=False),), end=stop)
    streams = []
    for run in runs:
        promised, stream = _mpeg_stream(reader, run, bytes(n_lacking) if run is runs[-1] else b"")
        n_missing = promised - run.n_frames
        if n_missing > 1 and (n_lacking or n_gaps):
            return Structure(missing=f"its header promises {promised} frames, {run.n_frames} are there")
        if n_missing >= 0 and promised and n_lacking > FEW_BYTES:
            return Structure(missing=f"{n_lacking} bytes of its last frame are not there")
        streams += stream
    return Structure(tuple(streams), "" if streams else "it ends before its samples begin", stop)


def _mpeg_stream(reader: Reader, run: _Run, filling: bytes) -> tuple[int, list[Stream]]:
    """Returns the number of frames that the header promises, or 0, and the frames, if any, under a right header."""
    start = run.ranges[0][0]
    first = reader.at(start, _frame_bytes(reader.at(start, 4)))
    ranges: list[bytes | tuple[int, int]] = [*run.ranges, filling]
    if first[1] & 0x06 != 0x02:  # layers I and II have no such header, and one bit rate
        return 0, [Stream(_without_empty(*ranges), exact=False)]
    place = next((each for each in (_side(first), _side(first) + 2) if first[each : each + 4] in (b"Xing", b"Info")), 0)
    n_frames, promised = run.n_frames, 0
    if place or first[36:40] == b"VBRI":  # a frame without sound that says how many follow
        n_frames -= 1
        ranges[0] = (start + len(first), run.ranges[0][1])
        where = place + 8 if place else 50
        promised = int.from_bytes(first[where : where + 4], "big") + 1 if not place or first[place + 7] & 1 else 0
    if not n_frames:
        return promised, []
    if place and promised:
        flags = first[place + 7]
        lame = place + 8 + sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
        header = bytearray(first)
        header[place + 8 : place + 12] = n_frames.to_bytes(4, "big")
        if flags & 2:
            header[place + 12 : place + 16] = (len(first) + sum(map(_length, ranges))).to_bytes(4, "big")
        if promised != n_frames + 1 and len(first) >= lame + 24:
            header[lame + 22] &= 0xF0  # how many samples to drop at the end is of another end
            header[lame + 23] = 0
        return promised, [Stream(_without_empty(bytes(header), *ranges))]
    # A frame of ours before the first takes the delay that the decoder then drops.
    n_samples = 1152 if first[1] & 0x08 else 576
    header = _info_frame(first, n_frames + 1, n_samples - DECODER_DELAY)
    return promised, [Stream(_without_empty(bytes(header), _silent_frame(first), *ranges))]


def _side(head: bytes) -> int:
    """Returns where what an encoder says of the stream is in a frame: behind the place of its side information."""
    mono = head[3] >> 6 == 3
    return 4 + ((17 if mono else 32) if head[1] & 0x08 else (9 if mono else 17))


def _without_empty(*parts: bytes | tuple[int, int]) -> tuple[bytes | tuple[int, int], ...]:
    return tuple(part for part in parts if _length(part))


def _silent_frame(like: bytes) -> bytes:
    """Returns a frame without sound, long enough for a header in it."""
    for rate in range(9, 15):
        head = bytes([0xFF, like[1] | 1, rate << 4 | like[2] & 0x0C, like[3]])
        if _frame_bytes(head) >= 192:
            break
    return head.ljust(_frame_bytes(head), b"\0")


def _info_frame(like: bytes, n_frames: int, delay: int) -> bytearray:
    """Returns a frame that says how many frames follow, and how many samples of them to drop besides the decoder's."""
    frame = bytearray(_silent_frame(like))
    tag = b"Info" + struct.pack(">II", 1, n_frames) + b"LAME3.100".ljust(21, b"\0") + (delay << 12).to_bytes(3, "big")
    frame[_side(like) : _side(like) + len(tag)] = tag
    return frame


STEPS = (
    *((4,) * 14, (4, 2, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8, 8), (4, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8)),
    *((4, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 4, 4), *((1,) * 8 + (2,) * 6,) * 2),
)
"""From each bit rate to the next in units of 8 kbit/s: MPEG-1 layers I, II, III, then MPEG-2 and 2.5."""


@lru_cache(1 << 12)
def _frame_bytes(head: bytes) -> int:
    """Returns the length of the MPEG frame with these first 4 bytes, or 0 where they are no header of one."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    number, rate_number, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or number in (0, 15) or rate_number == 3:
        return 0
    rate = (44100, 48000, 32000)[rate_number] >> {3: 0, 2: 1, 0: 2}[version]
    table = STEPS[(0 if version == 3 else 3) + layer - 1]
    bits = 8000 * sum(table[:number])
    if layer == 1:
        return (12 * bits // rate + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // rate + padding


def _frame_kind(head: bytes) -> tuple[int, int, bool]:
    bit_rate = 0 if head[1] & 0x06 == 0x02 else head[2] & 0xF0
    return head[1] & 0x1E, head[2] & 0x0C | bit_rate, head[3] >> 6 == 3


def _in_step(reader: Reader, position: int, stop: int) -> bool:
    """Whether several MPEG frames of one kind follow each other from `position` on, or as many as there is room for."""
    kind = None
    for count in range(SYNC_FRAMES):
        head = reader.at(position, 4)
        n_frame = _frame_bytes(head) if position + 4 <= stop else 0
        if not n_frame or (kind is not None and (head[1] & 0x1E, head[2] & 0x0C) != kind):
            return count > 1 and (position + 4 > stop or _after_tags(reader, position, stop) > position)
        kind = head[1] & 0x1E, head[2] & 0x0C
        position += n_frame
    return True


def _is_free_format(reader: Reader, position: int) -> bool:
    """Whether two frames of layer III without a bit rate begin here."""
    head = reader.at(position, 4)
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[2] & 0xF0 or head[2] & 0x0C == 0x0C:
        return False
    return head[1] & 0x18 != 0x08 and reader.find(head[:2], position + 4, position + 4096) >= 0


def _next_frame(reader: Reader, position: int, stop: int) -> int:
    """Returns the next position from which MPEG frames follow each other, or -1."""
    while (position := reader.find(b"\xff", position, stop)) >= 0:
        if _in_step(reader, position, reader.size):
            return position
        position += 1
    return -1


# --- end of the copy
