"""Model B: a partly unfrozen wav2vec2, HuBERT or WavLM with learned layer weights and attentive pooling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from esc_ensemble.config import BackboneConfig, BackboneTrainConfig, LoopConfig
from esc_ensemble.errors import ConfigError
from esc_ensemble.models.backbones import Backbone
from esc_ensemble.models.base import AudioClassifier, ParameterGroup
from esc_ensemble.models.frozen_trunk import FrozenTrunk, run_blocks
from esc_ensemble.models.pooling import FramePool

FROZEN_BLOCK = re.compile(r"frontend\.blocks\.(\d+)(?=\.)")
LEARNING_BLOCK = re.compile(r"blocks\.(\d+)(?=\.)")


class WaveBackbone(AudioClassifier):
    """Waveform (B, T) to logits (B, C); the front end is the frozen trunk.

    Embedding: hidden states of all blocks, added with learned weights (a softmax, as in Peters 2018), pooled over time.
    """

    frontend: FrozenTrunk
    frozen = ("frontend",)
    clips_at_once = 2

    def __init__(
        self, config: BackboneConfig, backbone: Backbone, network: Any, sample_rate: int, n_classes: int
    ) -> None:
        check_fit(config, backbone, sample_rate)
        n_blocks = backbone.n_blocks
        n_frozen = n_blocks - config.unfreeze
        trunk = FrozenTrunk(
            network,
            n_frozen,
            normalize=backbone.normalize,
            last_alone=config.fuse == "last",
            frame_pool=config.frame_pool,
        )
        size = int(network.config.hidden_size)
        pool = FramePool(config.pooling, size, config.attention_size)
        super().__init__(trunk, sample_rate, n_classes, embedding_size=pool.size)
        self.fuses = config.fuse == "all"
        self.blocks = nn.ModuleList(list(network.encoder.layers)[n_frozen:])
        ends_with_norm = trunk.stable and not trunk.ends_here
        self.layer_norm = network.encoder.layer_norm if ends_with_norm else nn.Identity()
        if self.fuses:
            self.layer_weights = nn.Parameter(torch.zeros(n_blocks + 1))
        self.pool = pool
        self.head = nn.Sequential(nn.LayerNorm(pool.size), nn.Dropout(config.dropout), nn.Linear(pool.size, n_classes))

    def forward_features(self, features: Tensor) -> Tensor:
        last = features[:, -1]  # (B, D, L)
        sounding = (last != 0.0).any(dim=1)  # (B, L)
        sounding = sounding | ~sounding.any(dim=1, keepdim=True)  # of nothing at all, all is heard
        hidden = last.transpose(1, 2)
        outputs = run_blocks(
            self.blocks, hidden, self.positions(hidden), checkpointing=self.checkpointing and self.training
        )
        if outputs:
            outputs[-1] = self.layer_norm(outputs[-1])
        if not self.fuses:
            return self.pool((outputs[-1] if outputs else hidden).transpose(1, 2), sounding)
        share = self.layer_weights.softmax(dim=0)
        n_given = features.shape[1]
        fused = torch.einsum("bsdl,s->bdl", features, share[:n_given].to(features.dtype))
        for output, weight in zip(outputs, share[n_given:].unbind(), strict=True):
            fused = fused + weight * output.transpose(1, 2)
        return self.pool(fused, sounding)

    def forward_head(self, embedding: Tensor) -> Tensor:
        return self.head(embedding)

    def parameter_groups(self, train: LoopConfig) -> list[ParameterGroup]:
        """The head, and each block with its own rate, lower the farther down, and its first epoch of training."""
        assert isinstance(train, BackboneTrainConfig)
        ours = [*self.pool.parameters(), *self.head.parameters(), *([self.layer_weights] if self.fuses else [])]
        groups = [ParameterGroup("pooling, head", ours, train.learning_rate)]
        n_frozen = len(self.frontend.blocks)
        for depth, block in enumerate(reversed(self.blocks)):
            parameters = list(block.parameters())
            if depth == 0:
                parameters += list(self.layer_norm.parameters())
            rate = train.backbone_rate * train.layer_decay**depth
            name = f"block {n_frozen + len(self.blocks) - depth}"
            groups.append(ParameterGroup(name, parameters, rate, first_epoch=train.thaw_epochs * (depth + 1)))
        return groups

    def renamed(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Blocks are counted anew where the other network's frozen part was shorter or longer."""
        theirs = 1 + max((int(found[1]) for name in weights if (found := FROZEN_BLOCK.match(name))), default=-1)
        named: dict[str, Tensor] = {}
        for name, tensor in weights.items():
            found = FROZEN_BLOCK.match(name) or LEARNING_BLOCK.match(name)
            if found:
                number = int(found[1]) + (0 if name.startswith("frontend.") else theirs)
                frozen = number < len(self.frontend.blocks)
                place = f"frontend.blocks.{number}" if frozen else f"blocks.{number - len(self.frontend.blocks)}"
                named[place + name[found.end() :]] = tensor
            elif name.startswith(("layer_norm.", "frontend.layer_norm.")):
                inside = not isinstance(self.frontend.layer_norm, nn.Identity)
                named[f"{'frontend.' if inside else ''}layer_norm.{name.rpartition('.')[2]}"] = tensor
            else:
                named[name] = tensor
        return named

    def positions(self, hidden: Tensor) -> dict[str, Tensor]:
        """What the learning blocks are told of positions."""
        return self.frontend.positions([*self.frontend.blocks, *self.blocks], hidden)


def check_fit(config: BackboneConfig, backbone: Backbone, sample_rate: int) -> None:
    """Refuses settings that a backbone cannot follow.

    Raises:
        ConfigError: it hears another rate, or has fewer blocks.
    """
    if sample_rate != backbone.sample_rate:
        raise ConfigError(
            f"data.sample_rate is {sample_rate}, but {config.source} hears {backbone.sample_rate} Hz: "
            f"set data.sample_rate to {backbone.sample_rate} (clips of any rate are resampled)."
        )
    if config.unfreeze > backbone.n_blocks:
        raise ConfigError(f"model.unfreeze is {config.unfreeze}, but {config.source} has {backbone.n_blocks} blocks.")
