"""Folders that are seen whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esc_ensemble.files import disk_errors


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Gives an empty folder beside `target` that takes its place when the block ends well.

    What stood at `target` before is removed only then; a block that raises changes nothing.

    Raises:
        DiskError: the disk is full or the folder cannot be written.
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
            fresh.rename(target)
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
