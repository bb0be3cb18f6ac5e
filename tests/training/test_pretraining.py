"""Pretraining on other data, and beginning with it."""

from __future__ import annotations

import json
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
from safetensors.torch import load_file, save_file

from esc_ensemble.__main__ import main
from esc_ensemble.config import PretrainWav2Vec2Config, TrainAConfig, TrainAProConfig
from esc_ensemble.data.catalog import Catalog, load_catalog, load_recordings
from esc_ensemble.data.sources import heard_in
from esc_ensemble.data.synthetic import make_synthetic
from esc_ensemble.errors import ConfigError, DataError, ModelFileError, WorkError
from esc_ensemble.files import folder_lock
from esc_ensemble.logits import read_logits
from esc_ensemble.models.checkpoint import begin_with, load_checkpoint, save_checkpoint
from esc_ensemble.models.registry import ModelSpec, build_model
from esc_ensemble.settings import build, merge, read_yaml, to_yaml
from esc_ensemble.training import loop
from esc_ensemble.training.crossval import RunOptions, train_run
from esc_ensemble.training.pretraining import PretrainingOptions, pretrain_run, pretrain_wav2vec2_run
from tests.backbones import save_backbone
from tests.tiny import SETTINGS, tiny_b, tiny_config, tiny_spec

Capture = pytest.CaptureFixture[str]
HOW = PretrainingOptions(n_workers=1)
SOME = RunOptions(folds=(1,), n_workers=1)
MASKED: dict[str, Any] = {
    "data": {"clip_seconds": 1.0},
    "masking": {"span": 4, "negatives": 5},
    "train": {"epochs": 2, "precision": "fp32", "device": "cpu", "threads": 1, "learning_rate": 1e-3},
    "model": {
        **{"conv_size": 8, "hidden_size": 16, "n_blocks": 2, "n_heads": 2, "feed_forward": 16},
        **{"codewords": 8, "code_size": 8},
    },
}


def masked_config(**over: Any) -> PretrainWav2Vec2Config:
    return build(PretrainWav2Vec2Config, merge(MASKED, over), "tiny")


