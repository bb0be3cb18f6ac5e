"""FLAC."""

from __future__ import annotations

from collections.abc import Iterator

from kinds.edits import (
    SECONDS,
    as_text,
    encode,
    flac_blocks,
    flac_frames,
    flac_picture,
    join_flac,
    preallocated,
    put,
    with_block,
    with_hole,
    with_total,
    write,
)
from kinds.kind import Kind, Make, cut, half, tags


def kinds() -> Iterator[Kind]:
    """Yields all of this container."""
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
    yield cut("flac total too large.flac", lambda: with_total(flac(), 202860), "looks as one cut between frames")
    yield Kind("flac total 1 too large.flac", lambda: with_total(flac(), 101431), None)
    yield Kind("flac padding of 1 MB.flac", lambda: with_block(flac(), 1, bytes(1_000_000)))
    yield Kind("flac application block.flac", lambda: with_block(flac(), 2, b"riff" + bytes(100)))
    yield Kind("flac seek table of placeholders.flac", lambda: with_block(flac(), 3, (b"\xff" * 8 + bytes(10)) * 10))
    yield Kind("flac header alone.flac", lambda: join_flac(flac_blocks(flac())[0][:1], flac_blocks(flac())[1]))
    yield Kind("flac MD5 zero.flac", lambda: put(flac(), 26, "16B", *[0] * 16))
    yield Kind("flac MD5 wrong.flac", lambda: put(flac(), 26, "16B", *range(16)), None)
    yield Kind("flac frame sizes unknown.flac", lambda: put(flac(), 12, "6B", *[0] * 6))
    yield Kind("flac of 10 ms.flac", lambda: encode(".flac", seconds=0.01), true_seconds=0.01, ends_at=0.01)
    yield from tags("flac", ".flac", flac, id3=True)
    yield Kind("flac two in one.flac", lambda: flac() + flac(), None, 2 * SECONDS)
    yield cut("flac cut in half.flac", lambda: half(flac()))
    yield cut("flac cut between frames.flac", lambda: flac()[: flac_frames(flac())[12]])
    yield cut("flac cut inside the last frame.flac", lambda: flac()[: flac_frames(flac())[-1] + 500])
    yield Kind("flac cut by one byte.flac", lambda: flac()[:-1], None)
    yield Kind("flac total unknown, cut in half.flac", lambda: half(with_total(flac(), 0)), None, None, None)
    at = 12 * 4096 / 44100
    unknown_cut: Make = lambda: with_total(flac(), 0)[: flac_frames(flac())[12]]  # noqa: E731
    yield Kind("flac total unknown, cut between frames.flac", unknown_cut, True, at, at)
    yield cut("flac second half is zeros.flac", lambda: preallocated(flac()))
    yield cut("flac hole in the middle.flac", lambda: with_hole(flac(), 20_000))
    yield cut("flac sent as text.flac", lambda: as_text(flac()))
    yield cut("flac saved as UTF-8.flac", lambda: flac().decode("utf-8", "replace").encode())
    yield cut("flac cut inside its header.flac", lambda: flac()[:30])
    broken: Make = lambda: put(flac(), flac_frames(flac())[8] + 300, "4B", 1, 2, 3, 4)  # noqa: E731
    yield Kind("flac a broken frame in the middle.flac", broken, None)
    lost: Make = lambda: flac()[: flac_frames(flac())[8]] + flac()[flac_frames(flac())[9] :]  # noqa: E731
    yield cut("flac a frame lost in the middle.flac", lost)
