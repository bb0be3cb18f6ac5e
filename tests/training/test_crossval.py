from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esc_ensemble.__main__ import INTERRUPTED, main
from esc_ensemble.config import DataConfig, TrainAConfig, TrainAProConfig
from esc_ensemble.data.cache import build_cache
from esc_ensemble.data.catalog import Catalog, load_catalog, subset
from esc_ensemble.data.splits import split_fold
from esc_ensemble.errors import ConfigError, DataError, WorkError
from esc_ensemble.files import folder_lock
from esc_ensemble.logits import read_logits, write_logits
from esc_ensemble.metrics import score, softmax
from esc_ensemble.models.checkpoint import load_checkpoint
from esc_ensemble.predict import shift_waveform, to_waveform
from esc_ensemble.settings import build, read_yaml
from esc_ensemble.training import crossval
from esc_ensemble.training.crossval import RunOptions, train_run
from tests.conftest import Made
from tests.tiny import tiny_config, write_config


@pytest.fixture(scope="module")
def catalog(synthetic_dir: Path) -> Catalog:
    return load_catalog(synthetic_dir)


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Path:
    """A copy of a run with folds 1 and 2."""
    return Path(shutil.copytree(made.runs[0], tmp_path / "one"))


def config_of(run: Path, **over: Any) -> TrainAConfig:
    values = read_yaml(run / "config.yaml")
    return build(TrainAConfig, values | over, "test")


def again(run: Path, catalog: Catalog, folds: tuple[int, ...] = (1, 2), **over: Any) -> dict[str, Any]:
    return train_run(run, config_of(run, **over), catalog, RunOptions(folds=folds, n_workers=1))


def test_a_run_holds_all_that_rebuilds_it(made: Made, catalog: Catalog) -> None:
    run = made.runs[0]
    assert sorted(path.name for path in run.iterdir() if path.name != ".lock") == [
        "config.yaml",
        "fold-1",
        "fold-2",
        "manifest.json",
        "metrics.json",
    ]
    for fold in (1, 2):
        names = sorted(path.name for path in (run / f"fold-{fold}").iterdir())
        assert names == ["history.csv", "logits.npz", "model.json", "model.safetensors"]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["dataset_fingerprint"] == catalog.fingerprint
    assert manifest["protocol"] == "epochs fixed beforehand"
    assert {"config_hash", "seed", "device", "packages", "n_clips"} <= set(manifest)


def test_the_logits_are_those_of_the_saved_model_on_its_test_clips(made: Made, catalog: Catalog) -> None:
    fold = read_logits(made.runs[0] / "fold-2" / "logits.npz")
    split = split_fold(catalog, 2, DataConfig(), 0)
    np.testing.assert_array_equal(fold.test.clip_ids, catalog.clip_ids[split.test])
    np.testing.assert_array_equal(fold.test.labels, catalog.labels[split.test])
    assert fold.test.logits.shape == (3, len(split.test), 10)
    assert fold.shifts.tolist() == pytest.approx([-0.1, 0.0, 0.1])
    assert len(fold.selection.clip_ids) == 0

    model, spec = load_checkpoint(made.runs[0] / "fold-2")
    from esc_ensemble.data.audio import prepare  # noqa: PLC0415

    waves = np.stack([prepare(catalog.clips[n].path, 8000, spec.data.n_samples, "tile", 60.0) for n in split.test[:4]])
    for place, shift in enumerate((-800, 0, 800)):
        rolled = torch.from_numpy(np.roll(waves, shift, axis=1))
        found = model(rolled).detach().numpy()
        np.testing.assert_allclose(fold.test.logits[place, :4], found, atol=0.02)  # the cache holds 16 bits


def test_metrics_are_the_scores_of_the_unshifted_logits(made: Made) -> None:
    metrics = json.loads((made.runs[0] / "metrics.json").read_text())
    assert set(metrics["folds"]) == {"1", "2"}
    top1 = []
    for fold in ("1", "2"):
        logits = read_logits(made.runs[0] / f"fold-{fold}" / "logits.npz")
        expected = score(softmax(logits.test.logits[1]), logits.test.labels)
        assert {name: metrics["folds"][fold][name] for name in expected} == pytest.approx(expected)
        top1.append(expected["top1"])
    assert metrics["mean"]["top1"] == pytest.approx(np.mean(top1))


def test_finished_folds_are_skipped(run: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("fold-*/*")}
    again(run, catalog)
    assert capsys.readouterr().err.count("done already") == 2
    assert {path: path.stat().st_mtime_ns for path in run.rglob("fold-*/*")} == before


