"""Model A Pro: broadcasted residual learning (BC-ResNet, Kim 2021, arXiv 2106.04140)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from esc_ensemble.config import BcResNetConfig
from esc_ensemble.features.frontend import SpectrogramFrontend
from esc_ensemble.models.base import AudioClassifier

N_BLOCKS = (2, 2, 4, 4)
STRIDED_STAGES = (1, 2)


class SubSpectralNorm(nn.Module):
    """Batch normalisation of each group of neighbouring bands on its own (Chang 2021): (B, D, F, L) -> same.

    Bands differ in level and spread, which one norm over all of them hides. F must be divisible by `groups`.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.norm = nn.BatchNorm2d(channels * groups)

    def forward(self, maps: Tensor) -> Tensor:
        _, channels, n_bands, n_frames = maps.shape
        # (B, D, F, L) -> (B, D·G, F/G, L) and back. A reshape, since channels-last maps have no such view.
        grouped = maps.reshape(-1, channels * self.groups, n_bands // self.groups, n_frames)
        return self.norm(grouped).reshape(-1, channels, n_bands, n_frames)


class BroadcastBlock(nn.Module):
    """out = ReLU(f2 + f1(mean of f2 over frequency) [+ input]): (B, D_in, F, L) -> (B, D_out, F/s, L).

    f2 works on the map, with a depthwise convolution over frequency; f1 on one row of frames, with a depthwise
    dilated convolution over time and a pointwise one, and is broadcast over the bands. A block that changes
    the number of channels starts with a pointwise convolution and has no identity shortcut.
    """

    def __init__(self, n_in: int, n_out: int, *, stride: int, dilation: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.changes_channels = n_in != n_out
        self.transition = nn.Sequential()
        if self.changes_channels:
            self.transition = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)
            )
        self.frequency = nn.Conv2d(n_out, n_out, (3, 1), stride=(stride, 1), padding=(1, 0), groups=n_out, bias=False)
        self.frequency_norm = SubSpectralNorm(n_out, groups)
        self.temporal = nn.Sequential(
            nn.Conv2d(n_out, n_out, (1, 3), padding=(0, dilation), dilation=(1, dilation), groups=n_out, bias=False),
            nn.BatchNorm2d(n_out),
            nn.SiLU(),
            nn.Conv2d(n_out, n_out, 1, bias=False),
            nn.Dropout2d(dropout),
        )

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.frequency_norm(self.frequency(self.transition(maps)))
        out = inner + self.temporal(inner.mean(dim=2, keepdim=True))  # (B, D, F, L) + (B, D, 1, L)
        return F.relu(out if self.changes_channels else out + maps)


class BcResNet(AudioClassifier):
    """BC-ResNet of any width, 8·scale channels in its first stage; scale 8 is BC-ResNet-8.

    A 5x5 stem halves the bands; four stages of 2, 2, 4, 4 blocks halve them twice more and never touch time,
    where dilations of 1, 2, 4, 8 widen the view instead. Embedding: mean over what the classifier's depthwise
    and pointwise convolutions leave.
    """

    def __init__(self, config: BcResNetConfig, frontend: SpectrogramFrontend, sample_rate: int, n_classes: int) -> None:
        base = round(8 * config.scale)
        widths = [2 * base, base, int(1.5 * base), 2 * base, int(2.5 * base)]
        super().__init__(frontend, sample_rate, n_classes, embedding_size=4 * base)
        self.stem = nn.Sequential(
            nn.Conv2d(frontend.n_channels, widths[0], 5, stride=(2, 1), padding=2, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        blocks: list[nn.Module] = []
        for number, (n_in, n_out) in enumerate(pairwise(widths)):
            blocks += [
                BroadcastBlock(
                    n_out if place else n_in,
                    n_out,
                    stride=2 if number in STRIDED_STAGES and not place else 1,
                    dilation=2**number,
                    groups=config.subbands,
                    dropout=config.dropout,
                )
                for place in range(N_BLOCKS[number])
            ]
        self.blocks = nn.Sequential(*blocks)
        last = widths[-1]
        self.classifier = nn.Sequential(
            nn.Conv2d(last, last, 5, padding=(0, 2), groups=last, bias=False),
            nn.Conv2d(last, 4 * base, 1, bias=False),
            nn.BatchNorm2d(4 * base),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(4 * base, n_classes)

    def forward_features(self, features: Tensor) -> Tensor:
        return self.classifier(self.run_blocks(self.blocks, self.stem(features))).mean(dim=(2, 3))

    def forward_head(self, embedding: Tensor) -> Tensor:
        return self.head(embedding)
