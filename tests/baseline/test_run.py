from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from esc_ensemble.__main__ import INTERRUPTED, main
from esc_ensemble.baseline import run as baseline_run
from esc_ensemble.baseline.mfcc import cache_statistics
from esc_ensemble.baseline.run import fit_run
from esc_ensemble.config import BaselineConfig, DataConfig
from esc_ensemble.data.cache import build_cache
from esc_ensemble.data.catalog import Catalog, load_catalog, subset
from esc_ensemble.data.splits import split_fold
from esc_ensemble.data.synthetic import make_synthetic
from esc_ensemble.errors import ConfigError, DataError, WorkError
from esc_ensemble.export.source import read_source
from esc_ensemble.files import folder_lock
from esc_ensemble.logits import read_logits, read_run
from esc_ensemble.metrics import log_softmax, score, softmax
from esc_ensemble.settings import build, merge, read_yaml, to_yaml
from tests.conftest import Made

Capture = pytest.CaptureFixture[str]
TINY: dict[str, Any] = {
    "shift_seconds": [-0.1, 0.0, 0.1],
    "data": {"sample_rate": 8000, "clip_seconds": 1.0},
    "frontend": {"n_fft": 512, "hop": 256, "n_mels": 40},
}


def tiny(**over: Any) -> BaselineConfig:
    return build(BaselineConfig, merge(TINY, over), "tiny")


@pytest.fixture(scope="module")
def catalog(synthetic_dir: Path) -> Catalog:
    return load_catalog(synthetic_dir)


