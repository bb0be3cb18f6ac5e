"""One training loop for every model: waveforms and a network in, averaged weights and a history out.

All randomness of an epoch follows from (seed, fold, epoch), and nothing else is drawn anywhere, so a run that
was killed goes on from its last whole epoch to the very same weights.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.nn import functional as F

from esc_ensemble.config import AugmentConfig, LoopConfig, MixConfig, TrainConfig
from esc_ensemble.errors import WorkError
from esc_ensemble.memory import free_unused, is_out_of_memory
from esc_ensemble.metrics import log_loss, softmax, top_k_accuracy
from esc_ensemble.models.base import AudioClassifier, ParameterGroup, Trainable
from esc_ensemble.predict import predict_logits, to_waveform
from esc_ensemble.progress import progress, say, stay_silent
from esc_ensemble.training.optim import AveragedWeights, build_optimizer, set_learning_rate
from esc_ensemble.training.state import TrainingState, load_state, save_state
from esc_ensemble.training.step import Step, TrainingData, TrainingStep

PLATEAU_FACTOR = 0.5
PLATEAU_PATIENCE = 5
SELECTION_BATCH = 16
VIEWS = 1 << 20
"""Tells the draw of views from those of processes, which are counted from 0."""


def train_model(
    model: AudioClassifier,
    data: TrainingData,
    train: TrainConfig,
    augment: AugmentConfig,
    mix: MixConfig,
    *,
    accelerator: Accelerator,
    folder: Path,
    seed: int,
    title: str,
) -> AudioClassifier:
    """Trains a classifier and gives it back with its averaged weights, on the CPU, in eval mode.

    Args:
        model: with fresh weights.
        data: the clips.
        train: how.
        augment: random changes to waveforms and features.
        mix: mixing of clips.
        accelerator: device, precision and processes.
        folder: the fold's folder.
        seed: of this fold; every epoch's randomness follows from it.
        title: for the progress display.

    Raises:
        WorkError: the loss is no longer a number.
        ModelFileError: the saved state is damaged.
    """
    n_window = round(data.window_seconds * data.sample_rate)
    step = TrainingStep(model, augment, mix, train, n_window=n_window, from_features=data.read_features is not None)
    fit(step, data, train, accelerator=accelerator, folder=folder, seed=seed, title=title)
    return model


def fit(
    step: Step, data: TrainingData, train: LoopConfig, *, accelerator: Accelerator, folder: Path, seed: int, title: str
) -> None:
    """Trains the model of any kind of step; in the end it has its averaged weights, on the CPU, in eval mode.

    After each epoch `folder/state.pt` and `folder/history.csv` are written; where a state is found, training
    goes on from it.

    Raises:
        WorkError: the loss is no longer a number.
        ModelFileError: the saved state is damaged.
    """
    model = step.model
    model.checkpointing = train.checkpointing
    memory_format = torch.channels_last if train.channels_last else torch.contiguous_format
    model = model.to(accelerator.device).to(memory_format=memory_format)  # type: ignore[call-overload]
    average = AveragedWeights(model.changing(), train.ema_decay)
    groups = model.parameter_groups(train)
    optimizer, peaks = build_optimizer(groups, train)
    wrapped, optimizer = accelerator.prepare(step, optimizer)
    training = _Training(
        step, wrapped, groups, optimizer, peaks, average, data, train, accelerator, folder, seed, title
    )
    state = load_state(folder, model=model, optimizer=optimizer, average=average, accelerator=accelerator)
    if len(groups) > 1 and accelerator.is_main_process and state.epoch < train.epochs:
        say(f"{title} trains {_describe(groups, model)}")
    display = progress(title, train.epochs, "epochs", done=state.epoch)
    with display if accelerator.is_main_process else nullcontext(stay_silent) as advance:
        while state.epoch < train.epochs and not _out_of_patience(state, train):
            row = _run_epoch(training, state)
            if len(data.selection):
                row |= _score_selection(training)
            _follow_selection(training, state, row)
            state.epoch += 1
            state.history.append(row)
            if accelerator.is_main_process:
                save_state(folder, state, model=model, optimizer=optimizer, average=average, accelerator=accelerator)
            advance(note=_note(row))
    model.load_changing(state.best_weights if train.patience and state.best_weights else average.weights)
    model.cpu().eval()


def _describe(groups: Sequence[ParameterGroup], model: Trainable) -> str:
    """What is trained at which peak rate and from which epoch on, and how much is frozen."""
    counts = [sum(parameter.numel() for parameter in group.parameters) for group in groups]
    parts = []
    for group, count in zip(groups, counts, strict=True):
        later = f" from epoch {group.first_epoch + 1} on" if group.first_epoch else ""
        parts.append(f"{group.name}: {count / 1e6:.2f} M parameters at {group.learning_rate:.2g}{later}")
    frozen = sum(parameter.numel() for parameter in model.parameters()) - sum(counts)
    return "; ".join([*parts, f"frozen: {frozen / 1e6:.2f} M"])


@dataclass(frozen=True)
class _Training:
    """What stays the same from epoch to epoch."""

    step: Step
    wrapped: nn.Module
    """The step with what autocast and other processes need around it."""
    groups: list[ParameterGroup]
    optimizer: Any
    peaks: list[float]
    average: AveragedWeights
    data: TrainingData
    train: LoopConfig
    accelerator: Accelerator
    folder: Path
    seed: int
    title: str


def _run_epoch(training: _Training, state: TrainingState) -> dict[str, float]:
    train, data, accelerator = training.train, training.data, training.accelerator
    start = time.monotonic()
    # One order of clips for all processes, but augmentation of its own for each.
    order = np.random.default_rng([training.seed, state.epoch])
    rank_seed = np.random.default_rng([training.seed, state.epoch, accelerator.process_index])
    torch.manual_seed(int(rank_seed.integers(2**62)))
    views = np.random.default_rng([training.seed, state.epoch, VIEWS]).integers(data.n_views, size=len(data.labels))
    _thaw(training.groups, state.epoch)
    training.step.start_epoch(state.epoch, train.epochs)
    training.wrapped.train()
    total_loss = torch.zeros((), device=accelerator.device)
    total_right = torch.zeros((), device=accelerator.device)
    n_seen = 0
    steps = _epoch_steps(data.train, train, accelerator.num_processes, order)
    for number, chosen in enumerate(steps):
        set_learning_rate(
            training.optimizer,
            training.peaks,
            train,
            step=state.epoch * len(steps) + number,
            steps_per_epoch=len(steps),
            plateau_factor=state.plateau_factor,
        )
        mine = chosen[accelerator.process_index :: accelerator.num_processes]
        loss, n_right = _take_step(training, state, mine, views)
        total_loss += loss
        total_right += n_right
        n_seen += len(mine)
    mean_loss = float(total_loss) / n_seen
    if not math.isfinite(mean_loss):
        raise WorkError(
            f"The training loss became {mean_loss} in epoch {state.epoch + 1}. "
            "Train anew, under another name, with a lower train.learning_rate or with train.precision fp32."
        )
    seconds = time.monotonic() - start
    return {
        "epoch": state.epoch + 1,
        "learning_rate": training.optimizer.param_groups[0]["lr"],
        "train_loss": mean_loss,
        "train_top1": float(total_right) / n_seen,
        "seconds": round(seconds, 3),
        "clips_per_second": round(n_seen * accelerator.num_processes / seconds, 1),
        "micro_batch": state.micro_batch or train.batch_size,
    }


def _thaw(groups: Sequence[ParameterGroup], epoch: int) -> None:
    """Lets those parameters learn whose time has come."""
    for group in groups:
        for parameter in group.parameters:
            parameter.requires_grad_(epoch >= group.first_epoch)


def _take_step(
    training: _Training, state: TrainingState, clips: np.ndarray, views: np.ndarray
) -> tuple[Tensor, Tensor]:
    """One move of the optimiser by the mean gradient over `clips`, in micro-batches that fit into the memory.

    Where the memory runs out the micro-batch is halved, for the rest of the fold too, and the same step is
    taken again with the same mix: gradients add up to a mean over the same clips. Batch statistics, partners in the
    mix and random draws differ.

    Returns:
        The sum of the clips' losses and the number of clips whose top class is right, as scalars.

    Raises:
        WorkError: not even one clip fits, or one of several processes ran out of memory.
    """
    train, accelerator = training.train, training.accelerator
    kind = training.step.draw_mix()
    while True:
        micro_batch = min(state.micro_batch or train.batch_size, len(clips))
        try:
            loss, n_right = _add_gradients(training, clips, views, micro_batch, kind)
            break
        except RuntimeError as error:  # of which torch.OutOfMemoryError is one
            if not is_out_of_memory(error):
                raise
        if accelerator.num_processes > 1 or micro_batch == 1:
            smaller = "a smaller model" if micro_batch == 1 else "a smaller train.batch_size"
            raise WorkError(
                f"Out of memory with {micro_batch} clips at a time on each process. Go on with train.checkpointing or "
                f"fewer folds at once, or train anew, under another name, with {smaller}."
            )
        state.micro_batch = max(1, micro_batch // 2)
        training.optimizer.zero_grad()
        free_unused(accelerator.device)
        say(
            f"{training.title}: out of memory with {micro_batch} clips at a time; going on from the same step "
            f"with {state.micro_batch} and {math.ceil(len(clips) / state.micro_batch)} accumulations."
        )
    if train.clip_norm:
        accelerator.clip_grad_norm_(training.wrapped.parameters(), train.clip_norm)
    training.optimizer.step()
    training.optimizer.zero_grad()
    training.average.update(training.step.model.changing(), even=state.epoch >= train.epochs * (1.0 - train.swa))
    return loss, n_right


def _add_gradients(
    training: _Training, clips: np.ndarray, views: np.ndarray, micro_batch: int, kind: str
) -> tuple[Tensor, Tensor]:
    """Adds the mean gradient over `clips`, a micro-batch at a time, to the parameters' gradients."""
    data, accelerator = training.data, training.accelerator
    parts = np.array_split(clips, math.ceil(len(clips) / micro_batch))
    total_loss = torch.zeros((), device=accelerator.device)
    total_right = torch.zeros((), device=accelerator.device)
    for part in parts:
        if data.read_features:
            inputs = data.read_features(part, views[part])
        else:
            inputs = to_waveform(data.read(part), accelerator.device)
        targets = F.one_hot(torch.from_numpy(data.labels[part]), data.n_classes).float().to(accelerator.device)
        last = part is parts[-1]
        with nullcontext() if last else accelerator.no_sync(training.wrapped):
            loss, n_right = training.wrapped(inputs, targets, kind)
            accelerator.backward(loss * (len(part) / len(clips)))
        total_loss += loss.detach() * len(part)
        total_right += n_right
    return total_loss, total_right


