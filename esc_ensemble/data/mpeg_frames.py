"""MPEG audio: its frames, counted so that a decoder need not estimate how many there are.

The Kaggle kernel carries a copy of the part between the two marks, and a test compares the texts.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from esc_ensemble.data.streams import FEW_SAMPLES, Reader, Stream, Structure, after_tags, length

# --- copied into kaggle_kernel.py

FEW_BYTES = 16
"""Of the last MPEG frame that may be missing."""
SYNC_FRAMES = 4
"""Consecutive MPEG frames that are taken for audio where other bytes are before them."""
DECODER_DELAY = 529
"""Samples that MP3 decoders drop at the beginning of a stream with a header that says how many more to drop."""
STEPS = (
    *((4,) * 14, (4, 2, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8, 8), (4, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8)),
    *((4, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 4, 4), *((1,) * 8 + (2,) * 6,) * 2),
)
"""From each bit rate to the next in units of 8 kbit/s: MPEG-1 layers I, II, III, then MPEG-2 and 2.5."""


@dataclass
class _Run:
    """Consecutive MPEG frames that one decoder takes."""

    kind: tuple[int, int, bool]
    """Version and layer, rate (of layers I and II also the bit rate), whether mono."""
    ranges: list[tuple[int, int]]
    n_frames: int = 0


def read_mpeg(reader: Reader, start: int, stop: int) -> Structure:
    """Counts the frames, so that the decoder need not estimate how many there are."""
    runs: list[_Run] = []
    position, n_gaps, n_lacking = start, 0, 0
    while position + 4 <= stop:
        head = reader.at(position, 4)
        n_frame = _frame_bytes(head)
        kind = _frame_kind(head)
        if n_frame and not (runs and kind == runs[-1].kind and position == runs[-1].ranges[-1][1]):
            n_frame = n_frame if in_step(reader, position, stop) else 0
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
        behind = after_tags(reader, position, stop)
        if behind == position:
            behind = next_frame(reader, position + 1, stop)
            n_gaps += behind >= 0 or stop - position > FEW_SAMPLES
            if behind < 0:
                break
        position = behind
    if not runs:  # free format, which has frames of a length of its own
        return Structure((Stream(((start, stop) if start else (0, reader.size),), exact=False),), end=stop)
    streams = []
    for run in runs:
        # As in ffmpeg, what encoders put in front of the sound is dropped only where the file begins as they wrote it.
        begins = start == 0 or (reader.at(0, 3) == b"ID3" and start == after_tags(reader, 0, stop))
        promised, stream = _mpeg_stream(reader, run, bytes(n_lacking) if run is runs[-1] else b"", begins=begins)
        n_missing = promised - run.n_frames
        if n_missing > 1 and (n_lacking or n_gaps):
            return Structure(missing=f"its header promises {promised} frames, {run.n_frames} are there")
        if n_missing >= 0 and promised and n_lacking > FEW_BYTES:
            return Structure(missing=f"{n_lacking} bytes of its last frame are not there")
        streams += stream
    return Structure(tuple(streams), "" if streams else "it ends before its samples begin", stop)


def _mpeg_stream(reader: Reader, run: _Run, filling: bytes, *, begins: bool) -> tuple[int, list[Stream]]:
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
    if place and promised and begins:
        flags = first[place + 7]
        lame = place + 8 + sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
        header = bytearray(first)
        header[place + 8 : place + 12] = n_frames.to_bytes(4, "big")
        other = promised != n_frames + 1
        if flags & 2:
            n_told, n_here = int.from_bytes(first[place + 12 : place + 16], "big"), reader.size - start
            other = other or abs(n_told - n_here) > min(n_told, n_here) >> 4
            header[place + 12 : place + 16] = (len(first) + sum(map(length, ranges))).to_bytes(4, "big")
        if other and len(first) >= lame + 24:
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
    return tuple(part for part in parts if length(part))


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


def in_step(reader: Reader, position: int, stop: int) -> bool:
    """Whether several MPEG frames of one kind follow each other from `position` on, or as many as there is room for."""
    kind = None
    for count in range(SYNC_FRAMES):
        head = reader.at(position, 4)
        n_frame = _frame_bytes(head) if position + 4 <= stop else 0
        if not n_frame or (kind is not None and (head[1] & 0x1E, head[2] & 0x0C) != kind):
            return count > 1 and (position + 4 > stop or after_tags(reader, position, stop) > position)
        kind = head[1] & 0x1E, head[2] & 0x0C
        position += n_frame
    return True


def is_free_format(reader: Reader, position: int) -> bool:
    """Whether two frames of layer III without a bit rate begin here."""
    head = reader.at(position, 4)
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[2] & 0xF0 or head[2] & 0x0C == 0x0C:
        return False
    return head[1] & 0x18 != 0x08 and reader.find(head[:2], position + 4, position + 4096) >= 0


def next_frame(reader: Reader, position: int, stop: int) -> int:
    """Returns the next position from which MPEG frames follow each other, or -1."""
    while (position := reader.find(b"\xff", position, stop)) >= 0:
        if in_step(reader, position, reader.size):
            return position
        position += 1
    return -1


# --- end of the copy
