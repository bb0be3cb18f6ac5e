"""Data that several tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from esc_ensemble.data.synthetic import make_synthetic

# Set before torch is loaded: threads that wait by spinning slow a busy machine down tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def synthetic_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic dataset of ten classes with ten clips each. Do not change it; copy it first."""
    return make_synthetic(tmp_path_factory.mktemp("synthetic") / "set", clips_per_class=10)


@pytest.fixture(scope="session")
def esc10_dir() -> Path:
    """The real ESC-10, in ESC-50's layout."""
    folder = os.environ.get("ESC10_DIR")
    if not folder:
        pytest.skip("ESC10_DIR is not set: it names the folder of ESC-10 in ESC-50's layout")
    return Path(folder)


@pytest.fixture(scope="session")
def shared_cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keeps tests out of the user's cache."""
    monkeypatch.setenv("ESC_ENSEMBLE_CACHE", str(shared_cache_dir))
    yield
