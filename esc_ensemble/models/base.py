"""What every model has in common."""

from __future__ import annotations

from torch import Tensor, nn


class AudioClassifier(nn.Module):
    """Waveform (B, T) float32 in [-1, 1] at `sample_rate` Hz to logits (B, C), with the front end inside.

    Training puts SpecAugment and mixing between `frontend` and `forward_features`. In eval mode nothing
    draws a random number.
    """

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
