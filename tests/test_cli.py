from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from esc_ensemble import __version__
from esc_ensemble.__main__ import main
from esc_ensemble.config import COMMANDS, TrainAConfig, TrainerConfig
from esc_ensemble.errors import WorkError
from esc_ensemble.settings import merge, read_yaml, to_yaml
from esc_ensemble.training import crossval
from tests.blend.make_logits import make_labels, make_member, write_run
from tests.conftest import Made
from tests.tiny import SETTINGS, write_config

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_config(tmp_path / "tiny.yaml")


@pytest.fixture
def data(synthetic_dir: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic set, free to be spoiled."""
    return Path(shutil.copytree(synthetic_dir, tmp_path / "data"))


def refused(capsys: Capture, *arguments: object, code: int = 2) -> str:
    """Runs a command that must fail with one message and nothing on stdout; gives the message."""
    capsys.readouterr()
    found = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert found == code, captured.err
    assert captured.out == ""
    assert captured.err.count("esc-ens: ") == 1, captured.err
    assert "Traceback" not in captured.err
    assert "Unexpected" not in captured.err
    return captured.err


def train(data: Path, tiny: Path, *more: object) -> list[object]:
    return ["train-a", "--data", data, "--config", tiny, "--runs", tiny.parent / "runs", "--workers", 1, *more]


# --- data


def table(data: Path) -> Path:
    return data / "meta" / "esc50.csv"


def rows_of(data: Path) -> list[dict[str, str]]:
    with table(data).open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(data: Path, rows: list[dict[str, str]]) -> None:
    with table(data).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def first_wav(data: Path) -> Path:
    return next(path for path in sorted((data / "audio").iterdir()) if path.suffix == ".wav")


def without_fold_column(data: Path) -> str:
    write_rows(data, [{key: value for key, value in row.items() if key != "fold"} for row in rows_of(data)])
    return "fold"


def clip_absent(data: Path) -> str:
    path = first_wav(data)
    path.unlink()
    return path.name


def file_empty(data: Path) -> str:
    path = first_wav(data)
    path.write_bytes(b"")
    return path.name


def wav_cut(data: Path) -> str:
    path = first_wav(data)
    path.write_bytes(path.read_bytes()[:-999])
    return path.name


def text_as_wav(data: Path) -> str:
    path = first_wav(data)
    path.write_text("not a sound\n" * 100)
    return path.name


def nan_samples(data: Path) -> str:
    path = first_wav(data)
    samples = np.full(9000, 0.1)
    samples[77] = np.nan
    soundfile.write(path, samples, 8000, subtype="FLOAT")
    return path.name


def class_in_one_fold(data: Path) -> str:
    rows = rows_of(data)
    write_rows(data, [row for row in rows if row["category"] != "siren" or row["fold"] == "1"])
    return "siren"


SPOILERS = [
    without_fold_column,
    clip_absent,
    file_empty,
    wav_cut,
    text_as_wav,
    nan_samples,
    class_in_one_fold,
]


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_bad_data_is_named_before_training_starts_and_leaves_nothing(
    data: Path, tiny: Path, tmp_path: Path, capsys: Capture, spoil: Callable[[Path], str]
) -> None:
    named = spoil(data)
    message = refused(capsys, *train(data, tiny, "--cache", tmp_path / "cache"))
    assert named in message
    assert not (tmp_path / "runs").exists()
    assert not [path for path in (tmp_path / "cache").glob("*") if path.suffix in (".npy", ".json")]


@pytest.mark.parametrize("command", ["train-a", "info"])
def test_a_missing_data_folder_is_named(tmp_path: Path, capsys: Capture, command: str) -> None:
    given = ["train-a", "--data"] if command == "train-a" else ["data", "info"]
    assert "nowhere" in refused(capsys, *given, tmp_path / "nowhere")


def test_all_bad_clips_are_named_together(data: Path, tiny: Path, capsys: Capture) -> None:
    paths = [path for path in sorted((data / "audio").iterdir()) if path.suffix == ".wav"][:3]
    for path in paths:
        path.write_text("no sound")
    message = refused(capsys, *train(data, tiny))
    assert all(path.name in message for path in paths)


def test_skip_bad_trains_without_the_bad_clips_and_lists_them(
    data: Path, tiny: Path, tmp_path: Path, capsys: Capture
) -> None:
    name = text_as_wav(data)
    arguments = train(data, tiny, "--skip-bad", "--fold", 1, "--train.epochs", 1, "--json")
    assert main([str(argument) for argument in arguments]) == 0
    captured = capsys.readouterr()
    assert set(json.loads(captured.out)["folds"]) == {"1"}
    assert name in captured.err
    manifest = json.loads((tmp_path / "runs" / "a" / "manifest.json").read_text())
    assert name in manifest["skipped_clips"][0]
    assert manifest["n_clips"] == 99


def test_data_info_shows_classes_and_folds_as_json(synthetic_dir: Path, capsys: Capture) -> None:
    assert main(["data", "info", str(synthetic_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_data_synth_says_where_the_set_is(tmp_path: Path, capsys: Capture) -> None:
    assert main(["data", "synth", str(tmp_path / "set"), "--clips-per-class", "2", "--n-folds", "2"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "set")


# --- settings


def resolved(monkeypatch: pytest.MonkeyPatch, synthetic_dir: Path, *arguments: object, command: str = "train-a") -> Any:
    """The settings that `command` would train with."""
    seen: list[TrainerConfig] = []

    def note(run_dir: Path, config: TrainerConfig, *_: Any, **__: Any) -> dict[str, Any]:
        seen.append(config)
        return {}

    monkeypatch.setattr(crossval, "train_run", note)
    assert main([command, "--data", str(synthetic_dir), *map(str, arguments)]) == 0, arguments
    return seen[0]


def test_flags_beat_yaml_which_beats_the_defaults(
    synthetic_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = TrainAConfig()
    path = tmp_path / "some.yaml"
    path.write_text(f"seed: {default.seed + 5}\ntrain:\n  epochs: {default.train.epochs + 7}\n")
    from_yaml = resolved(monkeypatch, synthetic_dir, "--config", path)
    assert (from_yaml.seed, from_yaml.train.epochs) == (default.seed + 5, default.train.epochs + 7)
    assert from_yaml.train.batch_size == default.train.batch_size
    with_flag = resolved(monkeypatch, synthetic_dir, "--config", path, "--train.epochs", 3)
    assert (with_flag.seed, with_flag.train.epochs) == (default.seed + 5, 3)
    back = resolved(monkeypatch, synthetic_dir, "--config", path, "--train.epochs", default.train.epochs)
    assert back.train.epochs == default.train.epochs  # also where the flag says what the default is


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def as_flags(values: dict[str, Any]) -> list[str]:
    flags = []
    for key, value in leaves(values):
        name = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            group, _, last = name.removeprefix("--").rpartition(".")
            flags.append(name if value else f"--{group}{'.' if group else ''}no-{last}")
        elif key in ("augment.noise_snr_db", "augment.noise_colour"):  # pairs; lists take one value a flag
            flags += [name, *map(str, value)]
        elif isinstance(value, list | tuple):
            flags += [f"{name}={item}" for item in value]
        else:
            flags.append(f"{name}={value}")
    return flags


@pytest.mark.parametrize(
    ("command", "model"),
    [("train-a", SETTINGS["model"]), ("train-a-pro", {"scale": 1.5, "subbands": 5, "dropout": 0.2})],
)
def test_every_setting_can_be_given_as_a_flag(
    synthetic_dir: Path, monkeypatch: pytest.MonkeyPatch, command: str, model: dict[str, Any]
) -> None:
    default = COMMANDS[command]().model_dump(mode="json")
    other: dict[str, Any] = {
        "train": {"channels_last": not default["train"]["channels_last"]},
        "frontend": {"n_mels": 40, "pcen": {"learnable": True}, "channels": ["pcen"]},
        "model": default["model"] | model,
    }
    changed = merge(default, merge({**SETTINGS, "model": {}}, other))
    found = resolved(monkeypatch, synthetic_dir, *as_flags(changed), command=command)
    assert found.model_dump(mode="json") == changed
    assert found.model_fields_set == set(COMMANDS[command].model_fields)


def test_an_unknown_key_in_yaml_is_refused_with_the_nearest(
    synthetic_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("sed: 1\ntrain:\n  epoch: 3\n  batch_size: 0\n")
    message = refused(capsys, "train-a", "--data", synthetic_dir, "--config", path)
    assert 'unknown key "train.epoch". Did you mean "train.epochs"?' in message
    assert 'unknown key "sed". Did you mean "seed"?' in message
    assert "train.batch_size" in message
    assert "bad.yaml" in message


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--train.epoch", 5], "--train.epochs"),
        (["--train.epochs", "x"], "train.epochs"),
        (["--train.epochs", 0], "train.epochs"),
        (["--train.epochs"], "--train.epochs"),
        (["--augment.roll", 1.5], "augment.roll"),
        (["--model.name", "bert"], "model.name"),
        (["--fold", "one"], "--fold"),
        (["--workers", -1], "--workers"),
        (["--frontend.f-max", 99999], "f_max"),
        (["--train.patience", 3], "selection_fraction"),
        (["--config", "gone.yaml"], "gone.yaml"),
    ],
)
def test_bad_flags_are_named(synthetic_dir: Path, tiny: Path, capsys: Capture, flags: list[object], named: str) -> None:
    given = ["--config", tiny, *flags] if "--config" not in flags else flags
    message = refused(capsys, "train-a", "--data", synthetic_dir, "--runs", tiny.parent / "runs", *given)
    assert named in message
    assert not (tiny.parent / "runs").exists()


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "!!python/object/apply:os.getcwd []", "train: 5\n"])
def test_a_yaml_file_that_holds_no_settings_is_refused(
    synthetic_dir: Path, tmp_path: Path, capsys: Capture, text: str
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    message = refused(capsys, "train-a", "--data", synthetic_dir, "--config", tmp_path / "bad.yaml")
    assert "bad.yaml" in message


def test_blend_flags_are_checked_too(made: Made, tmp_path: Path, capsys: Capture) -> None:
    blend = ["blend", made.runs[0], "--submissions", tmp_path]
    assert "--trials" in refused(capsys, *blend, "--trial", 3)
    assert "combiner" in refused(capsys, *blend, "--combiner", "median")
    assert list(tmp_path.iterdir()) == []


def test_config_prints_yaml_that_gives_the_defaults_back(tmp_path: Path, capsys: Capture) -> None:
    for command, kind in COMMANDS.items():
        assert main(["config", command]) == 0
        (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
        assert kind.model_validate(read_yaml(tmp_path / "c.yaml")) == kind()


# --- folds and runs


def test_a_fold_that_is_not_there_is_refused(synthetic_dir: Path, tiny: Path, capsys: Capture) -> None:
    message = refused(capsys, *train(synthetic_dir, tiny, "--fold", "1,9"))
    assert "no fold 9" in message
    assert not (tiny.parent / "runs").exists()


def test_other_settings_for_a_run_that_is_there_are_refused(made: Made, synthetic_dir: Path, capsys: Capture) -> None:
    config = made.runs[0] / "config.yaml"
    before = config.read_bytes()
    arguments = ["train-a", "--data", synthetic_dir, "--config", config, "--runs", made.root / "runs", "--run", "one"]
    assert "seed: 0 there, 5 asked for" in refused(capsys, *arguments, "--seed", 5)
    assert config.read_bytes() == before


@pytest.mark.parametrize("name", ["", ".", "..", "../beside", "a/../../b"])
def test_a_run_stays_in_the_folder_of_runs(synthetic_dir: Path, tiny: Path, capsys: Capture, name: str) -> None:
    assert "is not a name for a folder" in refused(capsys, *train(synthetic_dir, tiny, f"--run={name}"))


def test_runs_may_not_lie_under_a_file(synthetic_dir: Path, tiny: Path, capsys: Capture) -> None:
    arguments = ["train-a", "--data", synthetic_dir, "--config", tiny, "--runs", tiny, "--fold", 1, "--workers", 1]
    assert "Cannot write" in refused(capsys, *arguments, code=1)


def test_training_prints_json_on_stdout_and_news_on_stderr(synthetic_dir: Path, tiny: Path, capsys: Capture) -> None:
    arguments = train(synthetic_dir, tiny, "--fold", "2,3", "--train.epochs", 1, "--json")
    assert main([str(argument) for argument in arguments]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert set(result["folds"]) == {"2", "3"}
    assert result["run"].endswith("runs/a")
    assert "fold 2: 1/1 epochs" in captured.err
    assert main([str(argument) for argument in arguments[:-1]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["fold", "fold", "mean"]


# --- blend


@pytest.fixture
def fake_runs(tmp_path: Path) -> list[Path]:
    labels = make_labels(60, 4)
    folds = np.arange(60) % 3 + 1
    members = [make_member(labels, 4, skill=2.0, seed=seed) for seed in (1, 2)]
    return [write_run(tmp_path / f"run{n}", logits, labels, folds) for n, logits in enumerate(members)]


def change_arrays(path: Path, **arrays: np.ndarray) -> None:
    with np.load(path) as file:
        content = dict(file) | arrays
    np.savez(path, **content)


def wrong_shape(path: Path) -> None:
    with np.load(path) as file:
        logits = file["logits"]
    change_arrays(path, logits=logits[:, 1:])


def nan_logits(path: Path) -> None:
    with np.load(path) as file:
        logits = file["logits"].copy()
    logits[0, 3, 1] = np.nan
    change_arrays(path, logits=logits)


def repeated_clip(path: Path) -> None:
    with np.load(path) as file:
        clip_ids = file["clip_ids"].copy()
    clip_ids[1] = clip_ids[0]
    change_arrays(path, clip_ids=clip_ids)


def other_class_order(path: Path) -> None:
    for name in ("fold-1", "fold-2", "fold-3"):
        other = path.parent.parent / name / "logits.npz"
        with np.load(other) as file:
            meta = json.loads(str(file["meta"]))
        meta["class_names"] = meta["class_names"][::-1]
        change_arrays(other, meta=np.array(json.dumps(meta)))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def other_data(path: Path) -> None:
    for name in ("fold-1", "fold-2", "fold-3"):
        other = path.parent.parent / name / "logits.npz"
        with np.load(other) as file:
            meta = json.loads(str(file["meta"]))
        change_arrays(other, meta=np.array(json.dumps(meta | {"dataset_fingerprint": "elsewhere"})))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (wrong_shape, "logits"),
        (nan_logits, "NaN"),
        (repeated_clip, "clip"),
        (other_class_order, "another order"),
        (cut_short, "readable"),
        (other_data, "different data"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_logits_that_break_a_rule_are_named_and_no_blend_is_written(
    fake_runs: list[Path], tmp_path: Path, capsys: Capture, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(fake_runs[1] / "fold-2" / "logits.npz")
    message = refused(capsys, "blend", *fake_runs, "--submissions", tmp_path / "submissions", "--trials", 5)
    assert reason in message
    assert "run1" in message
    assert not (tmp_path / "submissions").exists()


def test_a_blend_prints_its_json(fake_runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    arguments = ["blend", *fake_runs, "--submissions", tmp_path, "--trials", 5, "--bootstrap", 20, "--json"]
    assert main([str(argument) for argument in arguments]) == 0
    assert len(json.loads(capsys.readouterr().out)["members"]) == 2


def test_runs_are_found_by_name_or_by_folder(fake_runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    more = ["--submissions", str(tmp_path / "s"), "--trials", "3", "--bootstrap", "10"]
    assert main(["blend", "run0", str(fake_runs[1]), "--runs", str(tmp_path), *more]) == 0
    assert "Members" in capsys.readouterr().out


@pytest.mark.parametrize("members", [[], ["nowhere"]])
def test_a_blend_of_nothing_is_refused(tmp_path: Path, capsys: Capture, members: list[str]) -> None:
    refused(capsys, "blend", *members, "--runs", tmp_path, "--submissions", tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


# --- export


@pytest.mark.parametrize("arguments", [["nowhere"], ["both", "--format", "tflite"], ["both", "--check-clips", "0"], []])
def test_an_export_that_cannot_work_is_refused(
    made: Made, tmp_path: Path, capsys: Capture, arguments: list[str]
) -> None:
    where = ["--runs", made.root / "runs", "--submissions", made.root / "submissions", "--exports", tmp_path / "e"]
    refused(capsys, "export", *arguments, *where)
    assert not (tmp_path / "e").exists()


def test_an_export_without_a_checkpoint_names_it(fake_runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    (fake_runs[0] / "manifest.json").write_text(json.dumps({"dataset_path": str(tmp_path)}))
    message = refused(capsys, "export", fake_runs[0], "--data", tmp_path, "--exports", tmp_path / "e")
    assert "no audio" in message or "model.json" in message
    assert not (tmp_path / "e").exists()


# --- the program


def test_an_unknown_command_is_refused(capsys: Capture) -> None:
    assert "train-a" in refused(capsys, "trane-a")


def test_version_and_help(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    assert main(["train-a", "--help"]) == 0
    assert "--train.epochs" in capsys.readouterr().out
    assert main([]) == 0
    assert "quickstart" in capsys.readouterr().out


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(crossval, "train_run", fail)


def test_work_that_failed_gives_1(
    synthetic_dir: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    fail_with(monkeypatch, WorkError("the disk is full"))
    assert "the disk is full" in refused(capsys, *train(synthetic_dir, tiny), code=1)


def test_a_fault_of_the_program_says_so_and_debug_shows_where(
    synthetic_dir: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    fail_with(monkeypatch, ZeroDivisionError("oh"))
    arguments = [str(argument) for argument in train(synthetic_dir, tiny)]
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert "fault in esc-ens" in message
    assert "Traceback" not in message
    assert main([*arguments, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_gives_130_and_one_message(
    synthetic_dir: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main([str(argument) for argument in train(synthetic_dir, tiny)]) == 130
    captured = capsys.readouterr()
    assert captured.err.strip().splitlines() == [
        "Stopped. No file is left half written; the same command goes on from what is finished."
    ]
    assert captured.out == ""


def test_yaml_written_by_the_program_is_read_by_it(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(to_yaml(TrainAConfig(), comments=True))
    assert TrainAConfig.model_validate(read_yaml(path)) == TrainAConfig()


def test_a_reader_that_has_enough_is_no_failure() -> None:
    command = [sys.executable, "-m", "esc_ensemble", "config", "train-a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()  # before the command has said anything
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_the_result_is_told() -> None:
    command = [sys.executable, "-m", "esc_ensemble", "config", "train-a"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("esc-ens: No space left to write the result.")