@pytest.fixture(scope="module")
def catalog(synthetic_dir: Path) -> Catalog:
    return load_catalog(synthetic_dir)


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another data set of six classes, whose files and sources have names of their own."""
    folder = tmp_path_factory.mktemp("other")
    made = load_catalog(make_synthetic(folder / "made", clips_per_class=5, seed=7))
    lines = ["filename,category,fold,source"]
    for number, clip in enumerate(clip for clip in made.clips if clip.label < 6):
        name = f"take_{number}x{clip.path.suffix}"
        shutil.copy(clip.path, folder / name)
        lines.append(f"{name},{made.class_name(clip)},{clip.fold},9{clip.source}0")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    shutil.rmtree(folder / "made")
    return folder


@pytest.fixture(scope="module")
def other(other_dir: Path) -> Catalog:
    return load_catalog(other_dir / "clips.csv", whole=True)


@pytest.fixture(scope="module")
def pretrained(other: Catalog, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "before"
    pretrain_run(run, tiny_config(), other, HOW)
    return run


def test_it_trains_on_all_clips_and_writes_all_that_rebuilds_the_model(pretrained: Path, other: Catalog) -> None:
    names = {path.name for path in pretrained.iterdir() if path.name != ".lock"}
    assert names == {
        *("config.yaml", "manifest.json", "sources.json", "metrics.json", "history.csv"),
        *("model.json", "model.safetensors"),
    }
    metrics = json.loads((pretrained / "metrics.json").read_text())
    assert metrics["clips"] == len(other.clips)
    assert metrics["epochs"] == 2
    manifest = json.loads((pretrained / "manifest.json").read_text())
    assert manifest["kind"] == "pretraining"
    model, spec = load_checkpoint(pretrained)
    assert len(spec.class_names) == len(other.class_names)
    assert model.n_classes == len(other.class_names)


def test_a_finished_run_is_not_trained_again(pretrained: Path, other: Catalog, capsys: Capture) -> None:
    before = (pretrained / "model.safetensors").stat().st_mtime_ns
    metrics = pretrain_run(pretrained, tiny_config(), other, HOW)
    assert "done already" in capsys.readouterr().err
    assert (pretrained / "model.safetensors").stat().st_mtime_ns == before
    assert metrics == json.loads((pretrained / "metrics.json").read_text())


def test_other_settings_data_and_commands_are_refused(pretrained: Path, other: Catalog, catalog: Catalog) -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs: 2 there, 5 asked for"):
        pretrain_run(pretrained, tiny_config(train={"epochs": 5}), other, HOW)
    with pytest.raises(ConfigError, match="other data"):
        pretrain_run(pretrained, tiny_config(), catalog, HOW)
    with pytest.raises(ConfigError, match="another command"):
        train_run(pretrained, tiny_config(), catalog, SOME)
    with folder_lock(pretrained), pytest.raises(WorkError, match="Another process"):
        pretrain_run(pretrained, tiny_config(), other, HOW)


def test_sources_of_the_target_are_left_out_and_written_down(other: Catalog, catalog: Catalog, tmp_path: Path) -> None:
    shared = other.clips[0].source
    clips = tuple(replace(clip, source=shared) if clip.label == 0 else clip for clip in catalog.clips)
    target = replace(catalog, clips=clips)
    metrics = pretrain_run(tmp_path / "run", tiny_config(), other, PretrainingOptions(targets=(target,), n_workers=1))
    n_shared = sum(clip.source == shared for clip in other.clips)
    assert metrics["left_out_sources"] == 1
    assert metrics["clips"] == len(other.clips) - n_shared
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["left_out"]["sources"] == [shared]
    assert len(manifest["left_out"]["clips"]) == n_shared
    assert shared not in json.loads((tmp_path / "run" / "sources.json").read_text())["sources"]


def test_training_begins_with_all_weights_but_the_classes(pretrained: Path) -> None:
    spec = tiny_spec()
    torch.manual_seed(3)
    fresh = build_model(spec).state_dict()
    torch.manual_seed(3)
    model = build_model(spec)
    begin_with(model, pretrained)
    given = load_file(pretrained / "model.safetensors")
    for name, tensor in model.state_dict().items():
        if name.startswith("head."):
            assert torch.equal(tensor, fresh[name])
        else:
            assert torch.equal(tensor, given[name]), name
    assert any(not torch.equal(fresh[name], given[name]) for name in fresh if not name.startswith("head."))


def test_every_fold_begins_with_it_and_the_run_remembers(
    pretrained: Path, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    fit = loop.fit

    def watched(step: Any, *rest: Any, **how: Any) -> None:
        begun.append(step.model.state_dict()["stem.0.weight"].clone())
        fit(step, *rest, **how)

    monkeypatch.setattr(loop, "fit", watched)
    config = tiny_config(init=str(pretrained), train={"epochs": 1})
    run = tmp_path / "after"
    train_run(run, config, catalog, RunOptions(folds=(1, 2), n_workers=1, parallel_folds=1))
    stem = load_file(pretrained / "model.safetensors")["stem.0.weight"]
    assert len(begun) == 2
    assert all(torch.equal(weight, stem) for weight in begun)

    before = read_logits(run / "fold-1" / "logits.npz").test.logits
    (run / "fold-1" / "logits.npz").unlink()
    train_run(run, config, catalog, RunOptions(folds=(1, 2), n_workers=1, parallel_folds=1))
    np.testing.assert_array_equal(read_logits(run / "fold-1" / "logits.npz").test.logits, before)


def test_a_run_does_not_go_on_with_other_weights_than_it_began_with(
    pretrained: Path, catalog: Catalog, tmp_path: Path
) -> None:
    copy = shutil.copytree(pretrained, tmp_path / "copy")
    config = tiny_config(init=str(copy), train={"epochs": 1})
    train_run(tmp_path / "run", config, catalog, SOME)
    weights = load_file(copy / "model.safetensors")
    save_file({name: tensor + tensor for name, tensor in weights.items()}, copy / "model.safetensors")
    with pytest.raises(ConfigError, match="began with other weights"):
        train_run(tmp_path / "run", config, catalog, SOME)


def test_a_run_of_a_version_without_init_does_not_go_on_with_it(
    other: Catalog, made: Any, catalog: Catalog, tmp_path: Path
) -> None:
    run = shutil.copytree(made.runs[0], tmp_path / "one")
    values = read_yaml(run / "config.yaml")
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["weights"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    train_run(run, build(TrainAConfig, values, "before"), catalog, SOME)
    begun = tmp_path / "begun"
    pretrain_run(begun, tiny_config(model=values["model"], train={"epochs": 1}), other, HOW)
    with pytest.raises(ConfigError, match="began with other weights"):
        train_run(run, build(TrainAConfig, values | {"init": str(begun)}, "after"), catalog, SOME)


def test_a_run_beside_this_one_is_found_by_its_name(pretrained: Path, catalog: Catalog) -> None:
    run = pretrained.parent / "by-name"
    train_run(run, tiny_config(init="before", train={"epochs": 1}), catalog, SOME)
    assert (run / "fold-1" / "logits.npz").exists()


def test_what_heard_the_data_is_refused(other: Catalog, catalog: Catalog, pretrained: Path, tmp_path: Path) -> None:
    config = tiny_config(init=str(pretrained))
    heard = other.clips[0].source
    leaking = replace(catalog, clips=(replace(catalog.clips[0], source=heard), *catalog.clips[1:]))
    with pytest.raises(DataError, match=f"(?s)scores would come out too good.*- {heard}"):
        train_run(tmp_path / "leak", config, leaking, SOME)
    with pytest.raises(DataError, match="come out too good"):  # also by way of a second pretraining
        how = PretrainingOptions(targets=(other,), n_workers=1)
        pretrain_run(tmp_path / "second", config, catalog, how)
    assert not (tmp_path / "leak").exists()


def test_what_came_before_is_passed_on(other: Catalog, catalog: Catalog, pretrained: Path, tmp_path: Path) -> None:
    pretrain_run(tmp_path / "second", tiny_config(init=str(pretrained), train={"epochs": 1}), catalog, HOW)
    heard = set(json.loads((tmp_path / "second" / "sources.json").read_text())["sources"])
    assert heard == heard_in(other, catalog)
    assert heard > {*other.sources.tolist(), *catalog.sources.tolist()}


def test_what_is_no_beginning_is_refused(pretrained: Path, catalog: Catalog, made: Any, tmp_path: Path) -> None:
    small = {name: group for name, group in SETTINGS.items() if name != "model"}
    stopped = shutil.copytree(pretrained, tmp_path / "stopped")
    (stopped / "model.json").unlink()
    damaged = shutil.copytree(pretrained, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"damaged")
    pro = build(TrainAProConfig, merge(small, {"frontend": {"n_mels": 40}, "init": str(pretrained)}), "tiny")
    for config, message in (
        (pro, "holds a spec_cnn, which is no beginning for a bc_resnet"),
        (tiny_config(init="/gone"), "there is no such run"),
        (tiny_config(init=str(made.runs[0])), "Models that were trained fold by fold have heard"),
        (tiny_config(init=str(made.runs[0] / "fold-1")), "no run of `esc-ens pretrain`"),
        (tiny_config(init=str(stopped)), "this pretraining is not finished"),
        (tiny_config(init=str(damaged)), "damaged.*Train it again"),
        (tiny_config(init=str(pretrained), model={"widths": [8, 24]}), "holds another network"),
    ):
        with pytest.raises(ModelFileError, match=message):
            train_run(tmp_path / "run", config, catalog, SOME)


def test_other_features_are_told(pretrained: Path, catalog: Catalog, tmp_path: Path, capsys: Capture) -> None:
    config = tiny_config(init=str(pretrained), data={"clip_seconds": 0.8}, train={"epochs": 1})
    train_run(tmp_path / "run", config, catalog, SOME)
    assert "data.clip_seconds 1.0 there, 0.8 here" in capsys.readouterr().err


@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 3), (2, 2), (0, 4)])
@pytest.mark.parametrize("stable", [False, True])
def test_model_b_begins_with_blocks_that_are_counted_otherwise(
    before: int, after: int, stable: bool, tmp_path: Path
) -> None:
    norm: dict[str, Any] = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"} if stable else {}
    source = save_backbone(tmp_path / "backbone", **norm)
    names = ("dog", "rain")
    first = ModelSpec.of(tiny_b(source, model={"unfreeze": before, "fuse": "last"}), names)
    torch.manual_seed(0)
    model = build_model(first).eval()
    save_checkpoint(tmp_path / "before", model, first, fold=None, run="before")
    torch.manual_seed(1)
    other = build_model(ModelSpec.of(tiny_b(source, model={"unfreeze": after, "fuse": "last"}), names)).eval()
    begin_with(other, tmp_path / "before")
    waveform = torch.randn(2, 16000)
    with torch.no_grad():
        expected = model.forward_features(model.frontend(waveform))
        torch.testing.assert_close(other.forward_features(other.frontend(waveform)), expected)


def test_model_b_goes_on_without_its_source(catalog: Catalog, other: Catalog, tmp_path: Path) -> None:
    source = save_backbone(tmp_path / "backbone")
    pretrain_run(tmp_path / "runs" / "before", tiny_b(source, train={"epochs": 1}), other, HOW)
    shutil.rmtree(source)
    config = tiny_b(source, init="before", train={"epochs": 1}, model={"unfreeze": 1})
    train_run(tmp_path / "runs" / "after", config, catalog, SOME)
    trained = load_file(tmp_path / "runs" / "after" / "fold-1" / "model.safetensors")
    given = load_file(tmp_path / "runs" / "before" / "model.safetensors")
    names = [name for name in given if name.startswith("blocks.0.")]
    assert names
    for name in names:  # of the two blocks that learned before, the lower one is frozen now
        assert torch.equal(trained[name.replace("blocks.0.", "frontend.blocks.2.")], given[name])


def test_wav2vec2_learns_without_labels_and_is_a_source(
    other_dir: Path, catalog: Catalog, tmp_path: Path, capsys: Capture
) -> None:
    run = tmp_path / "runs" / "wav2vec2"
    metrics = pretrain_wav2vec2_run(run, masked_config(), load_recordings(other_dir), HOW)
    assert metrics["clips"] == 30
    assert 0.0 < metrics["codewords_in_use"] <= 1.0
    assert {path.name for path in run.iterdir()} >= {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert not (run / "state.pt").exists()
    assert pretrain_wav2vec2_run(run, masked_config(), load_recordings(other_dir), HOW) == metrics
    assert "done already" in capsys.readouterr().err

    config = tiny_b(str(run), train={"epochs": 1}, model={"unfreeze": 1})
    train_run(tmp_path / "runs" / "b", config, catalog, SOME)
    assert (tmp_path / "runs" / "b" / "fold-1" / "logits.npz").exists()
    heard = load_recordings(other_dir).clips[0].source
    leaking = replace(catalog, clips=(replace(catalog.clips[0], source=heard), *catalog.clips[1:]))
    with pytest.raises(DataError, match="scores would come out too good"):
        train_run(tmp_path / "runs" / "leak", config, leaking, SOME)
    with pytest.raises(ModelFileError, match="this is a backbone"):
        train_run(tmp_path / "runs" / "c", tiny_b(str(run), init=str(run)), catalog, SOME)
    (run / "sources.json").unlink()
    with pytest.raises(ModelFileError, match=r"sources\.json does not exist"):
        train_run(tmp_path / "runs" / "d", config, catalog, SOME)


def test_the_loss_falls_where_there_is_something_to_learn(synthetic_dir: Path, tmp_path: Path) -> None:
    config = masked_config(train={"epochs": 12, "learning_rate": 3e-3}, masking={"share": 0.3, "diversity": 0.01})
    pretrain_wav2vec2_run(tmp_path / "run", config, load_recordings(synthetic_dir), HOW)
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    place = lines[0].split(",").index("train_loss")
    losses = [float(line.split(",")[place]) for line in lines[1:]]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("command", ["train-a", "wav2vec2"])
def test_a_killed_pretraining_goes_on_to_the_same_weights(command: str, synthetic_dir: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        to_yaml(tiny_config(train={"epochs": 4}) if command == "train-a" else masked_config(train={"epochs": 4}))
    )

    def args(name: str) -> list[str]:
        how = [f"--data={synthetic_dir}", f"--config={config}", f"--runs={tmp_path}", f"--run={name}", "--limit=30"]
        return ["pretrain", command, *how]

    assert main(args("whole")) == 0
    child = subprocess.Popen(
        [sys.executable, "-m", "esc_ensemble", *args("killed")],
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert main(args("killed")) == 0
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_the_command_says_what_comes_next(synthetic_dir: Path, tmp_path: Path, capsys: Capture) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(masked_config(train={"epochs": 1})))
    args = ["pretrain", "wav2vec2", f"--data={synthetic_dir / 'audio'}", f"--config={config}", f"--runs={tmp_path}"]
    assert main([*args, "--limit=20"]) == 0
    out = capsys.readouterr().out
    assert f"Go on with: esc-ens train-b --model.source {tmp_path / 'wav2vec2'}" in out
    assert main([*args, "--limit=20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 20


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["wav2vec2", "--data=/gone"], "/gone does not exist"),
        (["wav2vec2", "--data={data}", "--target=/gone"], "/gone does not exist"),
        (["wav2vec2", "--data={data}", "--model.hidden-size=100"], "hidden_size 100 cannot be cut"),
        (["wav2vec2", "--data={data}", "--data.selection-fraction=0.1"], "there are no labels to score"),
        (
            ["wav2vec2", "--data={data}", "--data.clip-seconds=0.08"],
            "short for masking.span 4: set it to 0.105 or more",
        ),
        (["wav2vec2", "--data={data}", "--train.label-smoothing=0.1"], "--train.label-smoothing"),
        (["train-a", "--data={data}", "--target={data}"], "none is left"),
        (["train-a", "--data={data}", "--fold=1"], "--fold"),
        (["train-b", "--data={data}", "--model.source={data}", "--init=/gone"], "there is no such run"),
    ],
)
def test_what_cannot_work_is_told_in_one_message(
    args: list[str], message: str, synthetic_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    given = [arg.format(data=synthetic_dir) for arg in args]
    assert main(["pretrain", *given, f"--runs={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("esc-ens: ") == 1
    assert "Traceback" not in error
