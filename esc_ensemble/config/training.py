"""How long, how fast, on what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from esc_ensemble.config.kinds import OnMachine, Positive, Share
from esc_ensemble.settings import Settings


class LoopConfig(Settings):
    """How long, how fast, on what."""

    epochs: Positive = 60
    """Passes over the training clips; all are run unless patience says otherwise."""
    batch_size: Positive = 16
    """Clips a micro-batch on each process; halved by itself where memory runs out."""
    accumulation: Positive = 1
    """Micro-batches to a step of the optimiser, which moves by the mean over all their clips."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or stochastic gradient descent with Nesterov momentum."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-3
    """Peak learning rate; sgd wants one of about 0.1."""
    momentum: Share = 0.9
    """Momentum of sgd."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 2e-2
    """Weight decay, decoupled in AdamW; none on biases and norms. sgd wants about 1e-3."""
    schedule: Literal["onecycle", "cosine", "plateau", "constant"] = "onecycle"
    """Course of the learning rate. Plateau needs a selection split."""
    warmup: Share = 0.2
    """Part of all steps in which the rate rises (onecycle and cosine)."""
    clip_norm: Annotated[float, Field(ge=0.0)] = 5.0
    """Largest norm of the gradient; 0 turns clipping off."""
    ema_decay: Share = 0.99
    """Decay a step of the averaged weights that are kept; 0 keeps the last weights."""
    swa: Share = 0.0
    """Last part of the training over which weights are averaged evenly instead (stochastic weight averaging)."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better selection loss before stopping; 0 runs all epochs. Needs a selection split."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast: auto is bf16 on CPUs and GPUs that have it, fp16 on other GPUs."""
    channels_last: Annotated[bool, OnMachine] = True
    """Memory format of the network."""
    checkpointing: Annotated[bool, OnMachine] = False
    """Keep only the maps between blocks and compute the rest again going backwards: less memory, a third slower."""
    device: Annotated[Literal["auto", "cpu", "cuda"], OnMachine] = "auto"
    """Where to train; auto takes a GPU where there is one."""
    threads: Annotated[int, Field(ge=0), OnMachine] = 0
    """CPU threads; 0 takes the free cores."""


class TrainConfig(LoopConfig):
    """How long, how fast, on what, and by which loss a classifier is trained."""

    loss: Literal["cross_entropy", "kl"] = "cross_entropy"
    """Against soft labels; kl is cross-entropy less the labels' own entropy, so that 0 is a perfect fit."""
    label_smoothing: Share = 0.05
    """Probability mass spread evenly over all classes; of a union (energy_mixup) each class's pull towards 0.5."""
