"""The kernel as Kaggle runs it: another Python with little installed, no network, and an exported model or none."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from esc_ensemble.__main__ import main
from esc_ensemble.export.pipeline import ExportOptions, export_blend
from esc_ensemble.export.source import read_source
from esc_ensemble.infer import Classifier
from esc_ensemble.kaggle.build import make_kernel
from tests.bare import importable, make_site, run_bare
from tests.conftest import Exported, Made
from tests.kaggle.imitation import KERNEL, read_rows, write_sample

LITTLE = ("numpy", "pandas", "soundfile")
# What training needs of Kaggle's image; neither the command line's packages nor Optuna, ONNX and the rest.
TRAINING = (*LITTLE, "torch", "soxr", "accelerate", "pydantic", "pyyaml", "filelock", "safetensors", "scipy")
ASKED = ("numpy", "pandas", "soundfile", "onnxruntime", "torch", "soxr", "esc_ensemble", "cyclopts", "onnx", "optuna")


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("sites")
    wanted = {"onnxruntime": (*LITTLE, "onnxruntime"), "torch": (*LITTLE, "torch"), "training": TRAINING}
    return {name: make_site(top / name, *distributions) for name, distributions in wanted.items()}


@pytest.fixture
def kaggle(synthetic_dir: Path, tmp_path: Path) -> Path:
    """An imitation of /kaggle with a competition whose test clips are those of a synthetic set's fold 1."""
    test = tmp_path / "kaggle" / "input" / "competitions" / "sounds" / "test"
    test.mkdir(parents=True)
    clips = sorted((synthetic_dir / "audio").glob("1-*"))
    for clip in clips:
        shutil.copy(clip, test)
    rows = [[clip.stem, "rain"] for clip in reversed(clips)]
    write_sample(test.parent / "sample_submission.csv", ["clip", "sound"], rows)
    return tmp_path / "kaggle"


def flags(kaggle: Path, *more: object) -> list[str]:
    told = ["--input", kaggle / "input", "--output", kaggle / "working", "--strict", *more]
    return [str(each) for each in told]


def heard(kaggle: Path) -> dict[str, str]:
    rows = read_rows(kaggle / "working" / "submission.csv")
    assert rows[0] == ["clip", "sound"]
    sample = read_rows(kaggle / "input" / "competitions" / "sounds" / "sample_submission.csv")
    assert [row[0] for row in rows] == [row[0] for row in sample]
    return dict(rows[1:])


def expected(model: Path, kaggle: Path) -> dict[str, str]:
    """What `esc-ens infer` says, of those clips that it is not in two minds about."""
    clips = sorted((kaggle / "input" / "competitions" / "sounds" / "test").iterdir())
    sure = {}
    for each in Classifier(model).predict(clips):
        (best, p), (_, q) = each.top(2)
        if p - q > 0.01:
            sure[each.path.stem] = best
    assert len(sure) > len(clips) / 2
    return sure


def test_the_sites_hold_what_they_should_and_no_more(sites: dict[str, Path]) -> None:
    assert importable(sites["onnxruntime"], *ASKED) == [*LITTLE, "onnxruntime"]
    assert importable(sites["torch"], *ASKED) == [*LITTLE, "torch"]
    assert importable(sites["training"], *ASKED) == [*LITTLE, "torch", "soxr"]
    done = run_bare(sites["onnxruntime"], "-c", "import urllib.request as u; u.urlopen('https://example.org')")
    assert "refused" in done.stderr or "Name or service not known" in done.stderr


def test_with_onnxruntime_alone(sites: dict[str, Path], kaggle: Path, exported: Exported) -> None:
    weights = kaggle / "input" / "datasets" / "me" / "weights"
    weights.mkdir(parents=True)
    shutil.copy(exported.onnx, weights)
    done = run_bare(sites["onnxruntime"], KERNEL, *flags(kaggle))
    assert done.returncode == 0, done.stdout + done.stderr
    found, wanted = heard(kaggle), expected(exported.onnx, kaggle)
    assert {clip: found[clip] for clip in wanted} == wanted
    assert "onnxruntime" in done.stdout
    assert f"{len(found)} of {len(found)} rows predicted" in done.stdout


def test_with_torch_and_no_onnxruntime(sites: dict[str, Path], kaggle: Path, made: Made, exported: Exported) -> None:
    weights = kaggle / "input" / "weights" / "versions" / "2"
    weights.mkdir(parents=True)
    shutil.copy(exported.onnx, weights)  # is passed over
    options = ExportOptions(format="torchscript", check_clips=2, accuracy_clips=0)
    export_blend(read_source(made.blend), made.blend, weights / "both.torchscript.pt", options)
    done = run_bare(sites["torch"], KERNEL, *flags(kaggle))
    assert done.returncode == 0, done.stdout + done.stderr
    found, wanted = heard(kaggle), expected(exported.onnx, kaggle)
    assert {clip: found[clip] for clip in wanted} == wanted
    assert "onnxruntime cannot be imported" in done.stdout


