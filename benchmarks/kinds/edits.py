"""Building blocks for audio files that are odd on purpose: a test signal, two encoders, and edits of the bytes.

The signal has no silence and no fade: its last sample is as loud as the rest, and no two tenths of a second of it
are alike, so that a comparison of its end shows whether a decoder returned it.
"""

from __future__ import annotations

import functools
import io
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import soundfile

SECONDS = 2.3
BITEXACT = ("-fflags", "+bitexact", "-flags:a", "+bitexact")
"""Keeps versions and random serial numbers out of files, so that each is the same whenever it is made."""

Samples = npt.NDArray[np.float64]


@functools.cache
def signal(rate: int, seconds: float = SECONDS) -> Samples:
    """Returns the mono mix of the test signal, (T,): two sweeps and a wavering tone, all below 2.2 kHz."""
    t = np.arange(round(seconds * rate)) / rate
    level = 0.75 + 0.25 * np.sin(2 * np.pi * 4.3 * t)
    up, down = np.sin(2 * np.pi * (300 * t + 400 * t**2)), np.sin(2 * np.pi * (1500 * t - 250 * t**2))
    return level * (0.22 * up + 0.18 * down + 0.08 * np.sin(2 * np.pi * (650 * t + 20 * np.sin(2 * np.pi * 3 * t))))


@functools.cache
def channels(rate: int, n_channels: int, seconds: float = SECONDS) -> Samples:
    """Returns (T, channels): the channels differ, and their mean is `signal`."""
    mono = signal(rate, seconds)
    t = np.arange(len(mono)) / rate
    weights = np.linspace(-1, 1, n_channels) if n_channels > 1 else np.zeros(1)
    return mono[:, np.newaxis] + 0.1 * np.sin(2 * np.pi * 230 * t)[:, np.newaxis] * weights


def ffmpeg(arguments: Sequence[str | Path], content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Runs ffmpeg with `content` on its standard input."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-threads", "1", *map(str, arguments)]
    return subprocess.run(command, input=content, capture_output=True, check=False)


