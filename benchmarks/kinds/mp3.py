"""MP3 and Layer II."""

from __future__ import annotations

from collections.abc import Iterator

from kinds.edits import (
    SECONDS,
    ape,
    change_xing,
    encode,
    frames,
    id3v1,
    id3v2,
    id3v2_of_wrong_size,
    lyrics3,
    noise,
    preallocated,
    protected,
    put,
    with_hole,
    with_vbri,
    write,
)
from kinds.kind import Kind, Make, cut, tags

DELAY = 1105
"""Samples that decoders drop at the start where a LAME header is present."""


def kinds() -> Iterator[Kind]:
    """Yields all of this container."""
    yield from _mp3()
    yield from _mp3_damage()


def _mp3() -> Iterator[Kind]:
    for rate in (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000):
        yield Kind(f"mp3 {rate} Hz.mp3", lambda rate=rate: mp3("-b:a", "64k", rate=rate))
        yield Kind(f"mp3 {rate} Hz mono, no Xing header.mp3", lambda rate=rate: bare(rate=rate, n_channels=1))
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
    yield Kind("mp3 VBRI header.mp3", lambda: with_vbri(bare()))
    yield Kind("mp3 checksums.mp3", lambda: protected(bare("-reservoir", "0", "-b:a", "320k", "-joint_stereo", "0")))
    free: Make = lambda: b"".join(put(frame, 2, "B", frame[2] & 0x0F) for frame in frames(bare(rate=48000)))  # noqa: E731
    yield Kind("mp3 free format.mp3", free, None, 97 * 1152 / 48000, by_ffmpeg=False)
    for suffix in (".mp2", ".mp3"):
        yield Kind(f"layer II{suffix}", lambda: encode(".mp2", "-c:a", "mp2"))
        low: Make = lambda: encode(".mp2", "-c:a", "mp2", rate=16000, n_channels=1)  # noqa: E731
        yield Kind(f"layer II 16 kHz mono{suffix}", low, ends_at=2.27, note="the encoder drops the last frame")
    for what, n_frames in {"two frames": 2, "five frames": 5}.items():
        seconds = (n_frames * 1152 - DELAY) / 44100
        make: Make = lambda n=n_frames: b"".join(frames(bare())[:n])  # noqa: E731
        yield Kind(f"mp3 of {what}.mp3", make, True, n_frames * 1152 / 44100, seconds - 529 / 44100)
    yield from tags("mp3", ".mp3", mp3, id3=True)
    yield from tags("mp3 without Xing", ".mp3", bare, id3=True)
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
        yield Kind(f"mp3 without Xing with {what} behind.mp3", lambda tag=tag: bare() + tag)
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


def bare(*options: str, rate: int = 44100, n_channels: int = 2) -> bytes:
    """Returns an MP3 without a Xing header and tags."""
    return mp3("-write_xing", "0", *options, rate=rate, n_channels=n_channels)


def joined(*parts: list[bytes]) -> bytes:
    """Returns frames one after the other."""
    return b"".join(frame for part in parts for frame in part)


def _mp3_damage() -> Iterator[Kind]:
    for what, factor in {"x3": 3.0, "a third": 1 / 3, "one frame more": 91 / 90, "0": 0.0}.items():
        yield Kind(f"mp3 Xing counts {what}.mp3", lambda factor=factor: change_xing(mp3(), factor))
    both = {"same bitrate": ("-b:a", "128k"), "other bitrate": ("-b:a", "64k"), "VBR": ("-q:a", "4")}
    for what, options in both.items():
        yield Kind(f"mp3 two in one, {what}.mp3", lambda options=options: mp3() + mp3(*options), True, 2 * SECONDS)
        make: Make = lambda options=options: bare() + bare(*options)  # noqa: E731
        yield Kind(f"mp3 two in one without Xing, {what}.mp3", make, True, 2 * SECONDS)
    yield Kind("mp3 three in one.mp3", lambda: mp3() * 3, True, 3 * SECONDS)
    yield Kind("mp3 two in one with tags.mp3", lambda: (id3v2() + mp3() + id3v1()) * 2, True, 2 * SECONDS + 0.09)
    yield Kind("mp3 two in one, other rate.mp3", lambda: bare() + bare(rate=22050), None, 2 * SECONDS)
    yield Kind("mp3 two in one, mono and stereo.mp3", lambda: bare() + bare(n_channels=1), None, 2 * SECONDS)
    n, spot = 45, 45 * 1152 / 44100
    edited = spot - DELAY / 44100
    for what, make in {"CBR": mp3, "VBR": lambda: mp3("-q:a", "2")}.items():
        keep: Make = lambda make=make: joined(frames(make())[: n + 1])  # noqa: E731 - with the Xing frame
        note = "cut by an editor that keeps the header of the original"
        yield Kind(f"mp3 {what} cut between frames with its Xing header.mp3", keep, True, edited, edited, note=note)
        yield cut(f"mp3 {what} cut inside a frame with its Xing header.mp3", lambda keep=keep: keep()[:-100])
        yield cut(f"mp3 {what} cut inside a frame, ID3v2 in front.mp3", lambda keep=keep: id3v2() + keep()[:-100])
    yield Kind("mp3 without Xing cut between frames.mp3", lambda: joined(frames(bare())[:n]), True, spot, edited)
    inside: Make = lambda: joined(frames(bare())[: n + 1])[:-200]  # noqa: E731
    yield Kind(
        "mp3 without Xing cut inside a frame.mp3", inside, None, spot, edited, note="less than a frame is missing"
    )
    for more in (100, -100):
        tag: Make = lambda more=more: id3v2_of_wrong_size(more) + mp3()  # noqa: E731
        yield Kind(f"mp3 ID3v2 size {abs(more)} too {'large' if more > 0 else 'small'}.mp3", tag, None)
    yield cut("mp3 cut inside its ID3v2 tag.mp3", lambda: id3v2(20_000)[:5000])
    yield cut("mp3 second half is zeros.mp3", lambda: preallocated(mp3()))
    yield Kind("mp3 without Xing, second half is zeros.mp3", lambda: preallocated(bare()), None, None, None)
    yield Kind("mp3 hole in the middle.mp3", lambda: with_hole(mp3(), 5000), None, None, None)
    yield Kind("mp3 cut by one byte.mp3", lambda: mp3()[:-1], None, SECONDS)
    yield Kind("mp3 without Xing cut by one byte.mp3", lambda: bare()[:-1], None, SECONDS)
    dropped = (len(range(2, 90)) * 1152 - DELAY) / 44100
    yield Kind(
        "mp3 first frames dropped.mp3", lambda: joined(frames(bare())[3:]), True, None, note=f"about {dropped:.1f} s"
    )
    yield Kind("mp3 begins inside a frame.mp3", lambda: bare()[1000:], None, None)
    inserted = {**{f"{k} bytes of noise": noise(k) for k in (50, 500, 5000)}, "an ID3v2 tag": id3v2()}
    for what, extra in inserted.items():
        middle: Make = lambda extra=extra: joined(frames(bare())[:n], [extra], frames(bare())[n:])  # noqa: E731
        yield Kind(
            f"mp3 {what} in the middle.mp3", middle, None, 89.5 * 1152 / 44100, None, note="one frame more or less"
        )
    lost: Make = lambda: joined(frames(mp3())[:n], frames(mp3())[n + 1 :])  # noqa: E731
    yield Kind("mp3 a frame lost in the middle.mp3", lost, None, None, None)
