"""Blends to report on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from esc_ensemble.report import Evidence, load
from tests.conftest import Made
from tests.report.blends import blend_real, made_up, write_made_up


@dataclass(frozen=True)
class Reported:
    """A page about the blend of two tiny runs, with audio."""

    blend: Path
    page: Path
    n_clips: int


@pytest.fixture(scope="session")
def reported(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """Do not change it; copy it first."""
    from esc_ensemble.report import write_report  # noqa: PLC0415

    folder = blend_real(tmp_path_factory.mktemp("reported") / "mix", made.runs, warnings=["Folds differ much."])
    written = write_report(load(folder), n_clips=12)
    return Reported(folder, written.path, written.n_clips)


@pytest.fixture(scope="session")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Two members whose runs are gone: 60 clips, 4 classes, 3 folds."""
    return load(write_made_up(tmp_path_factory.mktemp("evidence") / "mix", **made_up()))