@functools.cache
def encode(
    suffix: str,
    *options: str,
    rate: int = 44100,
    n_channels: int = 2,
    seconds: float = SECONDS,
    pipe: bool = False,
) -> bytes:
    """Encodes the signal with ffmpeg.

    Args:
        suffix: of the file, which chooses its container.
        options: of the output, such as `-c:a`, `libopus`.
        rate: in Hz.
        n_channels: of them.
        seconds: length of the signal.
        pipe: write to a pipe, so that sizes in headers stay unknown.
    """
    raw = channels(rate, n_channels, seconds).astype("<f4").tobytes()
    source = ["-f", "f32le", "-ar", str(rate), "-ac", str(n_channels), "-i", "pipe:0"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"made{suffix}"
        output = ["-f", suffix.removeprefix("."), "pipe:1"] if pipe else [str(path)]
        done = ffmpeg([*source, *BITEXACT, *options, *output], raw)
        if done.returncode:
            raise RuntimeError(f"ffmpeg cannot make {suffix} with {options}: {done.stderr.decode()}")
        return done.stdout if pipe else path.read_bytes()


@functools.cache
def write(
    file_format: str,
    subtype: str,
    rate: int = 44100,
    n_channels: int = 2,
    *,
    seconds: float = SECONDS,
    endian: str = "FILE",
) -> bytes:
    """Encodes the signal with libsndfile."""
    buffer = io.BytesIO()
    samples = channels(rate, n_channels, seconds)
    soundfile.write(buffer, samples, rate, format=file_format, subtype=subtype, endian=endian)
    content = buffer.getvalue()
    if file_format == "OGG":
        return renamed_stream(content, 1)  # it is random
    return put_after(content, b"PEAK", 8, "<I", 0) if b"PEAK" in content[:100] else content  # a time of day


@functools.cache
def noise(n_bytes: int) -> bytes:
    """Returns bytes that look like no audio: none is 0xFF, with which MP3 frames begin."""
    return np.random.default_rng(n_bytes).integers(0, 255, n_bytes, dtype=np.uint8).tobytes()


# --- Chunks of RIFF and AIFF


@functools.cache
def pcm(rate: int = 44100, n_channels: int = 2, seconds: float = SECONDS, dtype: str = "<i2") -> bytes:
    """Returns the signal as 16-bit samples."""
    return np.round(channels(rate, n_channels, seconds) * 32767).astype(dtype).tobytes()


def chunk(name: bytes, body: bytes, size: int | None = None, *, pad: bool = True, order: str = "<") -> bytes:
    """Returns a chunk; its size is that of the body where none is given."""
    said = len(body) if size is None else size
    return struct.pack(f"{order}4sI", name, said) + body + (b"\0" if pad and len(body) % 2 else b"")


def wav(
    *,
    before: bytes = b"",
    data: bytes | None = None,
    data_size: int | None = None,
    after: bytes = b"",
    riff_size: int | None = None,
    fmt: bytes | None = None,
    pad: bool = True,
    magic: bytes = b"RIFF",
) -> bytes:
    """Returns a WAV of 16-bit stereo at 44.1 kHz where nothing else is given."""
    order = ">" if magic == b"RIFX" else "<"
    fmt = struct.pack(f"{order}HHIIHH", 1, 2, 44100, 176400, 4, 16) if fmt is None else fmt
    samples = pcm(dtype=f"{order}i2") if data is None else data
    body = b"WAVE" + chunk(b"fmt ", fmt, order=order) + before
    body += chunk(b"data", samples, data_size, pad=pad, order=order) + after
    return struct.pack(f"{order}4sI", magic, len(body) if riff_size is None else riff_size) + body


def put(content: bytes, position: int, layout: str, *values: int) -> bytes:
    """Overwrites bytes at a position."""
    packed = struct.pack(layout, *values)
    return content[:position] + packed + content[position + len(packed) :]


def put_after(content: bytes, mark: bytes, offset: int, layout: str, *values: int) -> bytes:
    """Overwrites bytes behind the first place where `mark` is."""
    return put(content, content.index(mark) + len(mark) + offset, layout, *values)


def wide(valid_bits: int, n_bytes: int) -> bytes:
    """Returns a WAV whose samples have fewer bits than their bytes could hold."""
    guid = struct.pack("<HHI", 1, 0, 0x100000) + bytes((0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71))
    frame = 2 * n_bytes
    head = struct.pack("<HHIIHHHHI", 0xFFFE, 2, 44100, 44100 * frame, frame, 8 * n_bytes, 22, valid_bits, 3)
    scaled = np.round(channels(44100, 2) * (2 ** (valid_bits - 1) - 1)).astype(np.int64) << (8 * n_bytes - valid_bits)
    data = scaled.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :n_bytes].tobytes()
    return wav(fmt=head + guid[:2] + guid[2:], data=data)


def as_text(content: bytes) -> bytes:
    """Returns what a transfer as text makes of a file: line feeds become pairs."""
    return content.replace(b"\n", b"\r\n")


