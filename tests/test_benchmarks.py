"""Benchmarks follow the code that they time."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from esc_ensemble.config import TrainAProConfig
from esc_ensemble.settings import build

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_every_script_can_be_imported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    importlib.import_module(path.stem)


def test_the_training_step_is_the_trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    settings = {"model": {"scale": 1}, "train": {"batch_size": 2, "device": "cpu", "threads": 1}}
    config = build(TrainAProConfig, settings, "test")
    step = importlib.import_module("training_step").make_step(config, False, "fp32", False)
    assert step() > 0.0
