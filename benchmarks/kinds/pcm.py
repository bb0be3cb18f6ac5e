"""WAV and its relatives, AIFF, AU, CAF and other containers of plain samples."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from kinds.edits import SECONDS, chunk, encode, id3v2, noise, pcm, put, put_after, wav, wide, write
from kinds.kind import Kind, Make, cut, half, tags

N_DATA = 405720
"""Bytes of samples in what `wav` makes."""


def kinds() -> Iterator[Kind]:
    """Yields all of this container."""
    yield from _wav()
    yield from _wav_sizes()
    yield from _riff_relatives()
    yield from _aiff()
    yield from _other_pcm()


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
    for bits, n_bytes in ((12, 2), (20, 3), (24, 4)):
        yield Kind(
            f"wavex {bits} bits in {n_bytes} bytes.wav", lambda b=bits, n=n_bytes: wide(b, n), by_ffmpeg=bits < 24
        )
    fact = chunk(b"fact", struct.pack("<I", 50_000))
    yield Kind("wav fact counts half.wav", lambda: wav(before=fact))
    adpcm: Make = lambda: put_after(write("WAV", "IMA_ADPCM"), b"fact", 4, "<I", 50_000)  # noqa: E731
    yield Kind("wav IMA_ADPCM, fact counts half.wav", adpcm, None)
    yield Kind(
        "wav LIST of a wrong size.wav", lambda: wav(before=chunk(b"LIST", b"INFO", 2**30)), None, by_ffmpeg=False
    )
    two: Make = lambda: wav(data=half(pcm()), after=chunk(b"data", pcm()[len(pcm()) // 2 :]))  # noqa: E731
    yield Kind("wav two data chunks.wav", two, None, by_ffmpeg=False)
    swapped: Make = lambda: wav()[:12] + wav()[36:] + wav()[12:36]  # noqa: E731
    yield Kind("wav data before fmt.wav", swapped, None, by_ffmpeg=False)
    yield Kind("wav wrong byte rate.wav", lambda: wav(fmt=struct.pack("<HHIIHH", 1, 2, 44100, 44100, 4, 16)))
    for name, n in {"1 sample": 1, "100 samples": 100, "4410 samples": 4410}.items():
        make: Make = lambda n=n: wav(data=pcm()[: 4 * n])  # noqa: E731
        yield Kind(f"wav of {name}.wav", make, True if n > 1 else None, n / 44100, n / 44100)
    yield Kind("wav last byte of a sample missing, sizes right.wav", lambda: wav(data=pcm()[:-1]))
    yield from tags("wav", ".wav", wav)
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
        yield cut(f"wav cut {what}.wav", lambda n=n: wav()[: 44 + n])
        yield cut(f"wav float cut {what}.wav", lambda n=n: write("WAV", "FLOAT")[: 80 + n])
    for what, n in {"one byte": 1, "one sample": 4, "36 bytes": 36}.items():
        yield Kind(f"wav cut by {what}.wav", lambda n=n: wav()[:-n], None, note="less than 20 ms: both are right")
    for what, n in {"inside its header": 30, "behind its header": 44, "behind RIFF": 12}.items():
        yield cut(f"wav cut {what}.wav", lambda n=n: wav()[:n])
    for codec in ("IMA_ADPCM", "MS_ADPCM", "ULAW"):
        yield cut(f"wav {codec} cut in half.wav", lambda codec=codec: half(write("WAV", codec)))
    yield cut("wav with libmp3lame cut in half.wav", lambda: half(encode(".wav", "-c:a", "libmp3lame")))


def _riff_relatives() -> Iterator[Kind]:
    rf64: Make = lambda: encode(".wav", "-rf64", "always")  # noqa: E731
    yield Kind("rf64 by ffmpeg.wav", rf64)
    yield Kind("rf64.rf64", lambda: write("RF64", "PCM_16"))
    yield Kind("rf64 float.rf64", lambda: write("RF64", "FLOAT"))
    yield Kind("rf64 to a pipe.wav", lambda: encode(".wav", "-rf64", "always", pipe=True), None, by_ffmpeg=False)
    yield Kind("rf64 sizes 0.wav", lambda: put_after(rf64(), b"ds64", 4, "<QQQ", 0, 0, 0), None, by_ffmpeg=False)
    yield Kind("rf64 that may become one.wav", lambda: encode(".wav", "-rf64", "auto"))
    yield Kind("bw64.wav", lambda: b"BW64" + rf64()[4:], None)
    yield cut("rf64 cut in half.wav", lambda: half(rf64()))
    yield cut("rf64 by libsndfile cut in half.rf64", lambda: half(write("RF64", "PCM_16")))
    rifx: dict[str, Make] = {  # ffmpeg reads their samples as if they were little-endian
        "rifx by libsndfile": lambda: write("WAV", "PCM_16", endian="BIG"),
        "rifx by hand": lambda: wav(magic=b"RIFX"),
        "rifx float": lambda: write("WAV", "FLOAT", endian="BIG"),
        "rifx data size unknown": lambda: wav(magic=b"RIFX", data_size=2**32 - 1, riff_size=2**32 - 1),
    }
    for name, make in rifx.items():
        yield Kind(f"{name}.wav", make, by_ffmpeg=False)
    yield cut("rifx cut in half.wav", lambda: half(wav(magic=b"RIFX")))
    for name, make in {"w64 by ffmpeg": lambda: encode(".w64"), "w64": lambda: write("W64", "PCM_16")}.items():
        yield Kind(f"{name}.w64", make, served=False)
        yield Kind(f"{name} cut in half.w64", lambda make=make: half(make()), False, served=False)
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
    yield from tags("aiff", ".aiff", aiff)
    yield cut("aiff cut in half.aiff", lambda: half(aiff()))
    yield cut("aiff cut by 0.1 s.aiff", lambda: aiff()[:-17640])
    yield cut("aiff float cut in half.aiff", lambda: half(write("AIFF", "FLOAT")))
    yield cut("aiff cut inside its header.aiff", lambda: aiff()[:40])
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
        "ircam.sf": lambda: write("IRCAM", "PCM_16"),
        "nist.wav": lambda: write("NIST", "PCM_16"),
        "nist mu-law.wav": lambda: write("NIST", "ULAW", 8000, 1),
    }
    for name, make in made.items():
        yield Kind(name, make, by_ffmpeg="ALAC" not in name, served=False)  # ffmpeg drops the last packet
    voc: Make = lambda: encode(".voc", "-c:a", "pcm_s16le")  # noqa: E731
    yield Kind("voc.voc", voc, supported=False, served=False, note="libsndfile returns noise for it")
    alac: Make = lambda: encode(".caf", "-c:a", "alac")  # noqa: E731
    yield Kind("caf ALAC by ffmpeg.caf", alac, None, by_ffmpeg=False, served=False)
    yield Kind("au size 0.au", lambda: put(au(), 8, ">I", 0), None, by_ffmpeg=False, served=False)
    yield Kind(
        "au little-endian.au", lambda: write("AU", "PCM_16", endian="LITTLE"), None, by_ffmpeg=False, served=False
    )
    for name in ("au PCM_16.au", "caf pcm_s16be.caf", "caf ALAC.caf", "nist.wav"):
        stem, _, suffix = name.rpartition(".")
        yield Kind(f"{stem} cut in half.{suffix}", lambda name=name: half(made[name]()), False, served=False)
