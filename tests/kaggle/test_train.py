"""Training within a budget, with networks that take no time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esc_ensemble.config import TrainAConfig
from esc_ensemble.data.catalog import Catalog
from esc_ensemble.errors import ConfigError, DataError
from esc_ensemble.kaggle import train
from esc_ensemble.kaggle.budget import Clock, Recipe, TimeIsUp
from esc_ensemble.kaggle.train import Job, train_and_predict
from esc_ensemble.settings import merge
from esc_ensemble.training import crossval
from tests.kaggle.imitation import write_clips, write_sample
from tests.tiny import SETTINGS

TINY = Recipe(
    "tiny",
    TrainAConfig,
    most_epochs=2,
    fewest_steps=2,
    settings=merge(SETTINGS, {"model": {"name": "spec_cnn_reference", "widths": [8]}}),
)


@dataclass
class Heard:
    """What was handed on, and said."""

    found: list[dict[int, np.ndarray]] = field(default_factory=list)
    names: Sequence[str] = ()
    numbers: Sequence[int] = ()
    news: list[str] = field(default_factory=list)

    def better(self, found: dict[int, np.ndarray], names: Sequence[str], numbers: Sequence[int]) -> None:
        self.found.append(found)
        self.names, self.numbers = names, numbers


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "can_spawn", lambda: False)


def job(tmp_path: Path, data: Path, clips: Sequence[Path], **over: Any) -> Job:
    values: dict[str, Any] = {
        **{"inputs": (data,), "clips": dict(enumerate(clips)), "work": tmp_path / "work"},
        **{"scratch": tmp_path / "scratch", "first": (TINY,), "second": None, "device": "cpu"},
    }
    return Job(**{**values, **over})


@pytest.mark.usefixtures("in_this_process")
def test_each_part_makes_the_prediction_better(tmp_path: Path, synthetic_dir: Path) -> None:
    clips = sorted((synthetic_dir / "audio").iterdir())[:6]
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    heard = Heard()
    bad = train_and_predict(
        job(tmp_path, synthetic_dir, [*clips, tmp_path / "bad.wav"]), 200.0, heard.better, heard.news.append
    )
    assert set(bad) == {6}
    assert "scratch" not in bad[6]
    assert len(heard.found) == 6  # after each of five folds, and when the second seed has them all
    for found in heard.found:
        assert set(found) == set(range(6))
        np.testing.assert_allclose([row.sum() for row in found.values()], 1.0, atol=1e-4)
    assert len(heard.names) == len(heard.numbers) == 10
    assert (tmp_path / "work" / "submissions" / "blend" / "blend.json").exists()
    assert {path.name for path in (tmp_path / "work" / "runs").iterdir()} == {"tiny", "tiny-1"}
    assert any("tiny-1 of 5 folds" in line for line in heard.news)


@pytest.mark.usefixtures("in_this_process")
def test_folds_that_are_cut_off_are_taken_as_they_are(
    tmp_path: Path, synthetic_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = crossval._predict_fold

    def cut(*arguments: Any) -> Any:
        monkeypatch.setattr(crossval, "_predict_fold", whole)
        raise TimeIsUp

    monkeypatch.setattr(crossval, "_predict_fold", cut)
    clips = sorted((synthetic_dir / "audio").iterdir())[:2]
    heard = Heard()
    train_and_predict(job(tmp_path, synthetic_dir, clips), 200.0, heard.better, heard.news.append)
    assert len(heard.found) == 1
    assert any("cut off" in line for line in heard.news)
    assert any("Folds 1 are taken as they were, after 2 epochs" in line for line in heard.news)
    assert (tmp_path / "work" / "runs" / "tiny-cut" / "fold-1" / "logits.npz").exists()


@pytest.mark.usefixtures("in_this_process")
def test_too_little_time_is_said(tmp_path: Path, synthetic_dir: Path) -> None:
    heard = Heard()
    train_and_predict(job(tmp_path, synthetic_dir, []), 4.0, heard.better, heard.news.append)
    assert not heard.found
    assert any("too short" in line or "used up" in line for line in heard.news)


def test_data_that_cannot_be_used_is_passed_over(tmp_path: Path, synthetic_dir: Path) -> None:
    (tmp_path / "empty").mkdir()
    clips = [f"{label}-{n}.wav" for label in ("bark", "rain") for n in range(5)]
    write_clips(tmp_path / "table", clips)
    write_sample(tmp_path / "table" / "train.csv", ["filename", "label"], [[name, name[:4]] for name in clips])
    heard = Heard()
    both = job(tmp_path, tmp_path, [])  # the empty folder and the table
    session = train._Session(both, Clock.of(9.0), heard.better, heard.news.append)
    catalog = session._load()
    assert len(catalog.fold_numbers) == 5  # were made
    with pytest.raises(DataError, match="no table of clips"):
        train_and_predict(job(tmp_path, tmp_path / "empty", []), 9.0, heard.better, heard.news.append)


def test_data_flags_are_those_of_the_command() -> None:
    assert train.parse_data_flags("") == {}
    given = train.parse_data_flags("--folders classes --n-folds=4 --whole-labels --table 'my clips.csv'")
    assert given == {"folders": "classes", "n_folds": 4, "whole_labels": True, "table": "my clips.csv"}
    for wrong, reason in (
        ("--folder classes", "--folders"),
        ("--n-folds many", "needs a value"),
        ("--audio", "needs a"),
    ):
        with pytest.raises(ConfigError, match=reason):
            train.parse_data_flags(wrong)


def test_data_flags_decide_what_a_layout_means(tmp_path: Path) -> None:
    for label in ("train", "bus", "car"):
        write_clips(tmp_path / "data" / label, [f"{label}{n}x.wav" for n in range(5)])
    with pytest.raises(DataError, match="--folders classes"):
        load(job(tmp_path, tmp_path, []))
    assert load(job(tmp_path, tmp_path, [], data_flags="--folders classes")).class_names == ("bus", "car", "train")


def load(what: Job) -> Catalog:
    return train._Session(what, Clock.of(9.0), lambda *_: None, lambda _: None)._load()
