from __future__ import annotations

import csv
import errno
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from esc_ensemble.config import AugmentConfig, MixConfig, TrainConfig
from esc_ensemble.errors import DiskError, ModelFileError, WorkError
from esc_ensemble.models.base import AudioClassifier
from esc_ensemble.training import step
from esc_ensemble.training.device import build_accelerator
from esc_ensemble.training.loop import PLATEAU_FACTOR, PLATEAU_PATIENCE, train_model
from esc_ensemble.training.step import TrainingData
from tests.tiny import NO_AUGMENT

N_CLASSES, N_SAMPLES, N_CLIPS = 3, 20, 32
QUIET = AugmentConfig(**NO_AUGMENT)
UNMIXED = MixConfig(mixup=0.0)


class Linear(AudioClassifier):
    """One matrix on the samples: no batch norm, no dropout, nothing random."""

    def __init__(self) -> None:
        super().__init__(_AsMaps(), 100, N_CLASSES, N_SAMPLES)
        self.head = nn.Linear(N_SAMPLES, N_CLASSES)

    def forward_features(self, features: Tensor) -> Tensor:
        return features.flatten(1)

    def forward_head(self, embedding: Tensor) -> Tensor:
        return self.head(embedding)


class _AsMaps(nn.Module):
    def forward(self, waveform: Tensor) -> Tensor:
        return waveform[:, None, None, :]


def train_config(**values: Any) -> TrainConfig:
    plain = {
        "epochs": 3,
        "batch_size": 8,
        "accumulation": 1,
        "schedule": "constant",
        "learning_rate": 0.05,
        "ema_decay": 0.0,
        "patience": 0,
        "label_smoothing": 0.0,
        "clip_norm": 0.0,
        "precision": "fp32",
        "device": "cpu",
        "threads": 1,
    }
    return TrainConfig(**plain | values)


def make_data(*, contrary: bool = False, n_selection: int = 0) -> TrainingData:
    """Clips whose class is in their mean; a `contrary` selection split has its labels turned round."""
    rng = np.random.default_rng(0)
    labels = rng.integers(N_CLASSES, size=N_CLIPS + n_selection)
    clips = (4000 * np.eye(N_CLASSES)[labels].repeat(7, axis=1)[:, :N_SAMPLES]).astype(np.int16)
    clips += rng.integers(-3000, 3000, size=clips.shape).astype(np.int16)
    if contrary:
        labels[N_CLIPS:] = (labels[N_CLIPS:] + 1) % N_CLASSES
    return TrainingData(
        read_batch=lambda index: clips[index],
        labels=labels,
        train=np.arange(N_CLIPS),
        selection=np.arange(N_CLIPS, N_CLIPS + n_selection),
        n_classes=N_CLASSES,
        sample_rate=100,
    )


def train(folder: Path, config: TrainConfig, data: TrainingData | None = None, **values: Any) -> AudioClassifier:
    torch.manual_seed(0)
    model = values.get("model") or Linear()
    return train_model(
        model,
        data or make_data(),
        config,
        values.get("augment", QUIET),
        values.get("mix", UNMIXED),
        accelerator=build_accelerator(config),
        folder=folder,
        seed=5,
        title="test",
    )


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_training_lowers_the_loss_and_gives_the_model_back_ready_for_use(tmp_path: Path) -> None:
    model = train(tmp_path, train_config(epochs=10))
    rows = history(tmp_path)
    assert rows[-1]["train_loss"] < 0.5 * rows[0]["train_loss"]
    assert rows[-1]["train_top1"] > 0.9
    assert not model.training


def test_the_history_has_a_row_an_epoch(tmp_path: Path) -> None:
    train(tmp_path, train_config(epochs=4), make_data(n_selection=6))
    rows = history(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert {"learning_rate", "train_loss", "train_top1", "selection_loss", "selection_top1"} <= set(rows[0])


@pytest.mark.parametrize("micro", [(8, 2), (4, 4), (5, 3)])
def test_accumulated_micro_batches_make_the_step_of_one_batch(tmp_path: Path, micro: tuple[int, int]) -> None:
    size, parts = micro
    whole = train(tmp_path / "whole", train_config(batch_size=size * parts, clip_norm=1.0))
    split = train(tmp_path / "split", train_config(batch_size=size, accumulation=parts, clip_norm=1.0))
    for name, weights in whole.state_dict().items():
        torch.testing.assert_close(split.state_dict()[name], weights, rtol=1e-4, atol=1e-5)


def test_the_first_step_is_torchs_adamw_on_the_mean_loss(tmp_path: Path) -> None:
    config = train_config(epochs=1, batch_size=N_CLIPS, weight_decay=0.1, label_smoothing=0.1)
    found = train(tmp_path, config)
    torch.manual_seed(0)
    expected, data = Linear(), make_data()
    optimizer = torch.optim.AdamW(
        [
            {"params": [expected.head.weight], "weight_decay": 0.1},
            {"params": [expected.head.bias], "weight_decay": 0.0},
        ],
        lr=0.05,
    )
    waves = torch.from_numpy(data.read_batch(data.train) / np.float32(32768))
    labels = torch.from_numpy(data.labels[data.train])
    nn.functional.cross_entropy(expected(waves), labels, label_smoothing=0.1).backward()
    optimizer.step()
    for name, weights in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clip_norm", [0.0, 1e-3])
def test_gradients_are_clipped_to_clip_norm_and_0_turns_it_off(tmp_path: Path, clip_norm: float) -> None:
    norms = []

    def note(optimizer: Any, *_: Any) -> None:
        gradients = [p.grad.norm() for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.stack(gradients).norm()))

    handle = register_optimizer_step_pre_hook(note)
    try:
        train(tmp_path, train_config(epochs=1, clip_norm=clip_norm))
    finally:
        handle.remove()
    assert len(norms) == N_CLIPS // 8
    assert (max(norms) <= clip_norm * 1.001) == bool(clip_norm)


