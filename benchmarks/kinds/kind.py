"""What is known of one kind of file, and what any container may meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kinds.edits import SECONDS, ape, id3v1, id3v2, noise

Make = Callable[..., bytes]


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


def cut(name: str, make: Make, note: str = "") -> Kind:
    """Returns a file that lacks samples."""
    return Kind(name, make, whole=False, note=note)


def half(content: bytes) -> bytes:
    """Returns the first half."""
    return content[: len(content) // 2]


def tags(name: str, suffix: str, make: Make, *, id3: bool = False) -> Iterator[Kind]:
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
