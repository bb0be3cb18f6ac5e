from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import esc_ensemble
from tests.bare import make_site


@pytest.fixture
def clips(synthetic_dir: Path, tmp_path: Path) -> Path:
    """A folder with five clips."""
    for path in sorted((synthetic_dir / "audio").iterdir())[::20]:
        (tmp_path / "clips" / "deeper").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "clips" / "deeper" / path.name)
    return tmp_path / "clips"


@pytest.fixture(scope="session")
def infer_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install "esc_ensemble[infer]"` brings."""
    site = make_site(tmp_path_factory.mktemp("infer") / "site", "numpy", "soundfile", "soxr", "onnxruntime")
    (site / "esc_ensemble").symlink_to(Path(esc_ensemble.__file__).parent)
    return site
