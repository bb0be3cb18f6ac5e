"""A library of audio files as people meet them: containers, encodings, streamed and damaged headers, cuts and tags.

Each file is made when its content is asked for, from a signal that is loud until its last sample.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from audio_bytes import (
    SECONDS,
    ape,
    change_xing,
    chunk,
    encode,
    flac_blocks,
    flac_frames,
    flac_picture,
    frames,
    id3v1,
    id3v2,
    join_flac,
    later,
    lyrics3,
    no_end_mark,
    noise,
    pages,
    pcm,
    protected,
    put,
    put_after,
    renamed_stream,
    seal,
    wav,
    with_block,
    with_total,
    with_vbri,
    without_pages,
    write,
)

Make = Callable[..., bytes]
N_DATA = 405720
"""Bytes of samples in what `wav` makes."""
MP3_DELAY = 1105
"""Samples that decoders drop at the start where a LAME header is present."""


@dataclass(frozen=True)
class Kind:
    """One kind of file."""

    name: str
    make: Make
    whole: bool | None = True
    """False where samples are missing that a header promises; None where both reading is right: such a file is decoded
    in full or refused."""
    true_seconds: float | None = SECONDS
    """Length of what is in the file, None where only ffmpeg knows."""
    ends_at: float | None = SECONDS
    """Position in the signal, in seconds, at which the file ends; None where its content is not compared."""
    by_ffmpeg: bool = True
    """Whether ffmpeg returns all of it, so that its length is the reference."""
    supported: bool = True
    """False for formats that are refused by design."""
    served: bool = True
    """Whether its container is among those that the service takes."""
    note: str = ""

    @property
    def suffix(self) -> str:
        """Ending of the file's name, with the dot."""
        return f".{self.name.rpartition('.')[2]}"

    @property
    def content(self) -> bytes:
        """The file."""
        return self.make()


def kinds() -> list[Kind]:
    """Returns all kinds, sorted by container."""
    made = [
        *_wav(),
        *_wav_sizes(),
        *_riff_relatives(),
        *_aiff(),
        *_other_pcm(),
        *_flac(),
        *_ogg(),
        *_mp3(),
        *_mp3_damage(),
    ]
    made += [*_renamed(), *_refused()]
    names = [kind.name for kind in made]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return made


def _cut(name: str, make: Make, note: str = "") -> Kind:
    return Kind(name, make, whole=False, note=note)


def _tags(name: str, suffix: str, make: Make, *, id3: bool = False) -> Iterator[Kind]:
    """Tags, zeros and noise behind and in front; `id3` is whether the container is known to have ID3v2 in front."""
    behind = {
        "id3v1": id3v1(),
        "ape": ape(),
        "ape of 20 kB": ape(20_000),
        "id3v2": id3v2(),
        "4 kB of zeros": bytes(4096),
    }
    for what, tag in behind.items():
        yield Kind(f"{name} with {what} behind{suffix}", lambda tag=tag: make() + tag)
    for what, tag in {"id3v2": id3v2(), "id3v2 of 200 kB": id3v2(200_000)}.items():
        front: Make = lambda tag=tag: tag + make()  # noqa: E731
        yield Kind(f"{name} with {what} in front{suffix}", front, True if id3 else None, by_ffmpeg=id3)
    noisy: Make = lambda: noise(100) + make()  # noqa: E731
    yield Kind(f"{name} with 100 bytes of noise in front{suffix}", noisy, whole=None, by_ffmpeg=id3)


