"""Model A: CNNs with squeeze-excitation on log-mel and PCEN."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esc_ensemble.config import SpecCnnConfig
from esc_ensemble.features.frontend import SpectrogramFrontend
from esc_ensemble.models.base import AudioClassifier
from esc_ensemble.models.conv import Conv2d
from esc_ensemble.models.pooling import mean_max_pool


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from the means of all (Hu 2018): (B, D, F, L) -> same."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)
        self.down = nn.Linear(channels, hidden)
        self.up = nn.Linear(hidden, channels)

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.gate(maps.mean(dim=(2, 3)))

    def gate(self, means: Tensor) -> Tensor:
        """Gives what each channel is multiplied by: means over all places (B, D) -> (B, D, 1, 1)."""
        return self.up(F.relu(self.down(means))).sigmoid()[:, :, None, None]


class PooledExcitation(SqueezeExcitation):
    """Squeeze-excitation, then average pooling by 2: (B, D, F, L) -> (B, D, F // 2, L // 2).

    The two factors commute, so the maps are pooled first: the gate meets a quarter of the places, and their
    mean comes from the pooled maps and from the odd row and column that pooling leaves out.
    """

    def forward(self, maps: Tensor) -> Tensor:
        n_mels, n_frames = maps.shape[2:]
        pooled = F.avg_pool2d(maps, 2)
        if torch.compiler.is_compiling():  # an exported graph keeps no branch: its frames may be odd or even
            return pooled * self.gate(maps.mean(dim=(2, 3)))
        total = 4.0 * pooled.sum(dim=(2, 3))  # (B, D)
        if n_mels % 2:
            total = total + maps[:, :, -1, :].sum(dim=2)
        if n_frames % 2:
            total = total + maps[:, :, : n_mels - n_mels % 2, -1].sum(dim=2)
        return pooled * self.gate(total / (n_mels * n_frames))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with squeeze-excitation and a shortcut: (B, D_in, F, L) -> (B, D_out, F/s, L/s)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.attention = SqueezeExcitation(channels_out)
        shortcut: list[nn.Module] = []
        if stride > 1:
            # Averaging first, so that the 1x1 convolution does not throw away three of four places.
            shortcut.append(nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False))
        if stride > 1 or channels_in != channels_out:
            shortcut += [nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(maps)), inplace=True)
        inner = self.attention(self.norm2(self.conv2(inner)))
        return F.relu(inner + self.shortcut(maps), inplace=True)


class SpecCnn(AudioClassifier):
    """Compact residual CNN, model A's default.

    A 5x5 stem at stride 2 and stride 2 in every stage leave little work where maps are large: most of the
    weights, and little of the time, are in the last stages. Embedding: mean and maximum over time.
    """

    def __init__(self, config: SpecCnnConfig, frontend: SpectrogramFrontend, sample_rate: int, n_classes: int) -> None:
        super().__init__(frontend, sample_rate, n_classes, embedding_size=2 * config.widths[-1])
        first = config.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(frontend.n_channels, first, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        )
        sizes = [first, *config.widths]
        self.stages = nn.Sequential(*[ResidualBlock(n_in, n_out, 2) for n_in, n_out in pairwise(sizes)])
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(self.embedding_size, n_classes)

    def forward_features(self, features: Tensor) -> Tensor:
        return mean_max_pool(self.run_blocks(self.stages, self.stem(features)))

    def forward_head(self, embedding: Tensor) -> Tensor:
        return self.head(self.dropout(embedding))


class SpecCnnReference(AudioClassifier):
    """The reference system's Spec-CNN, for comparison.

    Stem 5x5, then four stages of 3x3 convolution, BN, ReLU and squeeze-excitation with widths 32, 64, 96, 128
    and average pooling by 2 between stages; average pooling, dropout. The stem works at full resolution.
    """

    def __init__(self, config: SpecCnnConfig, frontend: SpectrogramFrontend, sample_rate: int, n_classes: int) -> None:
        super().__init__(frontend, sample_rate, n_classes, embedding_size=config.widths[-1])
        first = config.widths[0]
        layers: list[nn.Module] = [
            nn.Conv2d(frontend.n_channels, first, 5, padding=2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        ]
        channels = first
        for width in config.widths:
            layers += [
                Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                PooledExcitation(width),
                nn.Identity(),  # keeps the numbering of layers in saved weights
            ]
            channels = width
        self.trunk = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(channels, n_classes)

    def forward_features(self, features: Tensor) -> Tensor:
        return self.trunk(features).mean(dim=(2, 3))  # (B, D, F', L') -> (B, D)

    def forward_head(self, embedding: Tensor) -> Tensor:
        return self.head(self.dropout(embedding))
