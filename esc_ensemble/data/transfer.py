"""One large file over HTTP, resumed after every interruption."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from esc_ensemble.errors import EscError, WorkError
from esc_ensemble.files import disk_errors
from esc_ensemble.progress import progress

MEGABYTE = 1_000_000
CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 60.0
MAX_FAILURES = 5
WORTH_A_RETRY = (408, 425, 429, 500, 502, 503, 504)
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True)
class Transfer:
    """What to fetch and where to put it. While it is under way it lies beside `target` as `.part`."""

    url: str
    target: Path
    megabytes: int
    """Expected size, for the display where the server does not tell."""

    @property
    def part(self) -> Path:
        """The beginning of the file that has come so far."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def validator(self) -> Path:
        """A text file with what the server called the version that the part was taken from."""
        return self.target.with_name(self.target.name + ".part.version")


class _InterruptedError(EscError):
    """The connection failed in a way that may pass."""


def download(transfer: Transfer, pause_seconds: float = 2.0) -> None:
    """Fetches `transfer.url`, going on from the part that an earlier try has left.

    The part is only continued where the server says that the file is still the same (`If-Range`, RFC 9110);
    a server that knows no ranges sends the whole file again. Five failures in a row without a new byte end
    it.

    Raises:
        WorkError: there is no such file, no connection, or no space on the disk.
    """
    failures = 0
    while True:
        before = _size(transfer.part)
        try:
            _attempt(transfer, before)
            break
        except _InterruptedError as error:
            failures = 0 if _size(transfer.part) > before else failures + 1
            if failures >= MAX_FAILURES:
                raise WorkError(_by_hand(transfer, str(error))) from error
            time.sleep(pause_seconds * 2**failures)
    transfer.part.replace(transfer.target)
    transfer.validator.unlink(missing_ok=True)


def _attempt(transfer: Transfer, n_have: int) -> None:
    """Adds to the part until it is whole.

    Raises:
        _InterruptedError: it ended early; another try may go on.
        WorkError: another try would be of no use.
    """
    version = transfer.validator.read_text(encoding="utf-8") if transfer.validator.is_file() else ""
    request = urllib.request.Request(transfer.url, headers={"User-Agent": "esc_ensemble"})
    if n_have and version:  # without a version the part may be of another file
        request.add_header("Range", f"bytes={n_have}-")
        request.add_header("If-Range", version)
    try:
        with _network_errors(), urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            start, n_total = _extent(response)
            if start not in (0, n_have):
                raise _InterruptedError(f"the server sent bytes from {start} when asked for those from {n_have}")
            if start == 0:
                _remember_version(transfer, response)
            _receive(transfer, response, start, n_total)
    except urllib.error.HTTPError as error:
        if error.code in (412, 416):  # the part does not belong to this file: begin again
            told = CONTENT_RANGE.fullmatch(error.headers.get("Content-Range", "").strip())
            if error.code == 416 and told and told[2] == str(n_have):
                return  # broken off after the last byte
            transfer.part.unlink(missing_ok=True)
            transfer.validator.unlink(missing_ok=True)
            raise _InterruptedError(f"the server refused to go on ({error.code})") from error
        reason = f"the server answered {error.code} {error.reason}"
        if error.code in WORTH_A_RETRY:
            raise _InterruptedError(reason) from error
        raise WorkError(_by_hand(transfer, reason)) from error


def _receive(transfer: Transfer, response: IO[bytes], start: int, n_total: int) -> None:
    n_have = start
    shown = n_have // MEGABYTE
    n_shown_total = max(n_total // MEGABYTE, 1) if n_total else max(transfer.megabytes, shown)
    with (
        disk_errors(transfer.part),
        transfer.part.open("ab" if start else "wb") as file,
        progress(f"Fetching {transfer.target.name}", n_shown_total, unit="MB", done=shown) as advance,
    ):
        while True:
            with _network_errors():
                chunk = response.read(CHUNK_BYTES)
            if not chunk:
                break
            file.write(chunk)
            n_have += len(chunk)
            if n_have // MEGABYTE > shown:
                advance(n_have // MEGABYTE - shown)
                shown = n_have // MEGABYTE
    # `read` gives an empty result when the other side hangs up, without an error.
    if n_total and n_have < n_total:
        raise _InterruptedError(f"the connection ended after {n_have} of {n_total} bytes")


def _extent(response: Any) -> tuple[int, int]:
    """Gives the position of an answer's first byte in the file, and the file's size (0 where not told)."""
    if response.status == http.client.PARTIAL_CONTENT:
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if not found or found[1] is None:
            raise _InterruptedError("the server sent a part of the file without saying which")
        return int(found[1]), 0 if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else 0


def _remember_version(transfer: Transfer, response: Any) -> None:
    etag = response.headers.get("ETag", "")
    # A weak ETag promises the same meaning, not the same bytes, and must not stand in If-Range.
    version = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    with disk_errors(transfer.part):
        transfer.validator.write_text(version, encoding="utf-8")


@contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise _InterruptedError(f"no connection: {error.reason}") from error
    except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
        raise _InterruptedError(f"the connection broke: {error or type(error).__name__}") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _by_hand(transfer: Transfer, reason: str) -> str:
    return (
        f"Could not fetch {transfer.url}: {reason}. Run the command again to go on where it stopped, or "
        f"fetch that file by hand and put it at {transfer.target}."
    )