def _wav() -> Iterator[Kind]:
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW", "IMA_ADPCM", "MS_ADPCM"):
        yield Kind(f"wav {subtype}.wav", lambda subtype=subtype: write("WAV", subtype))
    yield Kind("wav GSM610.wav", lambda: write("WAV", "GSM610", 8000, 1))
    for codec in ("adpcm_ima_wav", "adpcm_ms", "pcm_s24le", "pcm_f32le", "pcm_mulaw"):
        yield Kind(f"wav {codec} by ffmpeg.wav", lambda codec=codec: encode(".wav", "-c:a", codec))
    for codec in ("libmp3lame", "mp2", "g722", "aac", "ac3", "wmav2"):
        yield Kind(
            f"wav with {codec}.wav",
            lambda codec=codec: encode(".wav", "-c:a", codec, rate=16000 if codec == "g722" else 44100),
            whole=None if codec == "mp2" else True,
            supported=codec in ("libmp3lame", "mp2"),
        )
    for subtype in ("PCM_16", "PCM_24", "FLOAT"):
        yield Kind(f"wavex {subtype}.wav", lambda subtype=subtype: write("WAVEX", subtype))
    for rate in (8000, 11025, 16000, 22050, 32000, 48000, 96000, 192000):
        yield Kind(f"wav {rate} Hz.wav", lambda rate=rate: write("WAV", "PCM_16", rate, 1))
    for n_channels in (1, 4, 6, 8):
        yield Kind(f"wav {n_channels} channels.wav", lambda n=n_channels: encode(".wav", n_channels=n))
    info = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"a title\0") + chunk(b"ISFT", b"odd text\0"))
    bext = chunk(b"bext", b"a recorder".ljust(602, b"\0"))
    cue = chunk(b"cue ", struct.pack("<IIIIIII", 1, 1, 0, 0x61746164, 0, 0, 22050))
    smpl = chunk(b"smpl", struct.pack("<9I", 0, 0, 22675, 60, 0, 0, 0, 0, 0))
    chunks = {
        "LIST": info,
        "bext": bext,
        "JUNK": chunk(b"JUNK", bytes(28)),
        "PAD to 4 kB": chunk(b"PAD ", bytes(4044)),
        "LIST of 200 kB": chunk(b"LIST", b"INFO" + chunk(b"ICMT", b"x" * 200_000)),
        "odd chunk": chunk(b"note", b"odd"),
        "odd chunk without padding": chunk(b"note", b"odd", pad=False),
        "unknown chunk": chunk(b"AFAn", noise(1000)),
        "id3 chunk": chunk(b"id3 ", id3v2(1001)),
        "iXML": chunk(b"iXML", b"<BWFXML></BWFXML>"),
        "fact and PEAK": chunk(b"fact", struct.pack("<I", 101430)) + chunk(b"PEAK", bytes(24)),
        "cue and smpl": cue + smpl,
    }
    for what, extra in chunks.items():
        broken = "without" in what
        if not broken:
            yield Kind(f"wav {what} behind data.wav", lambda extra=extra: wav(after=extra))
        yield Kind(
            f"wav {what} before data.wav",
            lambda extra=extra: wav(before=extra),
            not broken or None,
            by_ffmpeg=not broken,
        )
    yield Kind("wav LIST on both sides.wav", lambda: wav(before=info, after=info))
    mono8 = struct.pack("<HHIIHH", 1, 1, 44100, 44100, 1, 8)
    odd = bytes(pcm(n_channels=1)[1::2][:-1]).translate(bytes((n + 128) % 256 for n in range(256)))
    yield Kind("wav odd data, padded.wav", lambda: wav(fmt=mono8, data=odd, after=info))
    yield Kind("wav odd data, not padded.wav", lambda: wav(fmt=mono8, data=odd, pad=False))
    yield Kind("wav fmt of 18 bytes.wav", lambda: wav(fmt=struct.pack("<HHIIHHH", 1, 2, 44100, 176400, 4, 16, 0)))
    yield Kind("wav wrong byte rate.wav", lambda: wav(fmt=struct.pack("<HHIIHH", 1, 2, 44100, 44100, 4, 16)))
    for name, n in {"1 sample": 1, "100 samples": 100, "4410 samples": 4410}.items():
        make: Make = lambda n=n: wav(data=pcm()[: 4 * n])  # noqa: E731
        yield Kind(f"wav of {name}.wav", make, True if n > 1 else None, n / 44100, n / 44100)
    yield Kind("wav last byte of a sample missing, sizes right.wav", lambda: wav(data=pcm()[:-1]))
    yield from _tags("wav", ".wav", wav)
    yield Kind("wav two in one.wav", lambda: wav() + wav(), None, 2 * SECONDS, by_ffmpeg=False)