def test_patience_stops_early_and_keeps_the_best_weights(tmp_path: Path) -> None:
    data = make_data(contrary=True, n_selection=12)  # every epoch makes the selection loss worse
    stopped = train(tmp_path / "stopped", train_config(epochs=50, patience=3), data)
    losses = [row["selection_loss"] for row in history(tmp_path / "stopped")]
    assert len(losses) == 1 + 3
    assert losses[0] == min(losses)
    assert same(stopped, train(tmp_path / "one", train_config(epochs=1), data))


def test_a_run_that_ran_out_of_patience_stays_stopped(tmp_path: Path) -> None:
    data, config = make_data(contrary=True, n_selection=12), train_config(epochs=50, patience=2)
    first = train(tmp_path, config, data)
    again = train(tmp_path, config, data)
    assert len(history(tmp_path)) == 3
    assert same(first, again)


def test_without_patience_all_epochs_run_and_the_last_weights_stay(tmp_path: Path) -> None:
    data = make_data(contrary=True, n_selection=12)
    last = train(tmp_path / "with", train_config(epochs=4), data)
    assert len(history(tmp_path / "with")) == 4
    alone = train(tmp_path / "without", train_config(epochs=4), replace(data, selection=data.selection[:0]))
    assert same(last, alone)  # looking at the split changes nothing


def test_plateau_halves_the_rate_like_torchs(tmp_path: Path) -> None:
    n_epochs = 2 * (PLATEAU_PATIENCE + 1) + 3
    data = make_data(contrary=True, n_selection=12)
    train(tmp_path, train_config(epochs=n_epochs, schedule="plateau", learning_rate=0.01), data)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE, threshold=0.0
    )
    rows = history(tmp_path)
    for row in rows:
        assert row["learning_rate"] == pytest.approx(optimizer.param_groups[0]["lr"])
        schedule.step(row["selection_loss"])
    assert rows[-1]["learning_rate"] == pytest.approx(0.01 / 4)


def test_a_loss_that_is_no_number_stops_the_work_and_saves_nothing(tmp_path: Path) -> None:
    model = Linear()
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(WorkError, match=r"loss became nan in epoch 1.*train\.learning_rate"):
        train(tmp_path, train_config(), model=model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop_after", [1, 3])
@pytest.mark.parametrize("how", [{}, {"optimizer": "sgd", "swa": 0.5}])
def test_a_resumed_training_gives_the_very_same_weights(tmp_path: Path, stop_after: int, how: dict[str, Any]) -> None:
    augment = AugmentConfig(**NO_AUGMENT | {"roll": 1.0, "noise": 1.0, "spec_probability": 0.5})
    mix = MixConfig(mixup=0.2, between_class=0.2, cutmix=0.2, energy_mixup=0.2)
    config = train_config(epochs=5, ema_decay=0.9, schedule="onecycle", **how)
    data = make_data(n_selection=6)
    whole = train(tmp_path / "whole", config, data, augment=augment, mix=mix)

    reads = 0

    def read(index: np.ndarray) -> np.ndarray:
        nonlocal reads
        reads += 1
        if reads > stop_after * 5 + 2:  # four steps and a look at the selection split an epoch
            raise KeyboardInterrupt
        return data.read_batch(index)

    broken = TrainingData(read, data.labels, data.train, data.selection, N_CLASSES, 100)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", config, broken, augment=augment, mix=mix)
    assert len(history(tmp_path / "broken")) == stop_after
    torch.manual_seed(99)
    assert same(train(tmp_path / "broken", config, data, augment=augment, mix=mix), whole)
    assert len(history(tmp_path / "broken")) == 5


def test_one_seed_gives_one_model(tmp_path: Path) -> None:
    augment = AugmentConfig(**NO_AUGMENT | {"roll": 1.0})
    found = [train(tmp_path / name, train_config(), augment=augment, mix=MixConfig()) for name in ("a", "b")]
    assert same(*found)


@pytest.mark.parametrize("content", [b"", b"no state", "cut", "schema", "list", "keys"])
def test_a_damaged_state_is_refused_by_name(tmp_path: Path, content: bytes | str) -> None:
    config, path = train_config(), tmp_path / "state.pt"
    train(tmp_path, config)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    else:
        state = torch.load(path, weights_only=True)
        changed: dict[str, Any] = {"schema": state | {"schema": 99}, "list": [1, 2], "keys": {"schema": 1}}
        torch.save(changed[content], path)
    with pytest.raises(ModelFileError, match=r"(?s)state\.pt is damaged.*Delete it"):
        train(tmp_path, config)


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    really_open = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *how, **more: Full() if "state" in path.name else really_open(path, *how, **more)
    )
    with pytest.raises(DiskError, match=r"No space left to write .*state\.pt"):
        train(tmp_path, train_config())
    assert not list(tmp_path.iterdir())


