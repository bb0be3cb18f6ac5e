"""What the service counts, in Prometheus' text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "esc_ens"


class Metrics:
    """Counts of one process since its start; nothing but the event loop's thread touches them."""

    def __init__(self, info: dict[str, str]) -> None:
        self.info = info
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        """Name -> what it says, and what reads it off."""
        self.counters: dict[str, tuple[str, Callable[[], float]]] = {}
        self.in_flight = 0
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0
        self._n_timed = 0
        self.gauges["requests_in_flight"] = ("Requests whose answer is not yet sent.", lambda: self.in_flight)

    def count(self, method: str, path: str, status: int) -> None:
        """Counts a request that was answered."""
        self._requests[method, path, status] += 1

    def time(self, seconds: float) -> None:
        """Notes how long a prediction took, from the request's head to the answer's last byte."""
        self._seconds += seconds
        self._n_timed += 1
        for bound in BUCKETS:
            self._buckets[bound] += seconds <= bound

    def text(self) -> str:
        """Gives everything in the text format, version 0.0.4."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        labels = ",".join(f'{name}="{_escape(value)}"' for name, value in self.info.items())
        yield from _head("info", "What is served.", "gauge")
        yield f"{PREFIX}_info{{{labels}}} 1"
        yield from _head("requests_total", "Requests answered; 499 counts clients that left before.", "counter")
        for (method, path, status), n in sorted(self._requests.items()):
            yield f'{PREFIX}_requests_total{{method="{method}",path="{path}",status="{status}"}} {n}'
        name = "prediction_seconds"
        yield from _head(name, "From a request's head to its prediction's last byte.", "histogram")
        for bound in BUCKETS:
            yield f'{PREFIX}_{name}_bucket{{le="{bound}"}} {self._buckets[bound]}'
        yield f'{PREFIX}_{name}_bucket{{le="+Inf"}} {self._n_timed}'
        yield f"{PREFIX}_{name}_sum {self._seconds:.6f}"
        yield f"{PREFIX}_{name}_count {self._n_timed}"
        for kind, entries in (("gauge", self.gauges), ("counter", self.counters)):
            for name, (meaning, look) in entries.items():
                yield from _head(name, meaning, kind)
                yield f"{PREFIX}_{name} {look():.12g}"


def _head(name: str, meaning: str, kind: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}_{name} {meaning}"
    yield f"# TYPE {PREFIX}_{name} {kind}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
