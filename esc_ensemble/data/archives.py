"""Unpacking archives from the web: plain files inside the folder and nothing else.

`shutil.unpack_archive` with `filter="data"` is not enough: it changes paths that leave the folder instead of refusing
the archive, writes links, has no limits, and takes a tar cut between two files for whole.
"""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from esc_ensemble.errors import DataError

MAX_BYTES = 30_000_000_000
MAX_FILES = 100_000
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, NotImplementedError)


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to at most; the sets fetched here stay far below."""

    n_bytes: int = MAX_BYTES
    n_files: int = MAX_FILES


def unpack(packed: Path, folder: Path, limits: Limits | None = None) -> None:
    """Writes the files of a .zip or .tar.gz below `folder`.

    Contents are copied out one by one and never by the archive's word: no links or devices, no absolute
    path, no way up, no modes or owners, no file written twice, and no more than `limits` allow.

    Raises:
        DataError: the archive is damaged or holds any of these.
    """
    limits = limits or Limits()
    members = _zip_members if zipfile.is_zipfile(packed) else _tar_members
    n_bytes = n_files = 0
    try:
        for name, size, stream in members(packed):
            n_bytes, n_files = n_bytes + size, n_files + 1
            if n_bytes > limits.n_bytes or n_files > limits.n_files:
                raise DataError(
                    f"{packed} would unpack to more than {limits.n_bytes / 1e9:g} GB or {limits.n_files} "
                    "files. Do not use this archive."
                )
            place = folder.joinpath(*_safe_parts(packed, name))
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                raise DataError(f'{packed} holds "{name}" twice.')
            with stream, place.open("xb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
    except DAMAGED as error:
        raise DataError(f"{packed} is damaged ({error}).") from error


def _safe_parts(packed: Path, name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise DataError(f'{packed} holds "{name}", a path that leads out of its folder. Do not use this archive.')
    return parts


def _zip_members(packed: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    with zipfile.ZipFile(packed) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f'{packed} holds "{info.filename}", a link or device. Do not use this archive.')
            if info.flag_bits & 1:
                raise DataError(f'{packed} is encrypted ("{info.filename}").')
            if not info.is_dir():
                # ZipFile reads no more than `file_size` bytes, so a lying size cannot pass the limits.
                yield info.filename, info.file_size, archive.open(info)


def _tar_members(packed: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    # As a stream: one pass over gigabytes, not two.
    with gzip.open(packed) as unzipped, tarfile.open(fileobj=unzipped, mode="r|") as archive:
        for member in archive:
            if member.isdir():
                continue
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is None:
                raise DataError(f'{packed} holds "{member.name}", a link or device. Do not use this archive.')
            yield member.name, member.size, stream
        # A tar cut between two files looks whole; the end of the gzip around it tells.
        while unzipped.read(1 << 20):
            pass