def test_a_fold_whose_model_is_damaged_is_trained_again(run: Path, catalog: Catalog) -> None:
    weights, logits = run / "fold-1" / "model.safetensors", run / "fold-1" / "logits.npz"
    whole, before = weights.read_bytes(), logits.read_bytes()
    weights.write_bytes(whole[:100])
    again(run, catalog)
    assert weights.read_bytes() == whole
    assert logits.read_bytes() == before


def test_what_a_killed_process_left_behind_is_removed(run: Path, catalog: Catalog) -> None:
    (run / "fold-1" / "state.pt").write_bytes(b"left")
    (run / "fold-1" / ".logits-abc.part.npz").write_bytes(b"left")
    again(run, catalog)
    assert sorted(path.name for path in (run / "fold-1").iterdir()) == [
        "history.csv",
        "logits.npz",
        "model.json",
        "model.safetensors",
    ]


def test_other_settings_in_the_same_folder_are_refused_key_by_key(run: Path, catalog: Catalog) -> None:
    train = read_yaml(run / "config.yaml")["train"] | {"epochs": 9}
    with pytest.raises(ConfigError) as caught:
        again(run, catalog, seed=7, train=train)
    message = str(caught.value)
    assert "seed: 0 there, 7 asked for" in message
    assert "train.epochs: 3 there, 9 asked for" in message
    assert message.count("asked for") == 2
    assert "--run" in message


def test_settings_of_the_machine_may_change_on_the_way(
    run: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "fold-2" / "logits.npz").unlink()
    train = read_yaml(run / "config.yaml")["train"] | {"threads": 2, "checkpointing": True, "channels_last": False}
    again(run, catalog, train=train)
    assert f"{run.name} fold 1: done already" in capsys.readouterr().err
    hashes = {read_logits(run / f"fold-{fold}" / "logits.npz").config_hash for fold in (1, 2)}
    assert len(hashes) == 1


def test_a_run_of_a_version_without_some_setting_goes_on_where_that_is_at_its_default(
    run: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (run / "config.yaml").read_text().splitlines(keepends=True)
    (run / "config.yaml").write_text("".join(line for line in lines if "low_pass" not in line))
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"config_hash": "of-less"}))
    logits = read_logits(run / "fold-1" / "logits.npz")
    write_logits(run / "fold-1" / "logits.npz", replace(logits, config_hash="of-less"))
    (run / "fold-2" / "logits.npz").unlink()
    again(run, catalog)
    assert f"{run.name} fold 1: done already" in capsys.readouterr().err
    assert read_logits(run / "fold-2" / "logits.npz").config_hash == "of-less"  # one run, one hash
    with pytest.raises(ConfigError, match=r"low_pass: 0\.0 there, 0\.5 asked for"):
        again(run, catalog, augment={"low_pass": 0.5})


def test_a_run_of_another_trainer_is_refused(run: Path, catalog: Catalog) -> None:
    with pytest.raises(ConfigError, match=r"another trainer.*--run"):
        train_run(run, TrainAProConfig(), catalog, RunOptions(folds=(1,), n_workers=1))


def test_other_data_in_the_same_folder_is_refused(run: Path, catalog: Catalog) -> None:
    fewer = subset(catalog, range(1, len(catalog.clips)), [])
    with pytest.raises(ConfigError, match=r"other data.*--run"):
        again(run, fewer)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_manifest_is_refused_by_name(run: Path, catalog: Catalog, text: str) -> None:
    (run / "manifest.json").write_text(text)
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        again(run, catalog)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_fold_whose_logits_are_damaged_is_trained_again_to_the_same(run: Path, catalog: Catalog, damage: str) -> None:
    path = run / "fold-1" / "logits.npz"
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[:-100])
    else:
        path.unlink()
    again(run, catalog)
    assert path.read_bytes() == whole