def with_hole(content: bytes, n_bytes: int) -> bytes:
    """Leaves bytes in the middle out."""
    return content[: len(content) // 2] + content[len(content) // 2 + n_bytes :]


def preallocated(content: bytes) -> bytes:
    """Returns a file whose space was reserved, but whose second half never came."""
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


# --- Tags


def id3v2(n_bytes: int = 500, *, footer: bool = False) -> bytes:
    """Returns an ID3v2.4 tag with a picture of `n_bytes`."""

    def size(n: int) -> bytes:
        return bytes(n >> shift & 0x7F for shift in (21, 14, 7, 0))

    title = b"\x03a title"
    picture = b"\0image/jpeg\0\x03\0\xff\xd8\xff\xe0" + noise(n_bytes)
    frames = b"TIT2" + size(len(title)) + b"\0\0" + title + b"APIC" + size(len(picture)) + b"\0\0" + picture
    rest = b"\4\0" + (b"\x10" if footer else b"\0") + size(len(frames))
    return b"ID3" + rest + frames + (b"3DI" + rest if footer else b"")


def id3v2_of_wrong_size(more: int) -> bytes:
    """Returns an ID3v2 tag whose header counts more bytes, or fewer."""
    (size,) = struct.unpack_from(">I", id3v2(), 6)
    n = sum((size >> 8 * k & 0x7F) << 7 * k for k in range(4)) + more
    return put(id3v2(), 6, "4B", *(n >> shift & 0x7F for shift in (21, 14, 7, 0)))


def id3v1() -> bytes:
    """Returns an ID3v1 tag, 128 bytes."""
    return b"TAG" + b"a title".ljust(124, b"\0") + b"\x0c"


def ape(n_bytes: int = 100) -> bytes:
    """Returns an APEv2 tag with header and footer and one item of `n_bytes`."""
    item = struct.pack("<II", n_bytes, 2) + b"Cover Art (Front)\0" + noise(n_bytes)
    ends = [
        struct.pack("<8sIIIIQ", b"APETAGEX", 2000, len(item) + 32, 1, flags, 0) for flags in (0xA0 << 24, 0x80 << 24)
    ]
    return ends[0] + item + ends[1]


def lyrics3(n_bytes: int = 200) -> bytes:
    """Returns a Lyrics3v2 tag."""
    body = b"LYRICSBEGIN" + b"LYR%05d" % n_bytes + b"la" * (n_bytes // 2)
    return body + b"%06d" % len(body) + b"LYRICS200"


# --- Ogg


def crc_table(polynomial: int, bits: int) -> list[int]:
    """Returns the table of a checksum that shifts left."""
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> (bits - 1) & 1 else 0)
            value &= (1 << bits) - 1
        table.append(value)
    return table


def checksum(content: bytes, polynomial: int, bits: int, start: int = 0) -> int:
    """Returns the checksum of some bytes."""
    table, value, mask = _table(polynomial, bits), start, (1 << bits) - 1
    for byte in content:
        value = (value << 8 & mask) ^ table[value >> (bits - 8) ^ byte]
    return value


_table = functools.cache(crc_table)


def pages(ogg: bytes) -> list[bytes]:
    """Splits an Ogg file into its pages."""
    found, position = [], 0
    while position < len(ogg):
        assert ogg[position : position + 4] == b"OggS"
        n_segments = ogg[position + 26]
        end = position + 27 + n_segments + sum(ogg[position + 27 : position + 27 + n_segments])
        found.append(ogg[position:end])
        position = end
    return found


def seal(page: bytes) -> bytes:
    """Writes a page's checksum again."""
    return put(page, 22, "<I", checksum(put(page, 22, "<I", 0), 0x04C11DB7, 32))


def each_page(ogg: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Changes every page."""
    return b"".join(seal(change(page)) for page in pages(ogg))


def no_end_mark(ogg: bytes) -> bytes:
    """Takes the mark of the stream's end away, as Android's writer never sets it."""
    return each_page(ogg, lambda page: put(page, 5, "B", page[5] & ~4))


def later(ogg: bytes, n_frames: int) -> bytes:
    """Moves all positions but those of headers, as in a recording that begins in the middle of a broadcast."""

    def change(page: bytes) -> bytes:
        (position,) = struct.unpack_from("<q", page, 6)
        return put(page, 6, "<q", position + n_frames) if position > 0 else page

    return each_page(ogg, change)


def without_pages(ogg: bytes, numbers: range, *, renumber: bool = False) -> bytes:
    """Leaves pages out; `renumber` hides it."""
    left = [page for number, page in enumerate(pages(ogg)) if number not in numbers]
    if renumber:
        left = [seal(put(page, 18, "<I", number)) for number, page in enumerate(left)]
    return b"".join(left)


def empty_last_page(ogg: bytes, n_packet: int = 0) -> bytes:
    """Moves the mark of the stream's end to a page without content, as some writers do.

    Args:
        ogg: a stream.
        n_packet: samples a packet where the last page with content shall count its packets whole, as Opus wants.
    """
    *others, last = pages(no_end_mark(ogg))
    head = put(put(last[:27], 5, "B", 4), 26, "B", 0)
    if n_packet:
        n_packets = sum(size < 255 for size in last[27 : 27 + last[26]])
        last = seal(put(last, 6, "<q", struct.unpack_from("<q", others[-1], 6)[0] + n_packet * n_packets))
    return b"".join([*others, last, seal(put(head, 18, "<I", len(others) + 1))])


def renamed_stream(ogg: bytes, serial: int) -> bytes:
    """Gives the stream another serial number, which links of a chain must have."""
    return each_page(ogg, lambda page: put(page, 14, "<I", serial))


# --- MP3

_KBPS = {  # by (MPEG-1?, layer)
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def frames(mp3: bytes) -> list[bytes]:
    """Splits an MP3 without tags into its frames."""
    return list(_frames(mp3))


def _frames(mp3: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(mp3):
        head = mp3[position : position + 4]
        assert head[0] == 0xFF and head[1] >= 0xE0, f"no frame at {position} of {len(mp3)}"
        version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
        rate = (44100, 48000, 32000)[head[2] >> 2 & 3] // {3: 1, 2: 2, 0: 4}[version]
        kbps = _KBPS[version == 3, layer][head[2] >> 4]
        n_bytes = (144 if version == 3 or layer == 2 else 72) * kbps * 1000 // rate + (head[2] >> 1 & 1)
        yield mp3[position : position + n_bytes]
        position += n_bytes


def change_xing(mp3: bytes, factor: float) -> bytes:
    """Multiplies the numbers of frames and bytes in the Xing header."""
    first = frames(mp3)[0]
    mark = next(mark for mark in (b"Xing", b"Info") if mark in first)
    n_frames, n_bytes = struct.unpack_from(">II", mp3, mp3.index(mark) + 8)
    return put_after(mp3, mark, 4, ">II", round(n_frames * factor), round(n_bytes * factor))


def with_vbri(mp3: bytes) -> bytes:
    """Puts the header of Fraunhofer's encoder in front of an MP3 that has none."""
    all_frames = frames(mp3)
    first = bytearray(len(all_frames[0]))
    first[:4] = all_frames[0][:4]
    vbri = struct.pack(">4sHHHIIHHHH", b"VBRI", 1, 1105, 75, len(mp3) + len(first), len(all_frames) + 1, 1, 1, 2, 1)
    first[36 : 36 + len(vbri)] = vbri
    return bytes(first) + mp3


def protected(mp3: bytes) -> bytes:
    """Adds checksums to the frames of a stereo MPEG-1 file without a bit reservoir whose frames end in stuffing."""
    made = []
    for frame in frames(mp3):
        assert not any(frame[-2:]), "the frame has no room for a checksum"
        head, side, rest = bytes((frame[0], frame[1] & ~1, *frame[2:4])), frame[4:36], frame[36:-2]
        made.append(head + struct.pack(">H", checksum(head[2:] + side, 0x8005, 16, 0xFFFF)) + side + rest)
    return b"".join(made)


# --- FLAC


def flac_blocks(flac: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Splits a FLAC file into its metadata blocks, by kind, and its frames."""
    position, last, blocks = 4, False, []
    while not last:
        last, kind = flac[position] >= 128, flac[position] & 127
        size = int.from_bytes(flac[position + 1 : position + 4], "big")
        blocks.append((kind, flac[position + 4 : position + 4 + size]))
        position += 4 + size
    return blocks, flac[position:]


def join_flac(blocks: Sequence[tuple[int, bytes]], rest: bytes) -> bytes:
    """Puts a FLAC file together."""
    heads = [
        bytes([kind | (128 if number == len(blocks) - 1 else 0)]) + len(body).to_bytes(3, "big") + body
        for number, (kind, body) in enumerate(blocks)
    ]
    return b"fLaC" + b"".join(heads) + rest


def with_block(flac: bytes, kind: int, body: bytes) -> bytes:
    """Adds a metadata block behind the first."""
    blocks, rest = flac_blocks(flac)
    return join_flac([blocks[0], (kind, body), *blocks[1:]], rest)


def flac_picture(n_bytes: int) -> bytes:
    """Returns the body of a block of kind 6 with a picture of `n_bytes`."""
    mime, body = b"image/jpeg", noise(n_bytes)
    sizes = struct.pack(">IIII", 600, 600, 24, 0)
    return struct.pack(">II", 3, len(mime)) + mime + bytes(4) + sizes + struct.pack(">I", n_bytes) + body


def with_total(flac: bytes, n_frames: int) -> bytes:
    """Writes another number of samples into the header; 0 means unknown."""
    (packed,) = struct.unpack_from(">Q", flac, 18)
    return put(flac, 18, ">Q", packed >> 36 << 36 | n_frames)


def flac_frames(flac: bytes) -> list[int]:
    """Returns where the frames begin."""
    _, rest = flac_blocks(flac)
    start, found = len(flac) - len(rest), []
    for position in range(start, len(flac) - 16):
        if flac[position : position + 2] == b"\xff\xf8" and any(
            checksum(flac[position : position + n], 0x07, 8) == flac[position + n] for n in range(5, 9)
        ):
            found.append(position)
    return found
