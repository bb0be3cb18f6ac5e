"""The frozen trunk and its cache, and model B's training on them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from esc_ensemble.blend.ensemble import blend_runs
from esc_ensemble.config import AugmentConfig, BlendConfig
from esc_ensemble.data.catalog import Catalog, load_catalog
from esc_ensemble.errors import ConfigError, DiskError
from esc_ensemble.logits import read_logits
from esc_ensemble.models.checkpoint import load_checkpoint
from esc_ensemble.models.registry import ModelSpec, build_pretrained
from esc_ensemble.training import loop
from esc_ensemble.training import trunk as trunk_module
from esc_ensemble.training.crossval import RunOptions, train_run
from esc_ensemble.training.device import build_accelerator
from esc_ensemble.training.state import save_state
from esc_ensemble.training.trunk import Trunk, build_trunk_cache
from tests.backbones import save_backbone
from tests.tiny import tiny_b

N_CLIPS, N_SAMPLES = 5, 8000
CLIPS = np.random.default_rng(0).integers(-8000, 8000, size=(N_CLIPS, N_SAMPLES)).astype(np.int16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_backbone(tmp_path_factory.mktemp("backbone"), "wavlm")


def make_trunk(source: str, **over: Any) -> Trunk:
    config = tiny_b(source)
    values: dict[str, Any] = {
        "network": build_pretrained(ModelSpec.of(config, ("a", "b"))).frontend,
        "read_batch": lambda clips: CLIPS[clips],
        "n_clips": N_CLIPS,
        "sample_rate": 16000,
        "augment": AugmentConfig(),
        "n_views": 3,
        "seed": 0,
        "accelerator": build_accelerator(config.train),
    }
    return Trunk(**values | over)


def pairs(trunk: Trunk) -> tuple[np.ndarray, np.ndarray]:
    place = np.arange(N_CLIPS * trunk.n_views)
    return place // trunk.n_views, place % trunk.n_views


def test_a_view_follows_from_seed_clip_and_view_alone(source: str) -> None:
    trunk = make_trunk(source)
    np.testing.assert_array_equal(trunk.waveform(2, 0).numpy(), CLIPS[2] / np.float32(32768))
    first = trunk.waveform(2, 1)
    torch.manual_seed(99)
    assert torch.equal(trunk.waveform(2, 1), first)
    others = [trunk.waveform(2, 2), trunk.waveform(3, 1), make_trunk(source, seed=1).waveform(2, 1)]
    assert not any(torch.equal(first, other) for other in others)


def test_the_cache_holds_what_the_trunk_gives(source: str, tmp_path: Path) -> None:
    trunk = make_trunk(source)
    cache = build_trunk_cache(trunk, tmp_path / "waveforms-x.npy", np.arange(N_CLIPS))
    clips, views = pairs(trunk)
    torch.testing.assert_close(cache(clips, views), trunk(clips, views), rtol=2e-3, atol=2e-3)
    states = trunk.network(torch.stack([trunk.waveform(clip, view) for clip, view in zip(clips, views, strict=True)]))
    torch.testing.assert_close(cache(clips, views), states, rtol=2e-3, atol=2e-3)  # half precision
    assert cache(clips, views).dtype == torch.float32


def test_what_was_computed_is_not_computed_again(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waveforms = tmp_path / "waveforms-x.npy"
    computed: list[int] = []
    compute = trunk_module._states_if_they_fit

    def note(trunk: Trunk, places: np.ndarray) -> Any:
        computed.extend(places.tolist())
        if len(computed) > 6:
            raise KeyboardInterrupt
        return compute(trunk, places)

    trunk = make_trunk(source)
    monkeypatch.setattr(trunk_module, "BATCH_SIZE", 2)
    build_trunk_cache(trunk, waveforms, np.array([1]))
    assert "GB" in capsys.readouterr().err  # announced first
    monkeypatch.setattr(trunk_module, "_states_if_they_fit", note)
    with pytest.raises(KeyboardInterrupt):
        build_trunk_cache(trunk, waveforms, np.array([0, 1, 3, 4]))
    assert computed == [0, 1, 2, 9, 10, 11, 12, 13]  # clip 1 (3 to 5) was there, and the last two were cut off
    computed.clear()
    cache = build_trunk_cache(trunk, waveforms, np.array([0, 1, 3, 4]))
    assert computed == [12, 13, 14]
    clips, views = np.array([4, 4, 4]), np.arange(3)
    torch.testing.assert_close(cache(clips, views), trunk(clips, views), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"augment": AugmentConfig(gain=1.0)}, {"n_views": 2}, "weights", "waveforms"]
)
def test_whatever_the_states_follow_from_has_a_cache_of_its_own(change: Any, source: str, tmp_path: Path) -> None:
    trunk = make_trunk(source)
    other = make_trunk(source, **change) if isinstance(change, dict) else make_trunk(source)
    if change == "weights":
        next(other.network.parameters()).mul_(1.5)
    assert trunk.key("x") != other.key("y" if change == "waveforms" else "x")
    assert trunk.key("x") == make_trunk(source).key("x")


@pytest.mark.parametrize("damage", ["cut", "flags", "text"])
def test_a_damaged_cache_is_computed_again(
    damage: str, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trunk, waveforms = make_trunk(source), tmp_path / "waveforms-x.npy"
    whole = build_trunk_cache(trunk, waveforms, np.arange(N_CLIPS)).states.copy()
    path = next(tmp_path.glob("trunk-*.npy"))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "flags":
        path.with_suffix(".done").write_bytes(b"\1")
    else:
        path.write_text("no array")
    again = build_trunk_cache(trunk, waveforms, np.arange(N_CLIPS))
    assert "damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(again.states, whole)


def test_a_lack_of_memory_is_survived(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = make_trunk(source)
    network = trunk.network.forward
    sizes = []

    def forward(waveform: torch.Tensor) -> torch.Tensor:
        sizes.append(len(waveform))
        if len(waveform) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return network(waveform)

    monkeypatch.setattr(trunk.network, "forward", forward)
    cache = build_trunk_cache(trunk, tmp_path / "waveforms-x.npy", np.arange(N_CLIPS))
    assert sizes[:5] == [1, 8, 4, 2, 2]
    clips, views = np.array([3, 4]), np.array([1, 0])
    torch.testing.assert_close(cache(clips, views), trunk(clips, views), rtol=2e-3, atol=2e-3)


def test_too_little_space_is_refused_before_anything_is_computed(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DiskError, match=r"frontend\.views"):
        build_trunk_cache(make_trunk(source), tmp_path / "waveforms-x.npy", np.arange(N_CLIPS))


# --- whole runs


@pytest.fixture(scope="module")
def catalog(synthetic_dir: Path) -> Catalog:
    return load_catalog(synthetic_dir)


OPTIONS = RunOptions(folds=(1, 2), n_workers=1, parallel_folds=1)


@pytest.fixture(scope="module")
def b_run(source: str, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory, shared_cache_dir: Path) -> Path:
    run = tmp_path_factory.mktemp("runs") / "b"
    options = RunOptions(folds=(1, 2), n_workers=1, parallel_folds=1, cache_dir=shared_cache_dir)
    train_run(run, tiny_b(source), catalog, options)
    return run


def test_a_fold_is_the_same_without_the_cache(b_run: Path, source: str, catalog: Catalog, tmp_path: Path) -> None:
    train_run(tmp_path / "b", tiny_b(source, frontend={"cache": False}), catalog, OPTIONS)
    for fold in (1, 2):
        cached, plain = (read_logits(run / f"fold-{fold}" / "logits.npz") for run in (b_run, tmp_path / "b"))
        np.testing.assert_allclose(cached.test.logits, plain.test.logits, atol=1e-4)


def test_frozen_tensors_stay_bit_equal_and_only_the_named_blocks_change(b_run: Path, source: str) -> None:
    torch.manual_seed(0)
    fresh = build_pretrained(load_checkpoint(b_run / "fold-1")[1]).state_dict()
    trained = load_file(b_run / "fold-1" / "model.safetensors")
    assert trained.keys() == fresh.keys()
    same = {name for name, tensor in trained.items() if torch.equal(tensor, fresh[name])}
    assert {name for name in trained if name.startswith("frontend.")} <= same
    changed = {".".join(name.split(".")[:2]) for name in trained.keys() - same if name.startswith("blocks")}
    assert changed == {"blocks.0", "blocks.1"}


def test_a_trained_model_needs_its_source_no_more(b_run: Path, catalog: Catalog, tmp_path: Path) -> None:
    copied = tmp_path / "fold-1"
    shutil.copytree(b_run / "fold-1", copied)
    described = json.loads((copied / "model.json").read_text())
    described["arguments"]["source"] = "/gone"
    (copied / "model.json").write_text(json.dumps(described))
    model, _ = load_checkpoint(copied)
    waveform = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(model(waveform), load_checkpoint(b_run / "fold-1")[0](waveform))


def test_a_run_of_b_blends(b_run: Path, tmp_path: Path) -> None:
    result = blend_runs([b_run], BlendConfig(trials=5, bootstrap=5, tta=True), tmp_path / "blend")
    assert (tmp_path / "blend" / "blend.json").exists()
    assert result.members


def test_a_broken_fold_goes_on_to_the_very_same_bytes(
    b_run: Path, source: str, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = save_state

    def stop(folder: Path, state: Any, **what: Any) -> None:
        save(folder, state, **what)
        if state.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", stop)
    options = RunOptions(folds=(1,), n_workers=1)
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "b", tiny_b(source), catalog, options)
    saved = torch.load(tmp_path / "b" / "fold-1" / "state.pt", weights_only=True)["model"]
    assert not [name for name in saved if name.startswith("frontend.")]  # what never changes need not be saved
    monkeypatch.undo()
    train_run(tmp_path / "b", tiny_b(source), catalog, options)
    resumed, whole = (read_logits(run / "fold-1" / "logits.npz") for run in (tmp_path / "b", b_run))
    np.testing.assert_array_equal(resumed.test.logits, whole.test.logits)


def test_what_is_trained_at_which_rate_is_told(
    source: str, catalog: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_b(source, train={"epochs": 3, "thaw_epochs": 1, "backbone_rate": 1e-3, "layer_decay": 0.5})
    train_run(tmp_path / "b", config, catalog, RunOptions(folds=(1,), n_workers=1))
    line = next(line for line in capsys.readouterr().err.splitlines() if "trains" in line)
    assert line.startswith("b fold 1 trains pooling, head: ")
    assert re.search(
        r"block 4: 0\.00 M parameters at 0\.001 from epoch 2 on; block 3: .* at 0\.0005 from epoch 3 on", line
    )
    assert re.search(r"frozen: 0\.\d\d M$", line)


def test_fresh_augmentation_selection_and_thawing(source: str, catalog: Catalog, tmp_path: Path) -> None:
    over = {"data": {"selection_fraction": 0.25}, "train": {"thaw_epochs": 1}}
    for name, views in (("fixed", 2), ("fresh", 0)):
        config = tiny_b(source, **over, frontend={"views": views})
        train_run(tmp_path / name, config, catalog, RunOptions(folds=(1,), n_workers=1))
        lines = (tmp_path / name / "fold-1" / "history.csv").read_text().splitlines()
        assert "selection_loss" in lines[0]
        assert len(read_logits(tmp_path / name / "fold-1" / "logits.npz").selection.labels) > 0


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"data": {"window_seconds": 0.5}}, r"frontend\.views to 0|set it to 0"),
        ({"mix": {"mixup": 0.5, "between_class": 0.5}}, r"set frontend\.views to 0"),
        ({"train": {"thaw_epochs": 2}}, "leaves no epoch"),
        ({"augment": {"band_gain": 0.5}}, "band_gain"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(over: dict[str, Any], message: str, source: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_b(source, **over)