def _epoch_steps(
    clips: np.ndarray, train: LoopConfig, n_processes: int, order: np.random.Generator
) -> list[np.ndarray]:
    """Shuffled clip numbers, cut into optimiser steps; a last step under half the size is left out."""
    size = train.batch_size * train.accumulation * n_processes
    shuffled = order.permutation(clips)
    shuffled = shuffled[: len(shuffled) - len(shuffled) % n_processes]  # as many for each process, none without
    steps = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    if len(steps) > 1 and len(steps[-1]) < size / 2:
        steps.pop()
    return steps


def _score_selection(training: _Training) -> dict[str, float]:
    """Loss and top-1 of the averaged weights on the selection split, the same on every process."""
    data = training.data
    judged = copy.deepcopy(training.step.model)
    assert isinstance(judged, AudioClassifier)
    judged.load_changing(training.average.weights)
    if data.read_features:
        logits = _from_features(judged.eval(), data.read_features, data.selection)
    else:
        logits = predict_logits(
            judged,
            data.read_batch,
            data.selection,
            (0.0,),
            sample_rate=data.sample_rate,
            n_classes=data.n_classes,
            device=training.accelerator.device,
            window_seconds=data.window_seconds,
            read_windows=data.read_windows,
            n_samples=data.n_samples,
        )[0]
    labels = data.labels[data.selection]
    scores = [log_loss(softmax(logits), labels), top_k_accuracy(logits, labels, 1)]
    broadcast_object_list(scores)
    return {"selection_loss": scores[0], "selection_top1": scores[1]}


