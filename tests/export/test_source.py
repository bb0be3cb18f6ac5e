from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from esc_ensemble.errors import DataError, LogitsError, ModelFileError
from esc_ensemble.export.parts import load_parts
from esc_ensemble.export.source import find_clips, read_source
from tests.conftest import Made


@pytest.mark.parametrize("tta", [False, True])
def test_a_run_is_a_blend_of_one(made: Made, tta: bool) -> None:
    run = made.runs[0]
    content = read_source(run, tta=tta)
    assert content["name"] == run.name
    assert content["tta"] == tta
    (member,) = content["members"]
    assert member["weight"] == 1.0
    assert member["shifts"] == ([-0.1, 0.0, 0.1] if tta else [0.0])
    assert len(load_parts(content, run)) == 2


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_folder_that_is_neither_blend_nor_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match=f"{name} is neither a blend .* nor a run"):
        read_source(tmp_path / name)


def test_a_run_with_damaged_logits_says_so(made: Made, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made.runs[0], tmp_path / "one"))
    (run / "fold-1" / "logits.npz").write_bytes(b"no")
    with pytest.raises(LogitsError, match=r"fold-1.logits\.npz"):
        read_source(run)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be read"),
        ("[]", "another version"),
        ('{"schema": 1}', "another version"),
        ('{"schema": 2, "name": "x"}', "lacks members, combiner"),
    ],
)
def test_a_damaged_blend_json_is_refused_by_name(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "blend.json").write_text(text)
    with pytest.raises(ModelFileError, match=rf"blend\.json.*{reason}"):
        read_source(tmp_path)


def test_an_older_blend_json_was_fitted_on_other_folds(made: Made, tmp_path: Path) -> None:
    content = json.loads((made.blend / "blend.json").read_text(encoding="utf-8"))
    assert content.pop("fitted_on") == "other folds"
    (tmp_path / "blend.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_source(tmp_path, needs_models=False)["fitted_on"] == "other folds"


def test_clips_to_compare_on_come_from_the_training_data_and_are_spread(made: Made, synthetic_dir: Path) -> None:
    clips = find_clips(read_source(made.blend), made.blend, None, 10)
    assert len(clips) == 10
    assert {clip.parent.resolve() for clip in clips} == {(synthetic_dir / "audio").resolve()}
    assert len(set(clips)) == 10
    assert len({clip.stem.split("-")[-1] for clip in clips}) >= 6  # classes: ESC-50's names end with their numbers


def test_clips_may_come_from_a_folder_that_is_named(made: Made, synthetic_dir: Path, tmp_path: Path) -> None:
    first = min((synthetic_dir / "audio").iterdir())
    shutil.copy(first, tmp_path / first.name)
    assert find_clips(read_source(made.blend), made.blend, tmp_path, 10) == [tmp_path / first.name]


def test_training_data_that_is_gone_asks_for_data(made: Made, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made.runs[0], tmp_path / "one"))
    path = run / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"clip_paths": [str(tmp_path / "gone")]}))
    with pytest.raises(DataError, match=r"gone.*\n?.*--data DIR"):
        find_clips(read_source(run), run, None, 4)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_manifest_asks_for_data(made: Made, tmp_path: Path, text: str) -> None:
    run = Path(shutil.copytree(made.runs[0], tmp_path / "one"))
    (run / "manifest.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"manifest\.json.*--data DIR"):
        find_clips(read_source(run), run, None, 4)
