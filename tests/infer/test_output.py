from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from esc_ensemble.infer import Prediction, Window
from esc_ensemble.infer.output import to_json, write_predictions, write_timeline

PREDICTIONS = [
    Prediction(Path("ä, b.wav"), ("dog", 'say "hi"', "c"), np.array([0.2, 0.7, 0.1], dtype=np.float32), 5.0),
    Prediction(Path("c.wav"), ("dog", 'say "hi"', "c"), np.array([0.5, 0.25, 0.25], dtype=np.float32), 5.0),
]


def test_csv_holds_the_top_classes_and_every_probability(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", PREDICTIONS, k=2)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "file": "ä, b.wav",
        "top1": 'say "hi"',
        "top1_probability": "0.700000",
        "top2": "dog",
        "top2_probability": "0.200000",
        "dog": "0.200000",
        'say "hi"': "0.700000",
        "c": "0.100000",
    }
    assert len(rows) == 2


def test_json_holds_the_same(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.json", PREDICTIONS, k=1)
    found = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert found == [to_json(prediction, 1) for prediction in PREDICTIONS]
    assert found[0]["top"] == [{"class": 'say "hi"', "probability": 0.7}]


def test_more_top_classes_than_there_are_give_all(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", PREDICTIONS, k=50)
    header = (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "top3" in header
    assert "top4" not in header


def test_below_the_threshold_cells_are_empty(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", PREDICTIONS, k=2, threshold=0.4)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    named = [(row["top1"], row["top2"], row["top2_probability"]) for row in rows]
    assert named == [('say "hi"', "", ""), ("dog", "", "")]
    assert to_json(PREDICTIONS[0], 3, 0.9)["top"] == []


def test_a_timeline_has_a_row_a_window(tmp_path: Path) -> None:
    windows = (
        Window(0.0, 5.0, np.array([0.9, 0.1], dtype=np.float32)),
        Window(2.5, 7.5, np.array([0.3, 0.7], dtype=np.float32)),
    )
    heard = Prediction(Path("long.wav"), ("dog", "rain"), np.array([0.6, 0.4], dtype=np.float32), 7.5, windows)
    write_timeline(tmp_path / "t.csv", [heard], k=1, threshold=0.8)
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "file,start_seconds,end_seconds,top1,top1_probability,dog,rain",
        "long.wav,0.000,5.000,dog,0.900000,0.900000,0.100000",
        "long.wav,2.500,7.500,,,0.300000,0.700000",
    ]
    assert [window["start"] for window in to_json(heard, 1)["windows"]] == [0.0, 2.5]
