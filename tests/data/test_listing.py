from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from esc_ensemble.__main__ import main
from esc_ensemble.data.catalog import load_catalog, thin_out
from esc_ensemble.data.listing import COLUMNS, describe_folds, write_folds
from tests.conftest import Made


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_clip_has_its_row(synthetic_dir: Path, tmp_path: Path) -> None:
    catalog = load_catalog(synthetic_dir)
    write_folds(tmp_path / "folds.csv", catalog)
    rows = rows_of(tmp_path / "folds.csv")
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(catalog.clips)
    for row, clip in zip(rows, catalog.clips, strict=True):
        assert (row["clip_id"], int(row["label"]), int(row["fold"])) == (clip.clip_id, clip.label, clip.fold)
        assert (row["class"], row["source"]) == (catalog.class_names[clip.label], clip.source)
        assert Path(row["path"]).is_absolute() and Path(row["path"]).samefile(clip.path)


def test_names_with_commas_and_unknown_classes_come_back(synthetic_dir: Path, tmp_path: Path) -> None:
    catalog = load_catalog(synthetic_dir)
    odd = replace(catalog.clips[0], source='a "b", c\nd é', label=-1)
    write_folds(tmp_path / "folds.csv", replace(catalog, clips=(odd, *catalog.clips[1:])))
    first = rows_of(tmp_path / "folds.csv")[0]
    assert (first["source"], first["label"], first["class"]) == (odd.source, "-1", "")


@pytest.mark.parametrize("way", ["by place", "by name"])
def test_the_command_tells_what_a_trained_run_says(
    made: Made, synthetic_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    data = [str(synthetic_dir)] if way == "by place" else ["--data", str(synthetic_dir)]
    out = tmp_path / "new" / "folds.csv"
    assert main(["data", "folds", *data, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    manifest = json.loads((made.runs[0] / "manifest.json").read_text())
    assert told["dataset_fingerprint"] == manifest["dataset_fingerprint"]
    assert told["n_clips"] == manifest["n_clips"] == len(rows_of(out))
    assert told["class_names"] == list(load_catalog(synthetic_dir).class_names)
    assert told["folds"] == [1, 2, 3, 4, 5]


def test_limit_takes_the_clips_that_trainers_take(
    synthetic_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "folds.csv"
    assert main(["data", "folds", str(synthetic_dir), "--out", str(out), "--limit", "50"]) == 0
    fewer = thin_out(load_catalog(synthetic_dir), 50)
    assert [row["clip_id"] for row in rows_of(out)] == [clip.clip_id for clip in fewer.clips]
    assert describe_folds(fewer)["dataset_fingerprint"] in capsys.readouterr().out


def test_no_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "folds", str(tmp_path / "nowhere"), "--out", str(tmp_path / "folds.csv")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "folds.csv").exists()
