"""Files with a wrong ending, of a kind that is refused by design, and what is no audio at all."""

from __future__ import annotations

import base64
import gzip
import struct
from collections.abc import Iterator

from kinds.edits import (
    encode,
    flac_blocks,
    frames,
    id3v2,
    join_flac,
    noise,
    pages,
    pcm,
    put,
    wav,
    with_total,
    write,
)
from kinds.kind import Kind, Make
from kinds.mp3 import mp3


def kinds() -> Iterator[Kind]:
    """Yields all of this container."""
    yield from _renamed()
    yield from _refused()


def _renamed() -> Iterator[Kind]:
    made: dict[str, Make] = {
        "flac": lambda: encode(".flac"),
        "vorbis": lambda: encode(".ogg", "-c:a", "libvorbis"),
        "opus": lambda: encode(".opus", "-c:a", "libopus", rate=48000),
        "mp3": mp3,
        "wav": wav,
        "aiff": lambda: encode(".aiff"),
    }
    for name, make in made.items():
        for suffix in ("wav", "mp3", "m4a", "WAV"):
            if name != suffix:
                yield Kind(f"{name} named .{suffix}", make)


def _refused() -> Iterator[Kind]:
    coded = {
        ".m4a": ("-c:a", "aac"),
        ".aac": ("-c:a", "aac", "-f", "adts"),
        ".mp4": ("-c:a", "aac"),
        ".wma": ("-c:a", "wmav2"),
        ".webm": ("-c:a", "libopus"),
        ".mka": ("-c:a", "flac"),
        ".ac3": ("-c:a", "ac3"),
        ".wv": ("-c:a", "wavpack"),
        ".tta": ("-c:a", "tta"),
    }
    for suffix, options in coded.items():
        yield Kind(f"{options[1]} in{suffix}", lambda s=suffix, o=options: encode(s, *o, rate=48000), supported=False)
    yield Kind("ALAC in.m4a", lambda: encode(".m4a", "-c:a", "alac"), supported=False)
    amr = ("-c:a", "libopencore_amrnb", "-b:a", "12.2k")
    yield Kind("AMR in.amr", lambda: encode(".amr", *amr, rate=8000, n_channels=1), supported=False)
    yield Kind("AAC named .wav", lambda: encode(".aac", "-c:a", "aac", "-f", "adts"), supported=False)
    yield Kind("AAC in m4a named .mp3", lambda: encode(".m4a", "-c:a", "aac"), supported=False)
    page = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>Not Found</body></html>"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0a" * 32 + b"\nsize 405764\n"
    none: dict[str, Make] = {
        "empty.wav": lambda: b"",
        "empty.mp3": lambda: b"",
        "text.wav": lambda: b"This is a text.\n" * 100,
        "web page.mp3": lambda: page,
        "JPEG.mp3": lambda: b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + noise(20_000) + b"\xff\xd9",
        "Git LFS pointer.wav": lambda: pointer,
        "Git LFS pointer.mp3": lambda: pointer,
        "ZIP archive.wav": lambda: b"PK\3\4" + noise(20_000),
        "WAV in gzip.wav": lambda: gzip.compress(wav(), mtime=0),
        "WAV in base64.wav": lambda: base64.b64encode(wav()),
        "AppleDouble.wav": lambda: b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(4000),
        "MIDI.wav": lambda: b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0",
        "AVI.wav": lambda: encode(".avi", "-c:a", "pcm_s16le"),
        "WebP.wav": lambda: b"RIFF\x24\0\0\0WEBPVP8 " + noise(28),
        "samples without a header.wav": pcm,
        "samples without a header.mp3": pcm,
        "zeros.wav": lambda: bytes(20_000),
        "zeros.mp3": lambda: bytes(20_000),
        "noise.mp3": lambda: noise(20_000),
        "one byte.wav": lambda: b"R",
        "wav without samples.wav": lambda: wav(data=b""),
        "wav without a data chunk.wav": lambda: wav()[:36],
        "flac without samples.flac": lambda: join_flac(flac_blocks(with_total(encode(".flac"), 0))[0], b""),
        "ogg headers alone.ogg": lambda: b"".join(pages(encode(".ogg", "-c:a", "libvorbis"))[:2]),
        "ID3v2 tag alone.mp3": id3v2,
        "Xing header alone.mp3": lambda: frames(mp3())[0],
        "aiff without samples.aiff": lambda: write("AIFF", "PCM_16", seconds=0.0),
        "wav with NaN.wav": lambda: put(write("WAV", "FLOAT"), 5000, "4B", 0, 0, 0xC0, 0x7F),
        "wav of 100 Hz.wav": lambda: wav(fmt=struct.pack("<HHIIHH", 1, 2, 100, 400, 4, 16)),
    }
    for name, make in none.items():
        yield Kind(name, make, whole=False)
