from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def clips(synthetic_dir: Path, tmp_path: Path) -> Path:
    """A folder with five clips."""
    for path in sorted((synthetic_dir / "audio").iterdir())[::20]:
        (tmp_path / "clips" / "deeper").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "clips" / "deeper" / path.name)
    return tmp_path / "clips"
