"""What every model has in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class AudioClassifier(nn.Module):
    """Waveform (B, T) float32 in [-1, 1] at `sample_rate` Hz to logits (B, C), with the front end inside.

    Training puts SpecAugment and mixing between `frontend` and `forward_features`. In eval mode nothing
    draws a random number. With `checkpointing` training keeps only the maps between blocks.
    """

    checkpointing = False

    def __init__(self, frontend: nn.Module, sample_rate: int, n_classes: int, embedding_size: int) -> None:
        super().__init__()
        self.frontend = frontend
        self.sample_rate = sample_rate
        self.n_classes = n_classes
        self.embedding_size = embedding_size

    def forward_features(self, features: Tensor) -> Tensor:
        """Front-end features (B, ...) to embeddings (B, D)."""
        raise NotImplementedError

    def forward_head(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, D) to logits (B, C)."""
        raise NotImplementedError

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (B, T) to logits (B, C)."""
        return self.forward_head(self.forward_features(self.frontend(waveform)))

    def run_blocks(self, blocks: Iterable[nn.Module], maps: Tensor) -> Tensor:
        """Runs blocks one after another; those under `checkpointing` are run once more going backwards."""
        for block in blocks:
            if self.checkpointing and self.training:
                maps = checkpoint(block, maps, use_reentrant=False, context_fn=partial(_contexts, block))
            else:
                maps = block(maps)
        return maps


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