def test_a_fold_that_does_not_exist_is_refused_before_anything_is_made(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(DataError, match=r"no fold 9.*1, 2, 3, 4, 5"):
        train_run(tmp_path / "new", tiny_config(), catalog, RunOptions(folds=(1, 9), n_workers=1))
    assert not (tmp_path / "new").exists()


def test_settings_that_do_not_go_together_are_refused_before_anything_is_made(tmp_path: Path, catalog: Catalog) -> None:
    config = tiny_config()
    config = config.model_copy(update={"train": config.train.model_copy(update={"patience": 3})})
    with pytest.raises(ConfigError, match="selection split"):
        train_run(tmp_path / "new", config, catalog, RunOptions(n_workers=1))
    assert not (tmp_path / "new").exists()


def test_a_second_writer_is_refused(run: Path, catalog: Catalog) -> None:
    code = (
        "import sys, time; from pathlib import Path; from esc_ensemble.files import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(WorkError, match="Another process"):
                again(run, catalog)
        finally:
            other.kill()
    with folder_lock(run):
        pass  # the lock went with its process


@pytest.mark.parametrize("patience", [0, 2])
def test_a_selection_split_fills_the_selection_logits(tmp_path: Path, catalog: Catalog, patience: int) -> None:
    config = tiny_config(data={"selection_fraction": 0.25}, train={"patience": patience})
    metrics = train_run(tmp_path / "run", config, catalog, RunOptions(folds=(3,), n_workers=1))
    fold = read_logits(tmp_path / "run" / "fold-3" / "logits.npz")
    split = split_fold(catalog, 3, DataConfig(selection_fraction=0.25), config.seed)
    np.testing.assert_array_equal(fold.selection.clip_ids, catalog.clip_ids[split.selection])
    assert fold.selection.logits.shape == (3, len(split.selection), 10)
    assert len(split.selection) > 0
    np.testing.assert_array_equal(fold.selection.sources, catalog.sources[split.selection])
    assert metrics["protocol"] == "selection split"


def test_training_in_windows_stores_the_logits_of_crops(tmp_path: Path, catalog: Catalog) -> None:
    config = tiny_config(data={"window_seconds": 0.5})
    train_run(tmp_path / "run", config, catalog, RunOptions(folds=(1,), n_workers=1))
    fold = read_logits(tmp_path / "run" / "fold-1" / "logits.npz")
    model, spec = load_checkpoint(tmp_path / "run" / "fold-1")
    assert spec.data.window_seconds == 0.5
    cache, _ = build_cache(catalog, config.data)
    waves = to_waveform(cache.batch(split_fold(catalog, 1, DataConfig(), 0).test), torch.device("cpu"))
    with torch.inference_mode():
        crops = [model(crop).numpy() for crop in shift_waveform(waves, config.shift_seconds, 8000, 0.5)]
    np.testing.assert_allclose(fold.test.logits, np.stack(crops), atol=1e-5)


def test_the_order_of_folds_and_what_was_drawn_before_do_not_matter(
    made: Made, tmp_path: Path, catalog: Catalog
) -> None:
    torch.manual_seed(1234)
    config = config_of(made.runs[0])
    train_run(tmp_path / "one", config, catalog, RunOptions(folds=(2,), n_workers=1))
    path = Path("fold-2") / "logits.npz"
    assert (tmp_path / "one" / path).read_bytes() == (made.runs[0] / path).read_bytes()


def test_folds_trained_at_once_give_the_very_same_bytes(
    made: Made, tmp_path: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(made.runs[0])
    metrics = train_run(tmp_path / "one", config, catalog, RunOptions(folds=(1, 2), n_workers=1, parallel_folds=2))
    assert "2 folds at a time, 1 threads each" in capsys.readouterr().err
    assert metrics == json.loads((made.runs[0] / "metrics.json").read_text())
    for fold in ("fold-1", "fold-2"):
        path = Path(fold) / "logits.npz"
        assert (tmp_path / "one" / path).read_bytes() == (made.runs[0] / path).read_bytes()
        assert not (tmp_path / "one" / fold / "state.pt").exists()


def test_a_run_begun_with_both_threads_on_a_fold_goes_on_so(
    tmp_path: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(train={"threads": 2, "epochs": 1})
    for folds in ((1,), (1, 2, 3)):
        train_run(tmp_path / "run", config, catalog, RunOptions(folds=folds, n_workers=1))
        assert json.loads((tmp_path / "run" / "manifest.json").read_text())["threads"] == 2
    assert "folds at a time" not in capsys.readouterr().err  # two threads each would be four


def test_where_no_process_can_start_one_fold_has_all_threads(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossval, "can_spawn", lambda: False)
    train_run(
        tmp_path / "run", tiny_config(train={"threads": 2, "epochs": 1}), catalog, RunOptions(folds=(1, 2), n_workers=1)
    )
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["threads"] == 2


def test_on_a_cpu_each_thread_takes_a_fold(tmp_path: Path, catalog: Catalog) -> None:
    config = tiny_config(train={"threads": 2, "epochs": 1})
    train_run(tmp_path / "run", config, catalog, RunOptions(folds=(1, 2, 3), n_workers=1))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["threads"] == 1
    assert sorted(path.name for path in (tmp_path / "run").glob("fold-*")) == ["fold-1", "fold-2", "fold-3"]


def test_the_first_failure_of_folds_at_once_ends_all_with_its_message(
    tmp_path: Path, catalog: Catalog, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(train={"learning_rate": 1e30, "epochs": 500})
    with pytest.raises(WorkError, match=r"loss became|diverged"):
        train_run(tmp_path / "run", config, catalog, RunOptions(folds=(1, 2), n_workers=1, parallel_folds=2))
    assert "Traceback" not in capfd.readouterr().err
    with folder_lock(tmp_path / "run"):
        pass


# --- a real process that is stopped

EPOCHS = 20


def arguments(data: Path, config: Path, runs: Path) -> list[str]:
    names = ["--data", data, "--config", config, "--runs", runs, "--run", "stopped", "--fold", "1", "--workers", "1"]
    return ["train-a", *map(str, names)]


def stop_in_the_middle(command: list[str], fold: Path, how: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Sends a signal to a training process once it has saved a state."""
    process = subprocess.Popen(
        [sys.executable, "-m", "esc_ensemble", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        # A job in the background ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - it takes no lock
    )
    end = time.monotonic() + 60
    while not (fold / "state.pt").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(how)
    while how == signal.SIGINT and process.poll() is None:  # as impatient people do
        time.sleep(0.02)
        process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert (fold / "state.pt").exists(), err
    assert not (fold / "logits.npz").exists(), "it was over too soon"
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.fixture(scope="module")
def stoppable(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(
        tmp_path_factory.mktemp("config") / "tiny.yaml",
        train={"epochs": EPOCHS, "ema_decay": 0.9},
        augment={"roll": 1.0, "noise": 0.5},
        mix={"mixup": 0.5},
    )


@pytest.fixture(scope="module")
def undisturbed(
    synthetic_dir: Path, stoppable: Path, tmp_path_factory: pytest.TempPathFactory, shared_cache_dir: Path
) -> bytes:
    runs = tmp_path_factory.mktemp("undisturbed")
    assert main([*arguments(synthetic_dir, stoppable, runs), "--cache", str(shared_cache_dir)]) == 0
    return (runs / "stopped" / "fold-1" / "logits.npz").read_bytes()


def test_a_run_killed_in_the_middle_goes_on_to_the_very_same_bytes(
    synthetic_dir: Path, stoppable: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    command, fold = arguments(synthetic_dir, stoppable, tmp_path), tmp_path / "stopped" / "fold-1"
    killed = stop_in_the_middle(command, fold, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    n_done = len((fold / "history.csv").read_text().splitlines()) - 1 if (fold / "history.csv").exists() else 0
    assert n_done < EPOCHS
    assert main(command) == 0
    assert (fold / "logits.npz").read_bytes() == undisturbed
    assert len((fold / "history.csv").read_text().splitlines()) == EPOCHS + 1
    assert not [path for path in fold.iterdir() if path.name.startswith(".") or path.name == "state.pt"]


def test_ctrl_c_ends_folds_trained_at_once_too(
    synthetic_dir: Path, stoppable: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    command = [*arguments(synthetic_dir, stoppable, tmp_path), "--parallel-folds", "2"]
    command[command.index("--fold") + 1] = "1,2"
    fold = tmp_path / "stopped" / "fold-1"
    stopped = stop_in_the_middle(command, fold, signal.SIGINT)
    assert stopped.returncode == INTERRUPTED
    assert "Traceback" not in stopped.stderr
    assert stopped.stderr.strip().splitlines()[-1].startswith("Stopped.")
    saved = (fold / "state.pt").read_bytes()
    time.sleep(1.0)
    assert (fold / "state.pt").read_bytes() == saved  # nobody goes on behind our back
    assert main(command) == 0
    assert (fold / "logits.npz").read_bytes() == undisturbed


def test_ctrl_c_gives_one_message_and_a_run_that_goes_on(
    synthetic_dir: Path, stoppable: Path, undisturbed: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, fold = arguments(synthetic_dir, stoppable, tmp_path), tmp_path / "stopped" / "fold-1"
    stopped = stop_in_the_middle(command, fold, signal.SIGINT)
    assert stopped.returncode == INTERRUPTED == 130
    assert "Traceback" not in stopped.stderr
    assert stopped.stderr.strip().splitlines()[-1].startswith("Stopped.")
    assert stopped.stderr.count("Stopped.") == 1
    assert stopped.stdout == ""
    assert main(command) == 0
    assert (fold / "logits.npz").read_bytes() == undisturbed
