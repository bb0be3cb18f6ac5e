from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from esc_ensemble.blend.costs import read_cost
from esc_ensemble.cost import measure_cost, measure_costs
from esc_ensemble.errors import LogitsError, ModelFileError
from esc_ensemble.models.checkpoint import load_checkpoint, save_checkpoint
from esc_ensemble.models.registry import build_model
from tests.conftest import Made
from tests.tiny import tiny_spec


def test_size_is_that_of_the_weights_and_time_is_there(made: Made) -> None:
    threads = torch.get_num_threads()
    cost = measure_cost(made.runs[0])
    models = [load_checkpoint(folder)[0] for folder in sorted(made.runs[0].glob("fold-*"))]
    assert len(models) == 2
    learned = sum(p.numel() * p.element_size() for model in models for p in model.parameters())
    everything = sum(t.numel() * t.element_size() for model in models for t in model.state_dict().values())
    assert learned <= 1e6 * cost.megabytes <= everything
    assert 0.0 < cost.ms < 10_000.0
    assert torch.get_num_threads() == threads


def test_what_fold_models_share_counts_once(tmp_path: Path) -> None:
    spec = tiny_spec()
    model = build_model(spec)
    for fold in (1, 2):
        save_checkpoint(tmp_path / "run" / f"fold-{fold}", model, spec, fold=fold, run="run")
    save_checkpoint(tmp_path / "single" / "fold-1", model, spec, fold=1, run="single")
    shared, single = measure_cost(tmp_path / "run"), measure_cost(tmp_path / "single")
    assert shared.megabytes == single.megabytes


def test_measured_once_and_kept(made: Made, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made.runs[0], tmp_path / "one"))
    measure_costs([run])
    first = read_cost(run)
    assert first is not None
    (run / "cost.json").write_text(json.dumps({"ms": 7.0, "megabytes": 1.0}))
    measure_costs([run])  # a user's own figure stays
    assert read_cost(run).ms == 7.0  # type: ignore[union-attr]


def test_a_run_without_models_asks_for_its_cost(tmp_path: Path) -> None:
    (tmp_path / "mfcc" / "fold-1").mkdir(parents=True)
    with pytest.raises(LogitsError, match=r"(?s)mfcc.*cost\.json.*\"ms\""):
        measure_costs([tmp_path / "mfcc"])
    with pytest.raises(ModelFileError, match="holds no fold"):
        measure_cost(tmp_path)
    measure_costs([tmp_path / "absent"])  # which the blender names
