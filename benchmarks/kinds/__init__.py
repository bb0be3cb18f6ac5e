"""A library of audio files as people meet them: containers, encodings, streamed and damaged headers, cuts and tags.

Each file is made when its content is asked for, from a signal that is loud until its last sample.
"""

from __future__ import annotations

from kinds import flac, mp3, ogg, other, pcm
from kinds.kind import Kind

__all__ = ["Kind", "kinds"]


def kinds() -> list[Kind]:
    """Returns all kinds, by container."""
    made = [*pcm.kinds(), *flac.kinds(), *ogg.kinds(), *mp3.kinds(), *other.kinds()]
    names = [kind.name for kind in made]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return made
