"""Parameter groups, the course of the learning rate, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from esc_ensemble.config import LoopConfig
from esc_ensemble.models.base import ParameterGroup

ONECYCLE_START = 1.0 / 25.0
ONECYCLE_END = 1.0 / 25e4


def build_optimizer(groups: Sequence[ParameterGroup], config: LoopConfig) -> tuple[torch.optim.Optimizer, list[float]]:
    """AdamW, or SGD with Nesterov momentum; no weight decay on biases, norms and other vectors.

    Returns:
        The optimizer, and the peak learning rate of each of its groups.
    """
    options: list[dict[str, Any]] = []
    for group in groups:
        matrices = [parameter for parameter in group.parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in group.parameters if parameter.ndim <= 1]
        options += [
            {"params": parameters, "weight_decay": decay, "lr": group.learning_rate}
            for parameters, decay in ((matrices, config.weight_decay), (vectors, 0.0))
            if parameters
        ]
    peaks = [float(option["lr"]) for option in options]
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0.0
        return torch.optim.SGD(options, momentum=config.momentum, nesterov=nesterov, fused=True), peaks
    return torch.optim.AdamW(options, fused=True), peaks


def learning_rate_factor(config: LoopConfig, step: int, n_steps: int) -> float:
    """Gives the part of the peak learning rate at `step` of `n_steps`: a pure function, so nothing to save.

    `onecycle` is the two cosines of torch's OneCycleLR with its default start and end; `cosine` rises in a
    line and falls to 0; `constant` and `plateau` stay (plateau's own factor is kept by the loop). While weights are
    averaged evenly (`swa`) the rate stays as it was when that began: steps must be wide for the mean to gain.
    """
    if config.swa:
        step = min(step, math.ceil((1.0 - config.swa) * n_steps))
    if config.schedule in ("constant", "plateau"):
        return 1.0
    if config.schedule == "onecycle":
        peak = config.warmup * n_steps - 1.0
        if peak > 0 and step <= peak:
            return _cosine_between(ONECYCLE_START, 1.0, step / peak)
        return _cosine_between(1.0, ONECYCLE_END, (step - peak) / (n_steps - 1.0 - peak))
    rise = config.warmup * n_steps
    if step < rise:
        return (step + 1.0) / (rise + 1.0)
    return _cosine_between(1.0, 0.0, (step - rise) / max(n_steps - rise, 1.0))


def set_learning_rate(
    optimizer: Any,
    peaks: Sequence[float],
    config: LoopConfig,
    *,
    step: int,
    steps_per_epoch: int,
    plateau_factor: float,
) -> None:
    """Sets the learning rate of every group for `step`, counted over the whole training."""
    factor = learning_rate_factor(config, step, config.epochs * steps_per_epoch) * plateau_factor
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["lr"] = peak * factor


def _cosine_between(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * min(max(part, 0.0), 1.0)))


class AveragedWeights:
    """Exponential moving average of named weights and running statistics, or at the end their even mean.

    The decay rises from 0.1 as (1 + n) / (10 + n) up to its setting, so that the first, random weights are
    soon forgotten. With decay 0 it just holds the last weights. Even updates (stochastic weight averaging,
    Izmailov 2018) start the mean anew from the first of them. Running statistics of norms are averaged like weights,
    instead of computed again for the mean, which costs a pass over all clips.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.n_even = 0
        self.weights = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], *, even: bool = False) -> None:
        """Moves the average towards the present weights; all `even` ones count alike."""
        if even:
            decay = self.n_even / (self.n_even + 1.0)
            self.n_even += 1
        else:
            decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
            self.n_updates += 1
        averages: list[Tensor] = []
        latest: list[Tensor] = []
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                averages.append(self.weights[name])
                latest.append(tensor)
            else:
                self.weights[name].copy_(tensor)
        torch._foreach_lerp_(averages, latest, 1.0 - decay)