def test_probabilities_are_those_of_infer(sites: dict[str, Path], kaggle: Path, exported: Exported) -> None:
    competition = kaggle / "input" / "competitions" / "sounds"
    shutil.copy(exported.onnx, competition)
    classifier = Classifier(exported.onnx)
    names = sorted(classifier.class_names)
    clips = sorted((competition / "test").iterdir())
    write_sample(competition / "sample_submission.csv", ["id", *names], [[clip.name, *[0.1] * 10] for clip in clips])
    done = run_bare(sites["onnxruntime"], KERNEL, *flags(kaggle))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_rows(kaggle / "working" / "submission.csv")
    assert rows[0] == ["id", *names]
    order = [classifier.class_names.index(name) for name in names]
    wanted = np.array([each.probabilities[order] for each in classifier.predict(clips)])
    # Clips are of 8 to 48 kHz, the model hears 8: what differs is how they are resampled.
    np.testing.assert_allclose(np.array(rows[1:])[:, 1:].astype(float), wanted, atol=1e-2)


def test_with_no_model_it_trains_within_the_budget(
    sites: dict[str, Path], kaggle: Path, synthetic_dir: Path, tmp_path: Path
) -> None:
    data = kaggle / "input" / "datasets" / "me" / "synthetic"
    (data / "meta").mkdir(parents=True)
    shutil.copytree(synthetic_dir / "audio", data / "audio")
    rows = read_rows(synthetic_dir / "meta" / "esc50.csv")
    fold = rows[0].index("fold")
    write_sample(data / "meta" / "esc50.csv", rows[0], [row for row in rows[1:] if row[fold] != "1"])
    bad = sorted((kaggle / "input" / "competitions" / "sounds" / "test").iterdir())[0]
    bad.write_bytes(b"no sound")
    built = tmp_path / "kernel.py"
    built.write_text(make_kernel({"TIME_BUDGET": 30.0}), encoding="utf-8")
    start = time.monotonic()
    done = run_bare(sites["training"], built, *flags(kaggle, "--train-data", "synthetic"))
    took = time.monotonic() - start
    assert done.returncode == 0, done.stdout + done.stderr
    assert took < 30.0 + 5.0  # the start of Python and of torch among it
    found = heard(kaggle)
    category, filename = rows[0].index("category"), rows[0].index("filename")
    truth = {Path(row[filename]).stem: row[category] for row in rows[1:] if row[fold] == "1"}
    assert {found[clip] for clip in found if clip != bad.stem} <= set(truth.values())
    right = [found[clip] == truth[clip] for clip in found]
    assert np.mean(right) > 0.3  # of ten classes
    assert found[bad.stem] == "rain"
    assert f"No prediction for {bad.stem}" in done.stdout
    assert "cannot be decoded" in done.stdout or "truncated" in done.stdout
    assert f"{len(found) - 1} of {len(found)} rows predicted" in done.stdout


def test_a_budget_too_short_to_train_leaves_a_valid_file(
    sites: dict[str, Path], kaggle: Path, synthetic_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(synthetic_dir, kaggle / "input" / "synthetic")
    built = tmp_path / "kernel.py"
    built.write_text(make_kernel({"TIME_BUDGET": 4.0}), encoding="utf-8")
    done = run_bare(sites["training"], built, *flags(kaggle, "--no-strict"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(heard(kaggle).values()) == {"rain"}
    assert "NO PREDICTION" in done.stdout


def test_the_command_builds_what_runs(sites: dict[str, Path], kaggle: Path, exported: Exported, tmp_path: Path) -> None:
    command = ["kaggle", "build", str(exported.onnx), "--user", "me", "--title", "Loud Sounds", "--licence", "other"]
    assert main([*command, "--out", str(tmp_path / "upload")]) == 0
    shutil.copytree(tmp_path / "upload" / "dataset", kaggle / "input" / "loud-sounds-model")
    done = run_bare(sites["onnxruntime"], tmp_path / "upload" / "kernel" / "kaggle_kernel.py", *flags(kaggle))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(set(heard(kaggle).values())) > 1


@pytest.mark.parametrize("needed", ["onnxruntime", "torch"])
def test_nothing_that_can_hear_leaves_the_samples_rows(
    sites: dict[str, Path], kaggle: Path, exported: Exported, needed: str, tmp_path: Path
) -> None:
    ending = {"onnxruntime": ".onnx", "torch": ".torchscript.pt"}[needed]
    shutil.copy(exported.onnx, kaggle / "input" / f"model{ending}")
    site = make_site(tmp_path / "site", "numpy", "soundfile")
    done = run_bare(site, KERNEL, *flags(kaggle, "--no-strict"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{needed} cannot be imported" in done.stdout
    assert set(heard(kaggle).values()) == {"rain"}
