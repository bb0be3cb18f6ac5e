"""Data that several tests share."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from esc_ensemble.data.synthetic import make_synthetic

# Set before torch is loaded: threads that wait by spinning slow a busy machine down tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # tests run side by side: threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def synthetic_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic dataset of ten classes with ten clips each. Do not change it; copy it first."""
    return make_synthetic(tmp_path_factory.mktemp("synthetic") / "set", clips_per_class=10)


@pytest.fixture(scope="session")
def esc50_dir() -> Path:
    """The real ESC-50, whole and in its official layout."""
    folder = os.environ.get("ESC50_DIR")
    if not folder:
        pytest.skip("ESC50_DIR is not set: it names the folder of ESC-50, with audio/ and meta/esc50.csv")
    return Path(folder)


@pytest.fixture(scope="session")
def esc10_dir(esc50_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real ESC-10 in ESC-50's layout: its rows alone, and links to their audio. Do not change it; copy it first."""
    folder = tmp_path_factory.mktemp("esc10") / "ESC-10"
    for name in ("meta", "audio"):
        (folder / name).mkdir(parents=True)
    with (esc50_dir / "meta" / "esc50.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["esc10"].lower() == "true"]
    with (folder / "meta" / "esc50.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        (folder / "audio" / row["filename"]).symlink_to((esc50_dir / "audio" / row["filename"]).resolve())
    return folder


@pytest.fixture(scope="session")
def urbansound_dir() -> Path:
    """Folds 1 and 2 of the real UrbanSound8K, in its own layout."""
    folder = os.environ.get("URBANSOUND8K_DIR")
    if not folder:
        pytest.skip("URBANSOUND8K_DIR is not set: it names the folder of UrbanSound8K's first two folds")
    return Path(folder)


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Published weights of other networks, a folder each."""
    folder = os.environ.get("ESC_WEIGHTS_DIR")
    if not folder:
        pytest.skip("ESC_WEIGHTS_DIR is not set: it names the folder of published weights, such as efficientat-mn04")
    return Path(folder)


@pytest.fixture(scope="session")
def shared_cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keeps tests out of the user's cache."""
    monkeypatch.setenv("ESC_ENSEMBLE_CACHE", str(shared_cache_dir))
    yield


@dataclass(frozen=True)
class Made:
    """Two tiny runs of two folds, and their blend over time shifts."""

    root: Path
    runs: tuple[Path, Path]
    blend: Path


@pytest.fixture(scope="session")
def made(synthetic_dir: Path, shared_cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Do not change it; copy it first."""
    from esc_ensemble.blend.ensemble import blend_runs  # noqa: PLC0415 - tests of data and blend load no torch
    from esc_ensemble.config import BlendConfig  # noqa: PLC0415
    from esc_ensemble.data.catalog import load_catalog  # noqa: PLC0415
    from esc_ensemble.training.crossval import RunOptions, train_run  # noqa: PLC0415
    from tests.tiny import tiny_config  # noqa: PLC0415

    root = tmp_path_factory.mktemp("made")
    catalog = load_catalog(synthetic_dir)
    runs = (root / "runs" / "one", root / "runs" / "two")
    for seed, run in enumerate(runs):
        model = {"name": "spec_cnn_reference", "widths": [8]}  # the exporter takes its time over residual blocks
        config = tiny_config(seed=seed, model=model, train={"learning_rate": 0.02, "epochs": 3})
        train_run(run, config, catalog, RunOptions(folds=(1, 2), cache_dir=shared_cache_dir, n_workers=1))
    blend = root / "submissions" / "both"
    blend_runs(runs, BlendConfig(trials=10, bootstrap=20, tta=True, combiner="geometric"), blend)
    return Made(root, runs, blend)


@dataclass(frozen=True)
class Exported:
    """The blend of `made` as ONNX files."""

    onnx: Path
    """With the shifts inside, made by the command."""
    result: dict[str, Any]
    """What the command said about it."""
    no_tta: Path
    """The same models, temperatures and weights without shifts."""


@pytest.fixture(scope="session")
def exported(made: Made) -> Exported:
    from esc_ensemble.__main__ import main  # noqa: PLC0415 - tests of data and blend load no torch
    from esc_ensemble.export.pipeline import ExportOptions, export_blend  # noqa: PLC0415
    from esc_ensemble.export.source import read_source  # noqa: PLC0415

    folder = made.root / "exports"
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        code = main(["export", str(made.blend), "--exports", str(folder), "--check-clips", "20", "--json"])
    assert code == 0
    content = read_source(made.blend)
    unshifted = {"shifts": [0.0], "shift_weights": [1.0]}
    plain = content | {"tta": False, "members": [member | unshifted for member in content["members"]]}
    options = ExportOptions(check_clips=2, accuracy_clips=0)
    no_tta = export_blend(plain, made.blend, made.root / "plain.onnx", options).path
    return Exported(folder / "both.onnx", json.loads(stdout.getvalue())["files"][0], no_tta)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with empty caches whose network is closed."""
    from huggingface_hub import constants  # noqa: PLC0415 - tests of data and blend load no torch

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    return tmp_path
