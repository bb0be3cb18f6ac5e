from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from esc_ensemble.errors import DataError, LogitsError, ModelFileError
from esc_ensemble.report import load
from esc_ensemble.report.evidence import Evidence
from esc_ensemble.report.recordings import find_recordings
from tests.conftest import Made
from tests.report.blends import blend_real, made_up, write_made_up


def test_a_run_is_a_blend_of_one(made: Made) -> None:
    evidence = load(made.runs[0])
    assert evidence.kind == "run"
    assert evidence.member_names == ("one",)
    assert evidence.member_probabilities.shape == (1, *evidence.probabilities.shape)
    np.testing.assert_allclose(evidence.probabilities.sum(axis=1), 1.0, rtol=1e-5)
    member = evidence.members[0]
    assert member.checkpoints == (1, 2) and not member.missing
    assert sorted(member.histories) == [1, 2]
    assert member.histories[1]["epoch"].tolist() == [1.0, 2.0, 3.0]
    assert [row["name"] for row in evidence.scores] == ["chosen"]


def test_a_blend_brings_what_its_runs_have_left(made: Made, tmp_path: Path) -> None:
    run = tmp_path / "two"
    shutil.copytree(made.runs[1], run)
    for name in ("config.yaml", "fold-1/model.safetensors", "fold-1/history.csv", "fold-2/history.csv"):
        (run / name).unlink()
    (run / "manifest.json").write_text("not JSON")
    evidence = load(blend_real(tmp_path / "mix", [made.runs[0], run]))
    first, second = evidence.members
    assert not first.missing
    assert second.checkpoints == (2,)
    assert [what.split()[0] for what in second.missing] == ["settings", "facts", "training"]
    assert evidence.strongest_with_models() is not None


def test_the_strongest_member_is_the_one_with_models(made: Made, tmp_path: Path, evidence: Evidence) -> None:
    assert evidence.strongest_with_models() is None
    blend = blend_real(tmp_path / "mix", made.runs)
    content = json.loads((blend / "blend.json").read_text())
    hits = [row["metrics"]["top1"] for row in content["scores"] if row["name"].startswith("member:")]
    strongest = load(blend).strongest_with_models()
    assert strongest is not None and strongest.name == ("one", "two")[int(np.argmax(hits))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 1}, "has schema 1"),
        ({"scores": []}, "lacks scores"),
        ({"members": [{"run": "a", "path": "a"}]}, "is damaged: members need a path"),
        ({"scores": [{"name": "chosen", "title": "", "metrics": {"top1": 1.0}}]}, "lacks top3 of the metrics"),
        ({"combiner": "odd"}, "is damaged: members need"),
        ({"comparisons": 5}, "comparisons must be a list"),
    ],
)
def test_a_damaged_blend_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = write_made_up(tmp_path / "mix", **made_up())
    path = folder / "blend.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelFileError, match=message):
        load(folder)


def test_text_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blend.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"blend\.json cannot be read"):
        load(tmp_path)


def test_a_blend_without_predictions_says_how_to_make_them(tmp_path: Path) -> None:
    folder = write_made_up(tmp_path / "mix", **made_up())
    (folder / "oof.npz").unlink()
    with pytest.raises(LogitsError, match=r"oof\.npz does not exist.*esc-ens blend RUN \.\.\. --out mix"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("labels", np.full(60, -1), "no clip has a label"),
        ("labels", np.full(60, 4), "beyond the 4 classes"),
        ("labels", np.zeros(59, dtype=np.int64), r"labels has shape \(59,\)"),
        ("probabilities", np.full((60, 4), np.nan), "probabilities are not finite"),
        ("sources", None, "sources is missing"),
    ],
)
def test_damaged_predictions_are_refused(tmp_path: Path, name: str, value: np.ndarray | None, message: str) -> None:
    folder = write_made_up(tmp_path / "mix", **made_up())
    with np.load(folder / "oof.npz") as archive:
        arrays = dict(archive)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    np.savez(folder / "oof.npz", **arrays)
    with pytest.raises(LogitsError, match=message):
        load(folder)


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="neither a blend"):
        load(tmp_path)


def test_recordings_are_found_where_the_manifest_says(made: Made, synthetic_dir: Path) -> None:
    evidence = load(made.runs[0])
    found = find_recordings(evidence)
    assert not found.problem and len(found.paths) == len(evidence.clip_ids)
    assert all(path.is_relative_to(synthetic_dir) for path in found.paths.values())


def test_recordings_elsewhere_are_found_by_name(made: Made, synthetic_dir: Path, tmp_path: Path) -> None:
    evidence = load(made.runs[0])
    clip_id = str(evidence.clip_ids[0])
    (tmp_path / "deep").mkdir()
    shutil.copy(find_recordings(evidence).paths[clip_id], tmp_path / "deep" / clip_id)
    found = find_recordings(evidence, tmp_path)
    assert list(found.paths) == [clip_id]
    assert f"{len(evidence.clip_ids) - 1} of the {len(evidence.clip_ids)} clips" in found.problem


def test_audio_that_is_nowhere_is_told(evidence: Evidence, tmp_path: Path) -> None:
    assert "--data DIR" in find_recordings(evidence).problem
    with pytest.raises(DataError, match="holds none of the 60 clips"):
        find_recordings(evidence, tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        find_recordings(evidence, tmp_path / "no")


def test_importing_the_report_loads_nothing_heavy() -> None:
    code = (
        "import sys, esc_ensemble.report; "
        "print(sorted({'torch', 'plotly', 'sklearn', 'matplotlib', 'PIL', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