@torch.inference_mode()
def _from_features(
    model: AudioClassifier, read_features: Callable[[np.ndarray, np.ndarray], Tensor], clips: np.ndarray
) -> np.ndarray:
    """Logits (N, C) of clips as they are."""
    logits = []
    for start in range(0, len(clips), SELECTION_BATCH):
        part = clips[start : start + SELECTION_BATCH]
        features = read_features(part, np.zeros_like(part))
        logits.append(model.forward_head(model.forward_features(features)).float().cpu().numpy())
    return np.concatenate(logits)


def _follow_selection(training: _Training, state: TrainingState, row: dict[str, float]) -> None:
    if "selection_loss" not in row:
        return
    train = training.train
    if row["selection_loss"] < state.best_loss:
        state.best_loss, state.best_epoch, state.plateau_epoch = (
            row["selection_loss"],
            state.epoch,
            state.epoch,
        )
        if train.patience:
            weights = training.average.weights
            state.best_weights = {name: tensor.clone() for name, tensor in weights.items()}
    elif train.schedule == "plateau" and state.epoch - state.plateau_epoch > PLATEAU_PATIENCE:
        state.plateau_factor *= PLATEAU_FACTOR
        state.plateau_epoch = state.epoch


def _out_of_patience(state: TrainingState, train: LoopConfig) -> bool:
    waited = state.epoch - 1 - state.best_epoch
    return bool(train.patience and state.best_epoch >= 0 and waited >= train.patience)


def _note(row: dict[str, float]) -> str:
    parts = [f"loss {row['train_loss']:.3f}", f"top-1 {row['train_top1']:.3f}"]
    if "selection_loss" in row:
        parts += [f"selection loss {row['selection_loss']:.3f}", f"top-1 {row['selection_top1']:.3f}"]
    return ", ".join([*parts, f"{row['clips_per_second']:.0f} clips/s"])
