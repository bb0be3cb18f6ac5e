"""Vorbis, Opus and FLAC in Ogg."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

from kinds.edits import (
    SECONDS,
    as_text,
    empty_last_page,
    encode,
    flac_picture,
    later,
    no_end_mark,
    pages,
    preallocated,
    put,
    put_after,
    renamed_stream,
    seal,
    with_hole,
    without_pages,
    write,
)
from kinds.kind import Kind, Make, cut, half, tags


def kinds() -> Iterator[Kind]:
    """Yields all of this container."""
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
    yield cut("ogg flac cut in half.ogg", lambda: half(flac()))
    yield Kind("ogg flac chained.ogg", lambda: flac() + renamed_stream(flac(), 77), None, 2 * SECONDS)
    mixed: Make = lambda: makes["vorbis"](rate=48000) + renamed_stream(makes["opus"](rate=48000), 77)  # noqa: E731
    yield Kind("vorbis, then opus chained.ogg", mixed, None, 2 * SECONDS, by_ffmpeg=False)
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
    n_packet = 960 if codec == "opus" else 0
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
    yield cut(f"{codec} cut in half{end}", lambda: half(make()))
    yield cut(f"{codec} cut inside the last page{end}", lambda: make()[:-300])
    yield Kind(f"{codec} cut by one byte{end}", lambda: make()[:-1], None)
    yield cut(f"{codec} cut inside its headers{end}", lambda: make()[:70])
    yield cut(f"{codec} a page lost in the middle{end}", lambda: without_pages(make(), range(7, 8)))
    renumbered: Make = lambda: without_pages(make(), range(7, 8), renumber=True)  # noqa: E731
    hidden = "no mark of the container tells"
    yield Kind(f"{codec} a page cut out and renumbered{end}", renumbered, None, None, None, note=hidden)
    yield Kind(f"{codec} a page with a broken checksum{end}", lambda: _broken_page(make(), 7, 200), None)
    yield Kind(f"{codec} a checksum wrong, samples right{end}", lambda: _broken_page(make(), 7, 23), None)
    yield Kind(f"{codec} chained{end}", chain, True, 2 * SECONDS)
    yield Kind(f"{codec} chained, same serial{end}", lambda: make() + make(), None, 2 * SECONDS)
    yield Kind(f"{codec} three chained{end}", lambda: chain() + renamed_stream(make(), 5), True, 3 * SECONDS)
    other: Make = lambda: make() + renamed_stream(how_made(rate=16000, n_channels=1), 77)  # noqa: E731
    yield Kind(f"{codec} chained, other rate and channels{end}", other, None, 2 * SECONDS, by_ffmpeg=False)
    yield cut(f"{codec} chained, the second cut{end}", lambda: chain()[:-10_000])
    yield cut(f"{codec} second half is zeros{end}", lambda: preallocated(make()))
    yield cut(f"{codec} hole in the middle{end}", lambda: with_hole(make(), 3000))
    yield cut(f"{codec} sent as text{end}", lambda: as_text(make()))
    yield Kind(f"{codec} end mark on an empty page{end}", lambda: empty_last_page(make(), n_packet))
    yield from tags(codec, end, make)
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
