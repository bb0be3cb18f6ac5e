"""What the service takes upon itself at most."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLES_PER_SECOND = 192_000
"""Of all channels together, that a second of the longest recording may have: stereo at 96 kHz."""


@dataclass(frozen=True)
class Limits:
    """Limits of size, length, number and time, for all clients together where not said otherwise."""

    max_bytes: int = 20_000_000
    """Of one upload."""
    max_seconds: float = 600.0
    """Of one recording, decoded."""
    max_windows: int = 500
    """That one recording may be cut into."""
    max_concurrent: int = 2
    """Requests being worked on, each by a thread."""
    queue: int = 32
    """Requests that were received whole and wait for their turn; more are refused."""
    timeout: float = 30.0
    """Seconds that a client may take to send the head of a request, to send its body, and to take the answer."""
    max_connections: int = 900
    """Open at a time, answered or idle."""

    @property
    def max_samples(self) -> int:
        """Samples of all channels together that one recording may hold: they, not seconds, are the work of decoding."""
        return round(self.max_seconds * SAMPLES_PER_SECOND)

    @property
    def max_held(self) -> int:
        """Bytes of uploads in memory, whole or in part."""
        return self.max_bytes * (self.max_concurrent + self.queue)
