from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from esc_ensemble import quickstart
from esc_ensemble.__main__ import main
from esc_ensemble.config import BlendConfig, TrainAConfig
from esc_ensemble.data.catalog import load_catalog, thin_out
from esc_ensemble.settings import merge
from tests.tiny import SETTINGS


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models and one epoch."""
    shared = {name: group for name, group in SETTINGS.items() if name != "model"}
    monkeypatch.setattr(quickstart, "SETTINGS", merge(shared, {"frontend": {"n_mels": 40}}))
    monkeypatch.setitem(quickstart.MEMBERS, "a", (TrainAConfig, {"model": {"widths": [4]}}))
    monkeypatch.setattr(quickstart, "BlendConfig", lambda **values: BlendConfig(trials=5, bootstrap=20, **values))
    monkeypatch.setattr(quickstart, "FEWEST_EPOCHS", 1)
    monkeypatch.setattr(quickstart, "MOST_EPOCHS", 1)


def test_the_whole_way_leaves_every_file_that_it_names(
    small: None, synthetic_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quickstart", "--data", str(synthetic_dir), "--out", str(tmp_path / "q"), "--clips", "50", "--json"]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert all(Path(path).exists() for path in result["files"].values())
    assert {"uniform", "chosen", "tuned_cross_fitted"} <= set(result["scores"])
    with Path(result["files"]["its predictions"]).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 10  # one clip of each class in the first fold

    assert main(command) == 0
    captured = capsys.readouterr()
    assert captured.err.count("done already") == 10
    assert json.loads(captured.out)["scores"] == result["scores"]


def test_a_large_set_is_thinned_out_evenly(synthetic_dir: Path) -> None:
    catalog = load_catalog(synthetic_dir)
    fewer = thin_out(catalog, 50)
    assert Counter((clip.label, clip.fold) for clip in fewer.clips) == {
        (label, fold): 1 for label in range(10) for fold in range(1, 6)
    }
    assert thin_out(catalog, 100) is catalog


def test_no_clips_at_all_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["quickstart", "--clips", "0", "--out", str(tmp_path / "q")]) == 2
    assert "--clips" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()
