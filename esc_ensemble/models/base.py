"""What every model has in common."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from esc_ensemble.config import LoopConfig


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained alike."""

    name: str
    parameters: list[nn.Parameter]
    learning_rate: float
    """Peak of its course."""
    first_epoch: int = 0
    """Epochs before this one leave the group as it is."""


class Trainable(nn.Module):
    """What the training loop asks of a network. With `checkpointing` training keeps only the maps between blocks."""

    checkpointing = False
    frozen: tuple[str, ...] = ()
    """Names of submodules that no training changes."""

    def parameter_groups(self, train: LoopConfig) -> list[ParameterGroup]:
        """All that is trained, by learning rate."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [ParameterGroup("all", trained, train.learning_rate)]

    def changing(self) -> dict[str, Tensor]:
        """Parameters and buffers that training changes, by their names in the whole network."""
        tensors = self.state_dict()
        return {name: tensor for name, tensor in tensors.items() if name.split(".")[0] not in self.frozen}

    def load_changing(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `changing` gave.

        Raises:
            RuntimeError: names or shapes are not those of this network.
        """
        self.load_state_dict({**self.state_dict(), **tensors})
        if tensors.keys() != self.changing().keys():
            raise RuntimeError("weights are missing")

    def run_blocks(self, blocks: Iterable[nn.Module], maps: Tensor) -> Tensor:
        """Runs blocks one after another; those under `checkpointing` are run once more going backwards."""
        for block in blocks:
            if self.checkpointing and self.training:
                maps = checkpoint(block, maps, use_reentrant=False, context_fn=partial(_contexts, block))
            else:
                maps = block(maps)
        return maps


class AudioClassifier(Trainable):
    """Waveform (B, T) float32 in [-1, 1] at `sample_rate` Hz to logits (B, C), with the front end inside.

    Training puts SpecAugment and mixing between `frontend` and `forward_features`. In eval mode nothing
    draws a random number.
    """

    clips_at_once = 16
    """Clips that are predicted together, each at several shifts."""
    class_part = "head"
    """Name of the submodule that belongs to the classes, and is no use for others."""

    def __init__(self, frontend: nn.Module, sample_rate: int, n_classes: int, embedding_size: int) -> None:
        super().__init__()
        self.frontend = frontend
        self.sample_rate = sample_rate
        self.n_classes = n_classes
        self.embedding_size = embedding_size

    def renamed(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gives weights of another network of this kind the names that they have in this one."""
        return dict(weights)

    def forward_features(self, features: Tensor) -> Tensor:
        """Front-end features (B, ...) to embeddings (B, D)."""
        raise NotImplementedError

    def forward_head(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, D) to logits (B, C)."""
        raise NotImplementedError

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (B, T) to logits (B, C)."""
        return self.forward_head(self.forward_features(self.frontend(waveform)))


def digest_weights(module: nn.Module) -> str:
    """Tells weights and buffers, with their names, from all others."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    return digest.hexdigest()


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For the first run of a block and for the second."""
    return nullcontext(), _still_statistics(block)


@contextmanager
def _still_statistics(block: nn.Module) -> Iterator[None]:
    """Keeps batch norms' running statistics from moving twice for the same maps."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