def test_the_state_runs_no_code_when_it_is_read(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return json.dumps, ({},)

    torch.save({"schema": 1, "state": Evil()}, tmp_path / "state.pt")
    with pytest.raises(ModelFileError, match=r"state\.pt is damaged"):
        train(tmp_path, train_config())


def test_a_last_step_under_half_the_size_is_left_out(tmp_path: Path) -> None:
    seen: list[int] = []
    data = make_data()

    def read(index: np.ndarray) -> np.ndarray:
        seen.append(len(index))
        return data.read_batch(index)

    for n_clips, expected in ((32, [16, 16]), (23, [16]), (24, [16, 8]), (5, [5])):
        seen.clear()
        part = TrainingData(read, data.labels, data.train[:n_clips], data.selection, N_CLASSES, 100)
        train(tmp_path / str(n_clips), train_config(epochs=1, batch_size=16), part)
        assert seen == expected


class Hungry(Linear):
    """Runs out of memory where it gets more clips than fit."""

    def __init__(self, room: int, error: Exception, after: int = 0) -> None:
        super().__init__()
        self.room, self.error, self.after = room, error, after
        self.seen: list[int] = []

    def forward_features(self, features: Tensor) -> Tensor:
        self.seen.append(len(features))
        if self.training and len(features) > self.room and len(self.seen) > self.after:
            raise self.error
        return super().forward_features(features)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:125] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("after", [0, 5])
def test_out_of_memory_is_survived_with_the_same_steps_and_weights(
    tmp_path: Path, error: Exception, after: int, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = Hungry(3, error, after)
    torch.manual_seed(0)
    roomy = Linear()
    model.load_state_dict(roomy.state_dict())
    steps: list[str] = []
    hook = register_optimizer_step_pre_hook(lambda *_: steps.append("step"))
    try:
        expected = train(tmp_path / "roomy", train_config(), model=roomy)
        n_steps = len(steps)
        found = train(tmp_path / "tight", train_config(), model=model)
    finally:
        hook.remove()
    assert len(steps) == 2 * n_steps == 24
    assert max(model.seen[after + 2 :]) <= 3  # 8, then 4, then 2 for ever after
    for ours, theirs in zip(found.state_dict().values(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    said = capsys.readouterr().err
    assert "out of memory with 8 clips at a time; going on from the same step with 4 and 2 accumulations" in said
    assert "with 2 and 4 accumulations" in said


def test_the_smaller_micro_batch_outlives_a_restart_and_stands_in_the_history(tmp_path: Path) -> None:
    train(tmp_path, train_config(epochs=1), model=Hungry(3, OUT_OF_MEMORY[0]))
    again = Hungry(3, OUT_OF_MEMORY[0])
    train(tmp_path, train_config(epochs=2), model=again)
    assert max(again.seen) <= 3
    with (tmp_path / "history.csv").open(newline="") as file:
        assert [row["micro_batch"] for row in csv.DictReader(file)] == ["2", "2"]


def test_all_micro_batches_of_a_step_are_mixed_in_one_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[str] = []

    def note(features: Tensor, targets: Tensor, kind: str, config: MixConfig) -> tuple[Tensor, Tensor]:
        kinds.append(kind)
        return features, targets

    monkeypatch.setattr(step, "mix_features", note)
    mix = MixConfig(mixup=0.4, cutmix=0.4)
    train(tmp_path, train_config(epochs=6, batch_size=4, accumulation=4), mix=mix)
    assert len(kinds) == 6 * N_CLIPS // 4
    steps = [kinds[start : start + 4] for start in range(0, len(kinds), 4)]
    assert all(len(set(parts)) == 1 for parts in steps)
    assert {parts[0] for parts in steps} == {"mixup", "cutmix", ""}


def test_one_clip_too_many_for_the_memory_ends_with_advice(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"Out of memory with 1 clips.*train\.checkpointing"):
        train(tmp_path, train_config(), model=Hungry(0, OUT_OF_MEMORY[0]))


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        train(tmp_path, train_config(), model=Hungry(3, RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