def _wav_sizes() -> Iterator[Kind]:
    for size in (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFDB, 0x7FFFF000, 0x7FFF0000, 0x80000000, 0xFFFFFFDB):
        for what, riff in (("right", None), ("so too", (size + 36) & 0xFFFFFFFF if size else 36)):
            name = f"wav data size {size:#x}, RIFF size {what}.wav"
            yield Kind(name, lambda size=size, riff=riff: wav(data_size=size, riff_size=riff))
    yield Kind(
        "wav data size 0xffffffff, RIFF size 0xffffffff.wav", lambda: wav(data_size=2**32 - 1, riff_size=2**32 - 1)
    )
    yield Kind("wav both sizes 0.wav", lambda: wav(data_size=0, riff_size=0))
    yield Kind("wav to a pipe by ffmpeg.wav", lambda: encode(".wav", pipe=True))
    yield Kind("wav 24 bit to a pipe by ffmpeg.wav", lambda: encode(".wav", "-c:a", "pcm_s24le", pipe=True))
    yield Kind(
        "wav LIST before data of size 0.wav", lambda: wav(before=chunk(b"LIST", b"INFO"), data_size=0, riff_size=0)
    )
    for riff in (0, 36, 0x7FFFFFFF, 0xFFFFFFFF, N_DATA, N_DATA + 1000):
        yield Kind(f"wav RIFF size {riff:#x}.wav", lambda riff=riff: wav(riff_size=riff))
    for extra in (1, 2, 8, 36, 44):
        yield Kind(f"wav data size {extra} too large.wav", lambda extra=extra: wav(data_size=N_DATA + extra))
        name = f"wav data and RIFF size {extra} too large.wav"
        yield Kind(name, lambda e=extra: wav(data_size=N_DATA + e, riff_size=N_DATA + 36 + e))
    yield Kind("wav data size 1 too small.wav", lambda: wav(data_size=N_DATA - 1), None)
    crash = "a recorder that updates its header now and then, and crashed"
    for riff in (None, N_DATA // 2 + 36):
        name = f"wav data size half, RIFF size {'so too' if riff else 'right'}.wav"
        make: Make = lambda riff=riff: wav(data_size=N_DATA // 2, riff_size=riff)  # noqa: E731
        yield Kind(name, make, None, by_ffmpeg=False, note=crash)
    for what, n in {"in half": N_DATA // 2, "by 0.1 s": N_DATA - 17640, "inside its first second": 40001}.items():
        yield _cut(f"wav cut {what}.wav", lambda n=n: wav()[: 44 + n])
        yield _cut(f"wav float cut {what}.wav", lambda n=n: write("WAV", "FLOAT")[: 80 + n])
    for what, n in {"one byte": 1, "one sample": 4, "36 bytes": 36}.items():
        yield Kind(f"wav cut by {what}.wav", lambda n=n: wav()[:-n], None, note="less than 20 ms: both are right")
    for what, n in {"inside its header": 30, "behind its header": 44, "behind RIFF": 12}.items():
        yield _cut(f"wav cut {what}.wav", lambda n=n: wav()[:n])
    for codec in ("IMA_ADPCM", "MS_ADPCM", "ULAW"):
        yield _cut(f"wav {codec} cut in half.wav", lambda codec=codec: _half(write("WAV", codec)))
    yield _cut("wav with libmp3lame cut in half.wav", lambda: _half(encode(".wav", "-c:a", "libmp3lame")))


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _riff_relatives() -> Iterator[Kind]:
    rf64: Make = lambda: encode(".wav", "-rf64", "always")  # noqa: E731
    yield Kind("rf64 by ffmpeg.wav", rf64)
    yield Kind("rf64.rf64", lambda: write("RF64", "PCM_16"))
    yield Kind("rf64 float.rf64", lambda: write("RF64", "FLOAT"))
    yield Kind("rf64 to a pipe.wav", lambda: encode(".wav", "-rf64", "always", pipe=True), None, by_ffmpeg=False)
    yield Kind("rf64 sizes 0.wav", lambda: put_after(rf64(), b"ds64", 4, "<QQQ", 0, 0, 0), None, by_ffmpeg=False)
    yield Kind("rf64 that may become one.wav", lambda: encode(".wav", "-rf64", "auto"))
    yield Kind("bw64.wav", lambda: b"BW64" + rf64()[4:], None)
    yield _cut("rf64 cut in half.wav", lambda: _half(rf64()))
    yield _cut("rf64 by libsndfile cut in half.rf64", lambda: _half(write("RF64", "PCM_16")))
    yield Kind("rifx by libsndfile.wav", lambda: write("WAV", "PCM_16", endian="BIG"))
    yield Kind("rifx by hand.wav", lambda: wav(magic=b"RIFX"))
    yield Kind("rifx float.wav", lambda: write("WAV", "FLOAT", endian="BIG"))
    yield _cut("rifx cut in half.wav", lambda: _half(wav(magic=b"RIFX")))
    yield Kind("rifx data size unknown.wav", lambda: wav(magic=b"RIFX", data_size=2**32 - 1, riff_size=2**32 - 1))
    for name, make in {"w64 by ffmpeg": lambda: encode(".w64"), "w64": lambda: write("W64", "PCM_16")}.items():
        yield Kind(f"{name}.w64", make, served=False)
        yield Kind(f"{name} cut in half.w64", lambda make=make: _half(make()), False, served=False)
    yield Kind("w64 to a pipe.w64", lambda: encode(".w64", pipe=True), None, by_ffmpeg=False, served=False)


def _aiff() -> Iterator[Kind]:
    for subtype in ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"):
        yield Kind(f"aiff {subtype}.aiff", lambda subtype=subtype: write("AIFF", subtype))
    yield Kind("aiff IMA ADPCM.aifc", lambda: write("AIFF", "IMA_ADPCM", n_channels=1), None)
    yield Kind("aiff sowt.aifc", lambda: write("AIFF", "PCM_16", endian="LITTLE"))
    yield Kind("aiff sowt by ffmpeg.aiff", lambda: encode(".aiff", "-c:a", "pcm_s16le"))
    aiff: Make = lambda: encode(".aiff")  # noqa: E731
    yield Kind("aiff by ffmpeg.aif", aiff)
    yield Kind("aiff to a pipe.aiff", lambda: encode(".aiff", pipe=True), by_ffmpeg=False)
    yield Kind(
        "aiff with an ID3 chunk.aiff", lambda: encode(".aiff", "-write_id3v2", "1", "-metadata", "title=a title")
    )
    yield Kind("aiff FORM size 0.aiff", lambda: put(aiff(), 4, ">I", 0), by_ffmpeg=False)
    yield Kind("aiff FORM size 0xffffffff.aiff", lambda: put(aiff(), 4, ">I", 2**32 - 1))
    for size in (0, 0xFFFFFFFF, 0x7FFFFFFF, N_DATA + 8 + 1, N_DATA + 8 + 54):
        name = f"aiff SSND size {size:#x}.aiff"
        yield Kind(
            name, lambda size=size: put_after(aiff(), b"SSND", 0, ">I", size), bool(size) or None, by_ffmpeg=size > 0
        )
    yield Kind("aiff COMM without a number of samples.aiff", lambda: put_after(aiff(), b"COMM", 6, ">I", 0), None)
    yield Kind("aiff COMM with too few samples.aiff", lambda: put_after(aiff(), b"COMM", 6, ">I", 50000), None)
    yield Kind("aiff COMM with too many samples.aiff", lambda: put_after(aiff(), b"COMM", 6, ">I", 202860), None)
    for pad in (True, False):
        extra = chunk(b"NAME", b"odd", pad=pad, order=">")
        name = f"aiff with an odd chunk, {'padded' if pad else 'not padded'}.aiff"
        yield Kind(name, lambda extra=extra: aiff()[:12] + extra + aiff()[12:], pad or None, by_ffmpeg=pad)
    extra_behind = chunk(b"ANNO", b"an annotation!", order=">")
    yield Kind("aiff with a chunk behind.aiff", lambda: put(aiff() + extra_behind, 4, ">I", len(aiff()) + 14))
    yield from _tags("aiff", ".aiff", aiff)
    yield _cut("aiff cut in half.aiff", lambda: _half(aiff()))
    yield _cut("aiff cut by 0.1 s.aiff", lambda: aiff()[:-17640])
    yield _cut("aiff float cut in half.aiff", lambda: _half(write("AIFF", "FLOAT")))
    yield _cut("aiff cut inside its header.aiff", lambda: aiff()[:40])
    yield Kind("aiff cut by one byte.aiff", lambda: aiff()[:-1], None)


def _other_pcm() -> Iterator[Kind]:
    au: Make = lambda: write("AU", "PCM_16")  # noqa: E731
    made: dict[str, Make] = {
        f"au {s}.au": lambda s=s: write("AU", s) for s in ("PCM_16", "PCM_24", "FLOAT", "ULAW", "ALAW")
    }
    made |= {
        "au.snd": au,
        "au by ffmpeg.au": lambda: encode(".au"),
        "au to a pipe.au": lambda: encode(".au", pipe=True),
        "au size 0xffffffff.au": lambda: put(au(), 8, ">I", 2**32 - 1),
        "au long annotation.au": lambda: put(au()[:24], 4, ">I", 1024) + bytes(1000) + au()[24:],
        "caf pcm_s16be.caf": lambda: encode(".caf", "-c:a", "pcm_s16be"),
        "caf pcm_s16le.caf": lambda: encode(".caf", "-c:a", "pcm_s16le"),
        "caf float.caf": lambda: encode(".caf", "-c:a", "pcm_f32le"),
        "caf mu-law.caf": lambda: encode(".caf", "-c:a", "pcm_mulaw"),
        "caf ALAC.caf": lambda: write("CAF", "ALAC_16"),
        "caf by libsndfile.caf": lambda: write("CAF", "PCM_24"),
        "caf data size -1.caf": lambda: put_after(encode(".caf", "-c:a", "pcm_s16be"), b"data", 0, ">q", -1),
        "voc.voc": lambda: encode(".voc", "-c:a", "pcm_s16le"),
        "ircam.sf": lambda: write("IRCAM", "PCM_16"),
        "nist.wav": lambda: write("NIST", "PCM_16"),
        "nist mu-law.wav": lambda: write("NIST", "ULAW", 8000, 1),
    }
    for name, make in made.items():
        yield Kind(name, make, by_ffmpeg="ALAC" not in name, served=False)  # ffmpeg drops the last packet
    alac: Make = lambda: encode(".caf", "-c:a", "alac")  # noqa: E731
    yield Kind("caf ALAC by ffmpeg.caf", alac, None, by_ffmpeg=False, served=False)
    yield Kind("au size 0.au", lambda: put(au(), 8, ">I", 0), None, by_ffmpeg=False, served=False)
    yield Kind(
        "au little-endian.au", lambda: write("AU", "PCM_16", endian="LITTLE"), None, by_ffmpeg=False, served=False
    )
    for name in ("au PCM_16.au", "caf pcm_s16be.caf", "caf ALAC.caf", "nist.wav"):
        stem, _, suffix = name.rpartition(".")
        yield Kind(f"{stem} cut in half.{suffix}", lambda name=name: _half(made[name]()), False, served=False)


def _flac() -> Iterator[Kind]:
    for level in (0, 5, 8, 12):
        yield Kind(f"flac level {level}.flac", lambda level=str(level): encode(".flac", "-compression_level", level))
    flac: Make = lambda: encode(".flac", "-frame_size", "4096")  # noqa: E731
    yield Kind("flac 24 bit.flac", lambda: encode(".flac", "-sample_fmt", "s32"))
    for subtype in ("PCM_S8", "PCM_16", "PCM_24"):
        yield Kind(f"flac {subtype} by libsndfile.flac", lambda subtype=subtype: write("FLAC", subtype))
    for rate in (8000, 16000, 48000, 96000):
        yield Kind(f"flac {rate} Hz mono.flac", lambda rate=rate: encode(".flac", rate=rate, n_channels=1))
    yield Kind("flac 6 channels.flac", lambda: encode(".flac", n_channels=6))
    yield Kind("flac to a pipe.flac", lambda: encode(".flac", pipe=True))
    yield Kind("flac with a cover.flac", lambda: with_block(flac(), 6, flac_picture(200_000)))
    yield Kind("flac total unknown.flac", lambda: with_total(flac(), 0))
    yield Kind("flac total too small.flac", lambda: with_total(flac(), 50000))
    yield _cut("flac total too large.flac", lambda: with_total(flac(), 202860), "looks as one cut between frames")
    yield Kind("flac total 1 too large.flac", lambda: with_total(flac(), 101431), None)
    yield Kind("flac padding of 1 MB.flac", lambda: with_block(flac(), 1, bytes(1_000_000)))
    yield Kind("flac application block.flac", lambda: with_block(flac(), 2, b"riff" + bytes(100)))
    yield Kind("flac seek table of placeholders.flac", lambda: with_block(flac(), 3, (b"\xff" * 8 + bytes(10)) * 10))
    yield Kind("flac header alone.flac", lambda: join_flac(flac_blocks(flac())[0][:1], flac_blocks(flac())[1]))
    yield Kind("flac MD5 zero.flac", lambda: put(flac(), 26, "16B", *[0] * 16))
    yield Kind("flac MD5 wrong.flac", lambda: put(flac(), 26, "16B", *range(16)), None)
    yield Kind("flac frame sizes unknown.flac", lambda: put(flac(), 12, "6B", *[0] * 6))
    yield Kind("flac of 10 ms.flac", lambda: encode(".flac", seconds=0.01), true_seconds=0.01, ends_at=0.01)
    yield from _tags("flac", ".flac", flac, id3=True)
    yield Kind("flac two in one.flac", lambda: flac() + flac(), None, 2 * SECONDS)
    yield _cut("flac cut in half.flac", lambda: _half(flac()))
    yield _cut("flac cut between frames.flac", lambda: flac()[: flac_frames(flac())[12]])
    yield _cut("flac cut inside the last frame.flac", lambda: flac()[: flac_frames(flac())[-1] + 500])
    yield Kind("flac cut by one byte.flac", lambda: flac()[:-1], None)
    yield Kind("flac total unknown, cut in half.flac", lambda: _half(with_total(flac(), 0)), None, None, None)
    at = 12 * 4096 / 44100
    unknown_cut: Make = lambda: with_total(flac(), 0)[: flac_frames(flac())[12]]  # noqa: E731
    yield Kind("flac total unknown, cut between frames.flac", unknown_cut, True, at, at)
    yield _cut("flac cut inside its header.flac", lambda: flac()[:30])
    broken: Make = lambda: put(flac(), flac_frames(flac())[8] + 300, "4B", 1, 2, 3, 4)  # noqa: E731
    yield Kind("flac a broken frame in the middle.flac", broken, None)
    lost: Make = lambda: flac()[: flac_frames(flac())[8]] + flac()[flac_frames(flac())[9] :]  # noqa: E731
    yield _cut("flac a frame lost in the middle.flac", lost)


def _ogg() -> Iterator[Kind]:
    short = ("-page_duration", "200000")  # microseconds: several pages in a file that is short
    makes: dict[str, Callable[..., bytes]] = {
        "vorbis": lambda *more, **how: encode(".ogg", "-c:a", "libvorbis", *short, *more, **how),
        "opus": lambda *more, **how: encode(".opus", "-c:a", "libopus", *short, *more, **how),
        "ogg flac": lambda *more, **how: encode(".ogg", "-c:a", "flac", *short, *more, **how),
    }
    for codec in ("vorbis", "opus"):
        yield from _ogg_stream(codec, makes[codec], ".opus" if codec == "opus" else ".ogg")
    flac: Make = lambda: makes["ogg flac"](rate=48000)  # noqa: E731
    yield Kind("ogg flac.ogg", flac, None)
    yield Kind("ogg flac 16 kHz mono.oga", lambda: makes["ogg flac"](rate=16000, n_channels=1), None)
    yield Kind("ogg flac no end mark.ogg", lambda: no_end_mark(flac()), None)
    yield _cut("ogg flac cut in half.ogg", lambda: _half(flac()))
    yield Kind("ogg flac chained.ogg", lambda: flac() + renamed_stream(flac(), 77), None, 2 * SECONDS)
    yield Kind("vorbis by libsndfile.ogg", lambda: write("OGG", "VORBIS"))
    yield Kind("vorbis by libsndfile.oga", lambda: write("OGG", "VORBIS", 22050, 1))
    yield Kind("opus by libsndfile.opus", lambda: write("OGG", "OPUS", 48000))
    yield Kind("opus in .ogg.ogg", lambda: encode(".ogg", "-c:a", "libopus", rate=48000))
    yield Kind("vorbis by ffmpeg's own encoder.ogg", lambda: encode(".ogg", "-c:a", "vorbis", "-strict", "-2"))
    yield Kind("vorbis quality 0.ogg", lambda: encode(".ogg", "-c:a", "libvorbis", "-q:a", "0"))
    yield Kind("vorbis offset by ffmpeg.ogg", lambda: encode(".ogg", "-c:a", "libvorbis", "-output_ts_offset", "5"))
    for ms in ("2.5", "20", "60"):
        yield Kind(
            f"opus frames of {ms} ms.opus",
            lambda ms=ms: encode(".opus", "-c:a", "libopus", "-frame_duration", ms, rate=48000),
        )
    voice = ("-c:a", "libopus", "-application", "voip", "-b:a", "16k")
    yield Kind("opus voice message.ogg", lambda: encode(".ogg", *voice, rate=48000, n_channels=1))
    yield Kind("opus pre-skip of 0.opus", lambda: _pre_skip(makes["opus"](rate=48000), 0), True, None)
    yield Kind("opus gain of -6 dB.opus", lambda: _head(makes["opus"](rate=48000), 8, "<h", -1536))


def _ogg_stream(codec: str, how_made: Make, end: str) -> Iterator[Kind]:
    """What may become of an Ogg file; `how_made` encodes one with several pages."""
    base: dict[str, int] = {"rate": 48000 if codec == "opus" else 44100}
    picture = "METADATA_BLOCK_PICTURE=" + base64.b64encode(flac_picture(60_000)).decode()

    def make() -> bytes:
        return how_made(**base)

    def chain() -> bytes:
        return make() + renamed_stream(make(), 77)

    for rate in (8000, 16000, 48000):
        yield Kind(f"{codec} {rate} Hz mono{end}", lambda rate=rate: how_made(rate=rate, n_channels=1))
    yield Kind(f"{codec} stereo{end}", make)
    yield Kind(f"{codec} 6 channels{end}", lambda: how_made(rate=48000, n_channels=6))
    for what, seconds in {"10 ms": 0.01, "0.3 s": 0.3}.items():
        yield Kind(f"{codec} of {what}{end}", lambda s=seconds: how_made(rate=48000, seconds=s), True, seconds, seconds)
    yield Kind(f"{codec} no end mark{end}", lambda: no_end_mark(make()), note="as Android writes all")
    yield Kind(f"{codec} begins late{end}", lambda: later(make(), 480_000), note="a broadcast")
    lost = "a broadcast, or pages lost"
    yield Kind(f"{codec} first pages dropped{end}", lambda: without_pages(make(), range(2, 5)), None, None, note=lost)
    yield Kind(f"{codec} cut between pages{end}", lambda: b"".join(pages(make())[:-4]), None, None, None)
    yield _cut(f"{codec} cut in half{end}", lambda: _half(make()))
    yield _cut(f"{codec} cut inside the last page{end}", lambda: make()[:-300])
    yield Kind(f"{codec} cut by one byte{end}", lambda: make()[:-1], None)
    yield _cut(f"{codec} cut inside its headers{end}", lambda: make()[:70])
    yield _cut(f"{codec} a page lost in the middle{end}", lambda: without_pages(make(), range(7, 8)))
    renumbered: Make = lambda: without_pages(make(), range(7, 8), renumber=True)  # noqa: E731
    yield _cut(f"{codec} a page cut out and renumbered{end}", renumbered, "its positions still tell")
    yield Kind(f"{codec} a page with a broken checksum{end}", lambda: _broken_page(make(), 7, 200), None)
    yield Kind(f"{codec} a checksum wrong, samples right{end}", lambda: _broken_page(make(), 7, 23), None)
    yield Kind(f"{codec} chained{end}", chain, True, 2 * SECONDS)
    yield Kind(f"{codec} chained, same serial{end}", lambda: make() + make(), None, 2 * SECONDS)
    yield Kind(f"{codec} three chained{end}", lambda: chain() + renamed_stream(make(), 5), True, 3 * SECONDS)
    other: Make = lambda: make() + renamed_stream(how_made(rate=16000, n_channels=1), 77)  # noqa: E731
    yield Kind(f"{codec} chained, other rate and channels{end}", other, None, 2 * SECONDS, by_ffmpeg=False)
    yield _cut(f"{codec} chained, the second cut{end}", lambda: chain()[:-10_000])
    yield from _tags(codec, end, make)
    yield Kind(f"{codec} with a cover of 60 kB{end}", lambda: how_made("-metadata", picture, **base), note="over pages")


def _broken_page(ogg: bytes, number: int, at: int) -> bytes:
    found = pages(ogg)
    found[number] = put(found[number], at, "B", found[number][at] ^ 0x55)
    return b"".join(found)


def _head(opus: bytes, at: int, layout: str, value: int) -> bytes:
    first, *rest = pages(opus)
    return b"".join([seal(put_after(first, b"OpusHead", at, layout, value)), *rest])


def _pre_skip(opus: bytes, n_frames: int) -> bytes:
    return _head(opus, 2, "<H", n_frames)


def _mp3() -> Iterator[Kind]:
    for rate in (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000):
        yield Kind(f"mp3 {rate} Hz.mp3", lambda rate=rate: mp3("-b:a", "64k", rate=rate))
        yield Kind(f"mp3 {rate} Hz mono, no Xing header.mp3", lambda rate=rate: _bare(rate=rate, n_channels=1))
    ways = {
        "128 kbit": ("-b:a", "128k"),
        "320 kbit": ("-b:a", "320k"),
        "VBR 0": ("-q:a", "0"),
        "VBR 9": ("-q:a", "9"),
        "ABR": ("-b:a", "120k", "-abr", "1"),
        "plain stereo": ("-joint_stereo", "0"),
        "no bit reservoir": ("-reservoir", "0", "-b:a", "192k"),
        "ID3v2 and ID3v1 by ffmpeg": ("-id3v2_version", "3", "-write_id3v1", "1", "-metadata", "title=a title"),
        "VBR, no Xing header": ("-q:a", "4", "-write_xing", "0", "-id3v2_version", "0"),
        "no Xing header": ("-write_xing", "0", "-id3v2_version", "0"),
    }
    for name, options in ways.items():
        yield Kind(f"mp3 {name}.mp3", lambda options=options: encode(".mp3", "-c:a", "libmp3lame", *options))
    yield Kind("mp3 to a pipe.mp3", lambda: encode(".mp3", "-c:a", "libmp3lame", pipe=True))
    yield Kind("mp3 by libsndfile.mp3", lambda: write("MP3", "MPEG_LAYER_III"))
    yield Kind("mp3 VBRI header.mp3", lambda: with_vbri(_bare()))
    yield Kind("mp3 checksums.mp3", lambda: protected(_bare("-reservoir", "0", "-b:a", "320k", "-joint_stereo", "0")))
    free: Make = lambda: b"".join(put(frame, 2, "B", frame[2] & 0x0F) for frame in frames(_bare(rate=48000)))  # noqa: E731
    yield Kind("mp3 free format.mp3", free, None, by_ffmpeg=False)
    for suffix in (".mp2", ".mp3"):
        yield Kind(f"layer II{suffix}", lambda: encode(".mp2", "-c:a", "mp2"))
        low: Make = lambda: encode(".mp2", "-c:a", "mp2", rate=16000, n_channels=1)  # noqa: E731
        yield Kind(f"layer II 16 kHz mono{suffix}", low, ends_at=2.27, note="the encoder drops the last frame")
    for what, n_frames in {"two frames": 2, "five frames": 5}.items():
        seconds = (n_frames * 1152 - MP3_DELAY) / 44100
        make: Make = lambda n=n_frames: b"".join(frames(_bare())[:n])  # noqa: E731
        yield Kind(f"mp3 of {what}.mp3", make, True, n_frames * 1152 / 44100, seconds - 529 / 44100)
    yield from _tags("mp3", ".mp3", mp3, id3=True)
    yield from _tags("mp3 without Xing", ".mp3", _bare, id3=True)
    behind = {
        "lyrics3": lyrics3() + id3v1(),
        "lyrics3 of 20 kB": lyrics3(20_000) + id3v1(),
        "ape and id3v1": ape() + id3v1(),
    }
    behind |= {
        "ape of 20 kB and id3v1": ape(20_000) + id3v1(),
        "100 bytes of noise": noise(100),
        "20 kB of noise": noise(20_000),
    }
    for what, tag in behind.items():
        yield Kind(f"mp3 without Xing with {what} behind.mp3", lambda tag=tag: _bare() + tag)
    front = {
        "two id3v2": id3v2() * 2,
        "id3v2 with a footer": id3v2(footer=True),
        "ape": ape(),
        "id3v2 and 2 kB of zeros": id3v2() + bytes(2048),
    }
    front |= {
        "1 kB of zeros": bytes(1024),
        "10 kB of zeros": bytes(10_240),
        "5 kB of noise": noise(5000),
        "100 kB of noise": noise(100_000),
    }
    for what, tag in front.items():
        yield Kind(f"mp3 with {what} in front.mp3", lambda tag=tag: tag + mp3(), None if "noise" in what else True)


def mp3(*options: str, rate: int = 44100, n_channels: int = 2, seconds: float = SECONDS) -> bytes:
    """Returns an MP3 with a Xing header and no tags."""
    how = ("-c:a", "libmp3lame", "-id3v2_version", "0", *options)
    return encode(".mp3", *how, rate=rate, n_channels=n_channels, seconds=seconds)


def _bare(*options: str, rate: int = 44100, n_channels: int = 2) -> bytes:
    return mp3("-write_xing", "0", *options, rate=rate, n_channels=n_channels)


def _joined(*parts: list[bytes]) -> bytes:
    return b"".join(frame for part in parts for frame in part)


def _mp3_damage() -> Iterator[Kind]:
    for what, factor in {"x3": 3.0, "a third": 1 / 3, "one frame more": 91 / 90, "0": 0.0}.items():
        yield Kind(f"mp3 Xing counts {what}.mp3", lambda factor=factor: change_xing(mp3(), factor))
    both = {"same bitrate": ("-b:a", "128k"), "other bitrate": ("-b:a", "64k"), "VBR": ("-q:a", "4")}
    for what, options in both.items():
        yield Kind(f"mp3 two in one, {what}.mp3", lambda options=options: mp3() + mp3(*options), True, 2 * SECONDS)
        make: Make = lambda options=options: _bare() + _bare(*options)  # noqa: E731
        yield Kind(f"mp3 two in one without Xing, {what}.mp3", make, True, 2 * SECONDS)
    yield Kind("mp3 three in one.mp3", lambda: mp3() * 3, True, 3 * SECONDS)
    yield Kind("mp3 two in one with tags.mp3", lambda: (id3v2() + mp3() + id3v1()) * 2, True, 2 * SECONDS)
    yield Kind("mp3 two in one, other rate.mp3", lambda: _bare() + _bare(rate=22050), None, 2 * SECONDS)
    yield Kind("mp3 two in one, mono and stereo.mp3", lambda: _bare() + _bare(n_channels=1), None, 2 * SECONDS)
    n, spot = 45, 45 * 1152 / 44100
    edited = spot - MP3_DELAY / 44100
    for what, make in {"CBR": mp3, "VBR": lambda: mp3("-q:a", "2")}.items():
        keep: Make = lambda make=make: _joined(frames(make())[: n + 1])  # noqa: E731 - with the Xing frame
        note = "cut by an editor that keeps the header of the original"
        yield Kind(f"mp3 {what} cut between frames with its Xing header.mp3", keep, True, edited, edited, note=note)
        yield _cut(f"mp3 {what} cut inside a frame with its Xing header.mp3", lambda keep=keep: keep()[:-100])
        yield _cut(f"mp3 {what} cut inside a frame, ID3v2 in front.mp3", lambda keep=keep: id3v2() + keep()[:-100])
    yield Kind("mp3 without Xing cut between frames.mp3", lambda: _joined(frames(_bare())[:n]), True, spot, edited)
    inside: Make = lambda: _joined(frames(_bare())[: n + 1])[:-200]  # noqa: E731
    yield Kind(
        "mp3 without Xing cut inside a frame.mp3", inside, None, spot, edited, note="less than a frame is missing"
    )
    yield Kind("mp3 cut by one byte.mp3", lambda: mp3()[:-1], None, SECONDS)
    yield Kind("mp3 without Xing cut by one byte.mp3", lambda: _bare()[:-1], None, SECONDS)
    dropped = (len(range(2, 90)) * 1152 - MP3_DELAY) / 44100
    yield Kind(
        "mp3 first frames dropped.mp3", lambda: _joined(frames(_bare())[3:]), True, None, note=f"about {dropped:.1f} s"
    )
    yield Kind("mp3 begins inside a frame.mp3", lambda: _bare()[1000:], None, None)
    inserted = {**{f"{k} bytes of noise": noise(k) for k in (50, 500, 5000)}, "an ID3v2 tag": id3v2()}
    for what, extra in inserted.items():
        middle: Make = lambda extra=extra: _joined(frames(_bare())[:n], [extra], frames(_bare())[n:])  # noqa: E731
        yield Kind(f"mp3 {what} in the middle.mp3", middle, None, 90 * 1152 / 44100, None)
    lost: Make = lambda: _joined(frames(mp3())[:n], frames(mp3())[n + 1 :])  # noqa: E731
    yield Kind("mp3 a frame lost in the middle.mp3", lost, None, None, None)


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
        for suffix in ("wav", "mp3", "flac", "ogg", "m4a", "WAV"):
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
