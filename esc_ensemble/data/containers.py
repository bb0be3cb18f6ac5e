"""What an audio file is made of: where its samples are, whether some are missing, and how to pass it to libsndfile.

libsndfile trusts headers. It stops where an estimated length ends, reads only the first of several streams, and takes a
truncated file for a whole one. So the structure of a file is read first: chunks (WAV, AIFF, W64, CAF), pages (Ogg) and
frames (MP3, FLAC). The result is one or more streams that libsndfile decodes to their last sample, or the reason why
samples are missing. Wrong sizes, absent end marks and tags are corrected on the way: they are no reason for a refusal.

The Kaggle kernel carries a copy of the part between the two marks, and a test compares the texts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from esc_ensemble.data.flac_frames import read_flac
from esc_ensemble.data.mpeg_frames import in_step, is_free_format, next_frame, read_mpeg
from esc_ensemble.data.ogg_pages import read_ogg
from esc_ensemble.data.streams import BLOCK_BYTES, FEW_SAMPLES, Reader, Stream, Structure, after_tags, patched, unpack

# --- copied into kaggle_kernel.py

SEARCH_BYTES = 1 << 18
"""How far into a file the beginning of audio is looked for."""
UNKNOWN_SIZE = 0x7F00_0000
"""Writers that cannot go back to fill in a 32-bit size leave 0 or a number from here on."""
FORGIVEN_BYTES = 128
"""A size may be too large by this or by the length of the header: some writers count the header too."""
MPEG_FORMATS = (b"\x55\0", b"\x50\0")
"""Numbers of MP3 and of MPEG layers I and II in a WAV file."""
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
        start = after_tags(reader, found.end, reader.size)
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
        return read_flac(reader, start)
    if container == "Ogg":
        return read_ogg(reader, start)
    if container == "MP3":
        return read_mpeg(reader, start, reader.size)
    if container == "AU":
        return _read_au(reader, start)
    if container == "NIST":
        return _read_nist(reader, start)
    return _read_chunks(reader, start, FORMS[container])


def _other_kind(head: bytes) -> str:
    kinds = [kind for magic, kind in OTHER_KINDS.items() if head.startswith(magic)]
    return "MP4" if head[4:8] == b"ftyp" else kinds[0] if kinds else ""


def _locate(reader: Reader) -> tuple[str, int]:
    """Returns the container and where it begins, behind tags and bytes that are no audio."""
    start = after_tags(reader, 0, reader.size)
    found = _container_at(reader, start)
    if found or _other_kind(reader.at(start, 16)):
        return found, start
    stop = min(reader.size, start + SEARCH_BYTES)
    places = [reader.find(magic, start, stop) for magic in MAGICS]
    for place in sorted(place for place in places if place >= 0):
        found = _container_at(reader, place)
        if found:
            return found, place
    frame = next_frame(reader, start, stop)
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
    return "MP3" if in_step(reader, start, reader.size) or is_free_format(reader, start) else ""


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
        size = unpack(reader, size_format, at_size)
    header = 0 if form.counted else 8  # not in the size of the whole
    end = reader.size
    told = start + header + unpack(reader, outer_format, at_outer) if form.outer >= 0 else end
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
    if b"fmt " in chunks and reader.at(chunks[b"fmt "][0], 2) in MPEG_FORMATS:
        return read_mpeg(reader, body, stop)
    outer_end = told if stop <= told <= end + 1 and stop == body + size else stop
    patches = []
    if stop != body + size:
        patches.append((at_size, struct.pack(size_format, stop - body + form.counted)))
    if form.outer >= 0 and told != outer_end:
        patches.append((at_outer, struct.pack(outer_format, outer_end - start - header)))
    outer_end = min(outer_end, end)
    parts = patched(start, outer_end, sorted(patches)) if patches or start or outer_end < end else ((0, end),)
    return Structure((Stream(parts),), end=outer_end + (start - outer_end) % form.align)


def _walk_chunks(reader: Reader, position: int, start: int, form: _Form) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yields names of chunks with where their content begins and its size, until that of the samples."""
    n_name, n_size = len(form.samples), struct.calcsize(form.size)
    while position + n_name + n_size <= reader.size:
        name = reader.at(position, n_name)
        body = position + n_name + n_size
        size = unpack(reader, form.size, position + n_name) - form.counted
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
        size = unpack(reader, form.size, position + n_name) - form.counted
        if not all(0x20 <= byte < 0x7F for byte in name) or size < 0:
            return False
        position += n_name + n_size + size
        position += (start - position) % form.align
    return position <= stop + 1 or stop == reader.size


def _may_be_samples(reader: Reader, position: int) -> bool:
    """Whether what follows a file is neither another one nor tags, text, zeros or little."""
    position = after_tags(reader, position, reader.size)
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
    offset, size = struct.unpack(">4xII", reader.at(start, 12).ljust(12, b"\0"))
    body = start + offset
    left = reader.size - body
    if not _is_unknown(size, ">I") and size - left > FORGIVEN_BYTES:
        return Structure(missing=f"its header promises {size} bytes of samples, {left} are there")
    stop = body + size if 0 < size <= left else _before_tags(reader, body, reader.size)
    parts = patched(start, stop, [(start + 8, struct.pack(">I", min(stop - body, 0xFFFF_FFFF)))])
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


# --- end of the copy
