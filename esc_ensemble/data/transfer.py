"""One large file over HTTP, resumed after every interruption.

`pooch`, which comes with librosa, cannot do it: its HTTP downloader writes any answer, a part or the whole file,
without a look at `Content-Range`, and `pooch.retrieve` deletes its temporary file when it is stopped, even while it
computes the digest, so that a stop loses up to 6 GB. This uses `requests`, as pooch itself does.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import requests

from esc_ensemble.errors import WorkError
from esc_ensemble.files import disk_errors
from esc_ensemble.progress import progress, say

MEGABYTE = 1_000_000
CHUNK_BYTES = 1 << 16  # what a broken connection may lose
TIMEOUT_SECONDS = 60.0
MAX_FAILURES = 5
WORTH_A_RETRY = (408, 425, 429, 500, 502, 503, 504)
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True)
class Transfer:
    """The address of a file, and where a copy downloaded by hand would be. Our own files are next to it."""

    url: str
    target: Path
    megabytes: int
    """Expected size, for the display where the server does not send it."""

    @property
    def whole(self) -> Path:
        """The complete file; another name than `target`, so that we delete no file that we did not make."""
        return self.target.with_name(self.target.name + ".whole")

    @property
    def part(self) -> Path:
        """The first bytes of the file, as far as they have arrived."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def validator(self) -> Path:
        """A text file with the server's name for the version that the part was taken from."""
        return self.target.with_name(self.target.name + ".part.version")


def download(transfer: Transfer, pause_seconds: float = 2.0) -> Path:
    """Download `transfer.url`, continuing the part that an earlier try has left, and return the complete file.

    The part is only continued where the server says that the file is still the same (`If-Range`, RFC 9110);
    a server that knows no ranges sends the whole file again. Five failures in a row without a new byte end it.

    Raises:
        WorkError: there is no such file, no connection, or no space on the disk.
    """
    failures = 0
    while not transfer.whole.is_file():
        before = _size(transfer.part)
        try:
            _attempt(transfer, before)
        except requests.RequestException as error:
            failures = 0 if _size(transfer.part) > before else failures + 1
            final = error.response is not None and error.response.status_code not in WORTH_A_RETRY
            if final or failures >= MAX_FAILURES:
                raise WorkError(
                    f"Could not fetch {transfer.url}: {_reason(error)}. Run the command again to go on where it "
                    f"stopped, or fetch that file by hand and put it at {transfer.target}."
                ) from error
            say(f"{_reason(error)}; trying again.")
            time.sleep(pause_seconds * 2**failures)
    return transfer.whole


def _attempt(transfer: Transfer, n_have: int) -> None:
    """Complete the part.

    Raises:
        requests.RequestException: it ended early.
    """
    version = transfer.validator.read_text(encoding="utf-8") if transfer.validator.is_file() else ""
    headers = {"User-Agent": "esc_ensemble", "Accept-Encoding": "identity"}
    if n_have and version:  # without a version the part may be of another file
        headers |= {"Range": f"bytes={n_have}-", "If-Range": version}
    with requests.get(transfer.url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        status = response.status_code
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        start, total = found.groups() if found else (None, None)
        if status in (412, 416) or (status == 206 and start != str(n_have)):
            if status != 416 or total != str(n_have):  # else it was stopped after the last byte
                transfer.part.unlink(missing_ok=True)
                raise requests.RequestException(f"the server did not go on after {n_have} bytes ({status})")
        else:
            response.raise_for_status()
            length = str(total if status == 206 else response.headers.get("Content-Length"))
            _receive(transfer, response, n_have if status == 206 else 0, int(length) if length.isdigit() else 0)
    with disk_errors(transfer.whole):
        transfer.part.replace(transfer.whole)
        transfer.validator.unlink(missing_ok=True)


def _receive(transfer: Transfer, response: requests.Response, n_have: int, n_total: int) -> None:
    shown = n_have // MEGABYTE
    n_shown_total = max(n_total // MEGABYTE, 1) if n_total else max(transfer.megabytes, shown)
    with (
        disk_errors(transfer.part),
        transfer.part.open("ab" if n_have else "wb") as file,
        progress(f"Fetching {transfer.target.name}", n_shown_total, unit="MB", done=shown) as advance,
    ):
        if not n_have:  # only now is there nothing left of the version before
            etag = response.headers.get("ETag", "")
            # A weak ETag promises the same meaning, not the same bytes, and must not stand in If-Range.
            strong = etag and not etag.startswith("W/")
            transfer.validator.write_text(etag if strong else response.headers.get("Last-Modified", ""), "utf-8")
        for chunk in response.iter_content(CHUNK_BYTES):
            file.write(chunk)
            n_have += len(chunk)
            if n_have // MEGABYTE > shown:
                advance(n_have // MEGABYTE - shown)
                shown = n_have // MEGABYTE
    if n_total and n_have < n_total:  # urllib3 before 2 reports no error when the other side hangs up
        raise requests.RequestException(f"the connection ended after {n_have} of {n_total} bytes")


def _reason(error: requests.RequestException) -> str:
    """Return the cause of a failure without the layers around it."""
    cause = error.args[0] if error.args else error
    lost = isinstance(error, requests.ConnectionError | requests.Timeout)
    return f"{'no connection: ' if lost else ''}{getattr(cause, 'reason', cause)}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