@pytest.fixture(scope="module")
def done(catalog: Catalog, shared_cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run. Do not change it; copy it first."""
    run = tmp_path_factory.mktemp("baseline") / "runs" / "mfcc"
    fit_run(run, tiny(), catalog, cache_dir=shared_cache_dir)
    return run


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "mfcc"))


def refused(capsys: Capture, *arguments: object) -> str:
    """The one message of a command that must fail for its input."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


# --- what a run holds


def test_every_fold_is_scikit_learn_s_pipeline_on_the_other_folds(done: Path, catalog: Catalog) -> None:
    cache, _ = build_cache(catalog, tiny().data)
    statistics = np.stack(list(cache_statistics(cache, np.arange(100), (-0.1, 0.0, 0.1), tiny().frontend)), axis=1)
    for fold in catalog.fold_numbers:
        found = read_logits(done / f"fold-{fold}" / "logits.npz")
        test = catalog.folds == fold
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        pipeline.fit(statistics[1, ~test], catalog.labels[~test])
        np.testing.assert_array_equal(found.test.clip_ids, catalog.clip_ids[test])
        np.testing.assert_array_equal(found.test.labels, catalog.labels[test])
        np.testing.assert_array_equal(found.test.sources, catalog.sources[test])
        for place in range(3):
            expected = pipeline.predict_log_proba(statistics[place, test])
            np.testing.assert_allclose(log_softmax(found.test.logits[place]), expected, atol=1e-4)
        assert len(found.selection.clip_ids) == 0


def test_a_run_holds_what_other_runs_hold(done: Path, made: Made, catalog: Catalog) -> None:
    manifest, of_a = (json.loads((run / "manifest.json").read_text()) for run in (done, made.runs[0]))
    assert manifest["dataset_fingerprint"] == of_a["dataset_fingerprint"] == catalog.fingerprint
    assert manifest["clip_paths"] == of_a["clip_paths"]
    assert set(of_a) - set(manifest) <= {"precision", "threads", "processes"}
    assert manifest["packages"].keys() >= {"librosa", "scikit-learn"}
    assert build(BaselineConfig, read_yaml(done / "config.yaml"), "it") == tiny()
    whole = read_run(done)
    assert sorted(whole.clip_ids) == sorted(catalog.clip_ids)
    assert whole.folds[0].config_hash == manifest["config_hash"]


def test_metrics_are_the_scores_of_the_unshifted_logits(done: Path) -> None:
    metrics = json.loads((done / "metrics.json").read_text())
    assert list(metrics["folds"]) == ["1", "2", "3", "4", "5"]
    top1 = []
    for fold, scores in metrics["folds"].items():
        test = read_logits(done / f"fold-{fold}" / "logits.npz").test
        assert {name: scores[name] for name in score(softmax(test.logits[1]), test.labels)} == pytest.approx(
            score(softmax(test.logits[1]), test.labels)
        )
        top1.append(scores["top1"])
    assert metrics["mean"]["top1"] == pytest.approx(np.mean(top1)) and np.mean(top1) > 0.5
    assert metrics["std"]["top1"] == pytest.approx(np.std(top1, ddof=1))
    assert metrics["protocol"] == "settings fixed beforehand"


def test_the_majority_knows_the_training_folds_shares_alone(catalog: Catalog, tmp_path: Path) -> None:
    # Fold 1 holds a clip of the first class less: fold 1's own prediction alone must not notice.
    drop = [n for n, clip in enumerate(catalog.clips) if clip.label == 0 and clip.fold == 1][:1]
    fewer = subset(catalog, [n for n in range(len(catalog.clips)) if n not in drop], [])
    fit_run(tmp_path / "majority", tiny(model={"name": "majority"}), fewer)
    for fold in read_run(tmp_path / "majority").folds:
        labels = fewer.labels[fewer.folds != fold.fold]
        expected = np.array([(labels == label).mean() for label in range(10)])
        np.testing.assert_allclose(np.exp(fold.test.logits), np.broadcast_to(expected, fold.test.logits.shape), 1e-5)
        assert np.allclose(expected, 0.1) == (fold.fold == 1)
        assert fold.test.logits.shape[0] == 3


def test_the_test_fold_changes_nothing_in_its_model(tmp_path: Path) -> None:
    data = make_synthetic(tmp_path / "set", clips_per_class=5)
    before = load_catalog(data)
    fit_run(tmp_path / "before", tiny(), before, folds=(1, 2), cache_dir=tmp_path / "cache")
    changed = next(clip for clip in before.clips if clip.fold == 1)
    rng = np.random.default_rng(0)
    samples, rate = soundfile.read(changed.path)
    soundfile.write(changed.path, rng.uniform(-1, 1, len(samples)), rate)
    fit_run(tmp_path / "after", tiny(), load_catalog(data), folds=(1, 2), cache_dir=tmp_path / "cache")

    def logits(name: str, fold: int) -> np.ndarray:
        return read_logits(tmp_path / name / f"fold-{fold}" / "logits.npz").test.logits

    place = [clip.clip_id for clip in before.clips if clip.fold == 1].index(changed.clip_id)
    same = (logits("before", 1) == logits("after", 1)).all(axis=(0, 2))
    assert same.tolist() == [n != place for n in range(len(same))]  # the other clips' logits: bit for bit
    assert not np.array_equal(logits("before", 2), logits("after", 2))  # where it is a training clip it counts


def test_a_selection_split_is_neither_trained_on_nor_left_out(catalog: Catalog, tmp_path: Path) -> None:
    config = tiny(data={"selection_fraction": 0.25})
    metrics = fit_run(tmp_path / "run", config, catalog, folds=(3,))
    found = read_logits(tmp_path / "run" / "fold-3" / "logits.npz")
    split = split_fold(catalog, 3, DataConfig(selection_fraction=0.25), 0)
    assert len(split.selection) > 0
    np.testing.assert_array_equal(found.selection.clip_ids, catalog.clip_ids[split.selection])
    np.testing.assert_array_equal(found.selection.sources, catalog.sources[split.selection])
    assert metrics["protocol"] == "selection split"
    expected = score(softmax(found.selection.logits[1]), found.selection.labels)
    for name in ("top1", "log_loss"):
        assert metrics["folds"]["3"][f"selection_{name}"] == pytest.approx(expected[name])
    cache, _ = build_cache(catalog, config.data)
    centre = np.stack([one[0] for one in cache_statistics(cache, np.arange(100), (0.0,), config.frontend)])
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    pipeline.fit(centre[split.train], catalog.labels[split.train])
    for part, index in ((found.test, split.test), (found.selection, split.selection)):
        np.testing.assert_allclose(log_softmax(part.logits[1]), pipeline.predict_log_proba(centre[index]), atol=1e-4)


def test_mfccs_are_computed_once_and_not_where_they_are_not_needed(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[int, int]] = []

    def counted(cache: Any, index: np.ndarray, shifts: Any, *rest: Any, **more: Any) -> Any:
        heard.append((len(index), len(shifts)))
        return cache_statistics(cache, index, shifts, *rest, **more)

    monkeypatch.setattr(baseline_run, "cache_statistics", counted)
    fit_run(tmp_path / "all", tiny(), catalog)
    assert sum(n_clips * n_shifts for n_clips, n_shifts in heard) == 100 * 3
    heard.clear()
    fit_run(tmp_path / "one", tiny(), catalog, folds=(2,))
    assert sum(n_clips * n_shifts for n_clips, n_shifts in heard) == 20 * 3 + 80
    first, whole = (tmp_path / name / "fold-2" / "logits.npz" for name in ("one", "all"))
    np.testing.assert_allclose(read_logits(first).test.logits, read_logits(whole).test.logits, rtol=1e-6)
    heard.clear()
    fit_run(tmp_path / "majority", tiny(model={"name": "majority"}), catalog)
    fit_run(tmp_path / "all", tiny(), catalog)
    assert heard == []


# --- going on, and refusals


def test_finished_folds_are_skipped_and_damaged_ones_made_again_to_the_same(
    run: Path, catalog: Catalog, capsys: Capture
) -> None:
    whole = (run / "fold-1" / "logits.npz").read_bytes()
    (run / "fold-1" / "logits.npz").write_bytes(whole[:-100])
    (run / "fold-2" / ".logits-abc.part.npz").write_bytes(b"left by a killed process")
    before = (run / "fold-2" / "logits.npz").stat().st_mtime_ns
    metrics = fit_run(run, tiny(), catalog)
    assert capsys.readouterr().err.count("done already") == 4
    assert (run / "fold-1" / "logits.npz").read_bytes() == whole
    assert (run / "fold-2" / "logits.npz").stat().st_mtime_ns == before
    assert [path.name for path in (run / "fold-2").iterdir()] == ["logits.npz"]
    assert len(metrics["folds"]) == 5


def test_folds_come_one_by_one_too(run: Path, catalog: Catalog, tmp_path: Path) -> None:
    assert list(fit_run(tmp_path / "new" / "mfcc", tiny(), catalog, folds=(4, 4))["folds"]) == ["4"]
    metrics = fit_run(tmp_path / "new" / "mfcc", tiny(), catalog, folds=(2,))
    assert list(metrics["folds"]) == ["2", "4"]
    for fold in (2, 4):
        path = Path(f"fold-{fold}") / "logits.npz"
        assert (tmp_path / "new" / "mfcc" / path).read_bytes() == (run / path).read_bytes()


def test_other_settings_data_or_trainers_are_refused(run: Path, made: Made, catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        fit_run(run, tiny(model={"c": 3.0}, frontend={"n_mfcc": 13}), catalog)
    assert "model.c: 1.0 there, 3.0 asked for" in str(caught.value)
    assert "frontend.n_mfcc: 20 there, 13 asked for" in str(caught.value)
    assert "--run" in str(caught.value)
    with pytest.raises(ConfigError, match="other data"):
        fit_run(run, tiny(), subset(catalog, range(1, 100), []))
    of_a = Path(shutil.copytree(made.runs[0], tmp_path / "a"))
    with pytest.raises(ConfigError, match="another trainer"):
        fit_run(of_a, tiny(), catalog)
    with folder_lock(run):
        pass  # it is free again


def test_a_trainer_refuses_a_baseline_s_run(run: Path, synthetic_dir: Path, capsys: Capture) -> None:
    where = ["--data", synthetic_dir, "--runs", run.parent, "--run", run.name, "--data.sample-rate", 8000]
    assert "another trainer" in refused(capsys, "train-a", *where, "--frontend.f-max", 4000, "--data.clip-seconds", 1)


def test_what_cannot_be_is_refused_before_anything_is_made(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no fold 9.*1, 2, 3, 4, 5"):
        fit_run(tmp_path / "new", tiny(), catalog, folds=(1, 9))
    for over, message in (
        ({"shift_seconds": [0.1]}, "must hold 0.0"),
        ({"data": {"window_seconds": 0.5}}, "window_seconds"),
        ({"frontend": {"n_fft": 16384}}, r"8000 samples .*n_fft 16384: set it to 2\.048 or more"),
        ({"frontend": {"n_mfcc": 41}}, "n_mfcc 41 must not be more than n_mels 40"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit_run(tmp_path / "new", BaselineConfig.model_validate(merge(TINY, over)), catalog)
    assert not (tmp_path / "new").exists()


def test_a_second_writer_is_refused(run: Path, catalog: Catalog) -> None:
    code = (
        "import sys, time; from pathlib import Path; from esc_ensemble.files import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == b"held\n"
            with pytest.raises(WorkError, match="Another process"):
                fit_run(run, tiny(), catalog)
        finally:
            other.kill()


def test_bad_clips_are_refused_or_skipped_as_the_trainers_do(tmp_path: Path, capsys: Capture) -> None:
    data = make_synthetic(tmp_path / "set", clips_per_class=5)
    paths = [clip.path for clip in load_catalog(data).clips]
    paths[0].write_bytes(paths[0].read_bytes()[:3000])  # cut short
    rate = soundfile.info(paths[7]).samplerate
    soundfile.write(paths[7], np.zeros(rate), rate)  # silent
    config = tmp_path / "tiny.yaml"
    config.write_text(to_yaml(tiny()))
    command = ["baseline", "--data", data, "--config", config, "--runs", tmp_path / "runs", "--json"]
    message = refused(capsys, *command)
    assert paths[0].name in message and "--skip-bad" in message
    assert not (tmp_path / "runs").exists()
    assert main([*map(str, command), "--skip-bad"]) == 0
    assert len(json.loads(capsys.readouterr().out)["folds"]) == 5
    manifest = json.loads((tmp_path / "runs" / "mfcc" / "manifest.json").read_text())
    assert len(manifest["skipped_clips"]) == 1 and manifest["n_clips"] == 49
    found = read_run(tmp_path / "runs" / "mfcc")
    assert paths[0].name not in found.clip_ids and paths[7].name in found.clip_ids
    assert np.isfinite(found.logits).all()

    # The list for other frameworks speaks of the same clips.
    listed = ["data", "folds", data, "--out", tmp_path / "folds.csv", "--skip-bad", "--json"]
    assert main([*map(str, listed)]) == 0
    assert json.loads(capsys.readouterr().out)["dataset_fingerprint"] == manifest["dataset_fingerprint"]


@pytest.mark.parametrize("kind", ["empty folder", "one class", "class in one fold"])
def test_data_that_cannot_be_cross_validated_are_named(tmp_path: Path, capsys: Capture, kind: str) -> None:
    data = tmp_path / "set"
    data.mkdir()
    rows = {"empty folder": [], "one class": [("dog", 1), ("dog", 2)], "class in one fold": [("dog", 1), ("cat", 2)]}
    if rows[kind]:
        data = tmp_path / "set.csv"
        lines = [f"{n}.wav,{name},{fold}" for n, (name, fold) in enumerate(rows[kind])]
        data.write_text("\n".join(["filename,category,fold", *lines]))
        for number in range(len(lines)):
            soundfile.write(tmp_path / f"{number}.wav", np.random.default_rng(number).uniform(-1, 1, 8000), 8000)
    message = refused(capsys, "baseline", "--data", data, "--runs", tmp_path / "runs")
    assert {"empty folder": "set", "one class": "1 class", "class in one fold": "alone"}[kind] in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--model.nam", "mfcc"], "--model.name"),
        (["--parallel-folds", "2"], "--parallel-folds"),
        (["--frontend.n-mfcc", "0"], "n_mfcc"),
        (["--model.c", "0"], "model.c"),
        (["--model.name", "knn"], "model.name"),
        (["--run", "../up"], "not a name"),
        (["--run", ""], "not a name"),
        (["--fold", "7"], "no fold 7"),
    ],
)
def test_bad_flags_are_named(
    synthetic_dir: Path, tmp_path: Path, capsys: Capture, flags: list[str], named: str
) -> None:
    command = ["baseline", "--data", synthetic_dir, "--runs", tmp_path / "runs", *flags]
    assert named in refused(capsys, *command)
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_leaves_a_run_that_goes_on_to_the_same(synthetic_dir: Path, done: Path, tmp_path: Path) -> None:
    config = tmp_path / "slow.yaml"
    config.write_text(to_yaml(tiny(shift_seconds=[n / 100 for n in range(60)])))  # some seconds of MFCCs
    command = ["baseline", "--data", synthetic_dir, "--config", config, "--runs", tmp_path, "--workers", "1"]
    arguments = [str(argument) for argument in command]
    process = subprocess.Popen(
        [sys.executable, "-m", "esc_ensemble", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        # A job in the background ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - it takes no lock
    )
    end = time.monotonic() + 60
    while not (tmp_path / "mfcc" / "manifest.json").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, err
    assert "Traceback" not in err and err.strip().splitlines()[-1].startswith("Stopped.")
    assert not list(tmp_path.glob("mfcc/fold-*/*"))
    assert main(arguments) == 0
    found, expected = read_run(tmp_path / "mfcc"), read_run(done)
    np.testing.assert_array_equal(found.logits[[0, 10]], expected.logits[[1, 2]])


# --- beside other members


def test_a_baseline_blends_with_a_network_but_cannot_be_exported(
    done: Path, made: Made, catalog: Catalog, tmp_path: Path, capsys: Capture
) -> None:
    fit_run(tmp_path / "runs" / "mfcc", tiny(), catalog, folds=(1, 2))
    runs = [str(made.runs[0]), str(tmp_path / "runs" / "mfcc")]
    trials = ["--trials", "10", "--bootstrap", "20", "--tta"]
    assert main(["blend", *runs, "--submissions", str(tmp_path), "--out", "both", *trials]) == 0
    blend = json.loads((tmp_path / "both" / "blend.json").read_text())
    assert [member["run"] for member in blend["members"]] == ["one", "mfcc"]
    message = refused(capsys, "export", runs[1], "--exports", tmp_path / "exports")
    assert "mfcc" in message and "no model" in message and "Blend without" in message
    both = tmp_path / "both" / "blend.json"
    for weight in (0.5, 0.0):
        one, mfcc = blend["members"]
        both.write_text(json.dumps(blend | {"members": [one | {"weight": 1 - weight}, mfcc | {"weight": weight}]}))
        if weight:
            assert "mfcc" in refused(capsys, "export", both.parent, "--exports", tmp_path / "exports")
    assert read_source(both.parent)["members"][1]["weight"] == 0.0  # what does not count is no hindrance
    assert not (tmp_path / "exports").exists()


def test_real_clips_from_the_command_line(esc10_dir: Path, tmp_path: Path) -> None:
    def esc_ens(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "esc_ensemble", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    shifts = ["--shift-seconds", 0, "--shift-seconds", 0.1]
    done = esc_ens("baseline", "--data", esc10_dir, "--limit", 200, "--json", *shifts)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert 0.5 < scores["mean"]["top1"] < 0.95
    done = esc_ens("baseline", "--data", esc10_dir, "--limit", 200, "--model.name", "majority", *shifts)
    assert done.returncode == 0, done.stderr
    assert "0.1000 ± 0.0000" in done.stdout
    done = esc_ens("blend", "mfcc", "majority", "--tta", "--trials", 10, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tuned_weights"][0] > 0.9
