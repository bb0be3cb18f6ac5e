"""Folders that are seen whole or not at all."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esc_ensemble.errors import WorkError
from esc_ensemble.files import disk_errors


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Gives an empty folder beside `target` that takes its place when the block ends well.

    What stood at `target` before is removed only then; a block that raises changes nothing.

    Raises:
        DiskError: the disk is full or the folder cannot be written.
        WorkError: another process made the same folder meanwhile.
    """
    aside: Path | None = None
    try:
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".part", dir=target.parent))
            fresh, old = aside / "new", aside / "old"
            fresh.mkdir()
            yield fresh
            if target.exists():
                target.rename(old)
            _take_place(fresh, target, old)
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _take_place(fresh: Path, target: Path, old: Path) -> None:
    try:
        fresh.rename(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.rename(target)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise WorkError(f"Another process made {target} meanwhile, which was left as it is.") from error
        raise
