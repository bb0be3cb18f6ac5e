"""Ogg: its pages, and the streams that they make up.

The Kaggle kernel carries a copy of the part between the two marks, and a test compares the texts.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from esc_ensemble.data.flac_frames import read_flac
from esc_ensemble.data.streams import Reader, Spliced, Stream, Structure, patched

# --- copied into kaggle_kernel.py

OGG_FIRST, OGG_LAST = 2, 4
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


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


def read_ogg(reader: Reader, start: int) -> Structure:
    """Collects the pages of each stream and checks their numbers and checksums."""
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
        (inner,) = read_flac(Reader(Spliced(reader.file, ((start, stop), *rest))), 0).streams
        patches = [(start + 18, part) for part in inner.parts if isinstance(part, bytes)]
        return replace(inner, parts=(*patched(start, stop, patches), *rest))
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


def _ogg_crc(page: bytes) -> bytes:
    """Returns a page's checksum: zlib's polynomial, with the bits of each byte in the other order."""
    crc = zlib.crc32(page.translate(REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return crc.to_bytes(4, "big").translate(REVERSED)


def _codec(head: bytes) -> str:
    return {b"\x01vorbis": "vorbis", b"OpusHea": "opus", b"Speex  ": "speex", b"\x7fFLAC\1\0": "flac"}.get(head[:7], "")


# --- end of the copy
