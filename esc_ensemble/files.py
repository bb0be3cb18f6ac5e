"""Writes that are seen whole or not at all, and the lock that keeps two runs out of one folder."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from esc_ensemble.errors import DiskError, WorkError
from esc_ensemble.home import temporary_root
from esc_ensemble.progress import say


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what a disk may answer to writing `path` into a message.

    Raises:
        DiskError: the disk is full or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskError(
                f"No space left to write {path}. Free some space and run the same command again."
            ) from error
        if error.errno in (
            errno.EACCES,
            errno.EROFS,
            errno.EPERM,
            errno.ENOTDIR,
            errno.EISDIR,
            errno.EEXIST,
            errno.ENOENT,
        ):
            raise DiskError(f"Cannot write {path}: {error.strerror}. Choose a folder you can write to.") from error
        raise


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for temporary files and remove it with all that is in it.

    Raises:
        DiskError: there is nowhere to make it.
    """
    root = temporary_root()
    with disk_errors(root):
        folder = tempfile.TemporaryDirectory(dir=root)
    with folder as name:
        yield Path(name)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder, renamed to `path` when the block ends well.

    A reader sees the old file or the new one, never half of one; a block that raises leaves nothing behind.

    Raises:
        DiskError: the disk is full or the folder cannot be written.
    """
    temporary: Path | None = None
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=f".part{path.suffix}", dir=path.parent)
            os.close(handle)
            temporary = Path(name)
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Says before any work whether a file can be written.

    Raises:
        DiskError: it is a folder, or its folder can be neither made nor written to.
    """
    if path.is_dir():
        raise DiskError(f"Cannot write {path}: it is a folder. Name a file.")
    there = next(folder for folder in (path.absolute().parent, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise DiskError(f"Cannot write {path}: {there} is a file, not a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise DiskError(f"Cannot write {path}: {there} may not be written to. Choose a folder you can write to.")


def write_text(path: Path, text: str) -> None:
    """Writes `text` atomically as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` atomically as indented JSON. NaN and infinity are refused: they are not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def folder_lock(folder: Path, advice: str = "or choose another name (--run, --out)") -> Iterator[None]:
    """Holds `folder` for this process; the lock goes when the process does, however it ends.

    Args:
        folder: what is written to; made where it is not there.
        advice: what else one can do than wait.

    Raises:
        WorkError: another process holds it.
        DiskError: it cannot be made or written.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - only writers of runs need it

    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise WorkError(f"Another process is writing to {folder}. Wait for it to end, {advice}.") from error
    except OSError as error:
        raise DiskError(f"Cannot write {folder}: {error.strerror}. Choose a folder you can write to.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def cache_lock(path: Path) -> Iterator[None]:
    """Lets one process at a time look for, and if need be write, the cache at `path`; others wait.

    Raises:
        DiskError: the cache folder cannot be written.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - only writers of caches need it

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=1)  # folds that only look take their turns without a word
        except Timeout:
            say(f"Another process is writing {path}; waiting for it.")
            lock.acquire()
    except OSError as error:
        raise DiskError(
            f"Cannot write to the cache folder {path.parent}: {error.strerror or error}. "
            "Set ESC_ENSEMBLE_CACHE to a folder you can write to."
        ) from error
    try:
        yield
    finally:
        lock.release()
