"""Folders of the user that may be missing: the home folder, the cache in it, the folder for temporary files."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from esc_ensemble.errors import DiskError


def expand_home(path: str | Path) -> Path:
    """Replace a leading ~ or ~user like a shell: where that home folder is unknown, the path stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises there


def temporary_root() -> Path:
    """Return the folder for temporary files.

    Raises:
        DiskError: there is none that can be written to.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise DiskError(NO_TEMPORARY_FOLDER) from error


NO_TEMPORARY_FOLDER = "No folder for temporary files can be written to. Set TMPDIR to a folder that can."


def user_cache_dir() -> Path | None:
    """Return $XDG_CACHE_HOME, else ~/.cache, or None where that is unknown or cannot be written to."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    folder = Path(chosen) if chosen else expand_home("~") / ".cache"
    return folder if (chosen or folder.is_absolute()) and can_write(folder) else None


def can_write(folder: Path) -> bool:
    """Whether files can be made in a folder, which itself need not exist yet."""
    absolute = folder.absolute()
    try:
        there = next(each for each in (absolute, *absolute.parents) if each.exists())
        return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError:  # a folder on the way to it may not be looked into
        return False


def spare_home() -> Path:
    """Return a folder, in that for temporary files, that replaces a home folder. It belongs to this user alone.

    Raises:
        DiskError: it cannot be made, or belongs to someone else.
    """
    folder = _spare_path()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise DiskError(f"Cannot write {folder}: {error.strerror}. Set TMPDIR to a folder you can write to.") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != _user_id() or not can_write(folder):
        raise DiskError(f"{folder} is not a folder of this user. Set TMPDIR to a folder you can write to.")
    return folder


def is_spare(path: Path) -> bool:
    """Whether a path is in the spare home folder, whose files may be gone after the next start of the machine."""
    try:
        return path.is_relative_to(_spare_path())
    except DiskError:
        return False


def provide_caches() -> None:
    """Direct libraries (matplotlib, numba, huggingface_hub ...) to a spare folder where they have no place for a cache.

    That is: no home folder, as in a container whose user has no name, or one that cannot be written to. What the
    environment configures and can be written to is not changed.
    """
    with suppress(DiskError):  # whoever needs a cache reports that there is none
        if not expand_home("~").is_absolute():
            os.environ["HOME"] = str(spare_home())
        if user_cache_dir() is None:
            os.environ["XDG_CACHE_HOME"] = str(spare_home() / ".cache")
            os.environ.setdefault("MPLCONFIGDIR", str(spare_home() / ".cache" / "matplotlib"))
    # Some libraries (torch) name folders after the user.
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")) and not _has_name():
        os.environ["LOGNAME"] = f"user-{_user_id()}"


def _spare_path() -> Path:
    return temporary_root() / f"esc_ensemble-{_user_id()}"


def _user_id() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _has_name() -> bool:
    try:
        import pwd  # noqa: PLC0415 - not on Windows

        pwd.getpwuid(_user_id())
    except (ImportError, KeyError):
        return False
    return True
