"""Model B: a partly unfrozen wav2vec2, HuBERT or WavLM with learned layer weights and attentive pooling."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from esc_ensemble.config import BackboneConfig, BackboneTrainConfig, LoopConfig
from esc_ensemble.errors import ConfigError
from esc_ensemble.models.backbones import Backbone
from esc_ensemble.models.base import AudioClassifier, ParameterGroup
from esc_ensemble.models.pooling import FramePool

FROZEN_BLOCK = re.compile(r"frontend\.blocks\.(\d+)(?=\.)")
LEARNING_BLOCK = re.compile(r"blocks\.(\d+)(?=\.)")
EPS = 1e-7
"""Added to the variance of a waveform, as transformers' feature extractor does."""


class FrozenTrunk(nn.Module):
    """What is never trained: waveform (B, T) to hidden states (B, S, D, L).

    Normalisation, convolutional encoder, positions and the first blocks. S states: the first block's input and every
    block's output, or with `last_alone` the last of them. Frames that hear nothing but zeros at the clip's end are
    zero in all states: so they can be told, and are left out by the pooling. `frame_pool` frames are averaged into one.
    """

    def __init__(
        self, network: Any, n_blocks: int, *, normalize: bool, last_alone: bool = False, frame_pool: int = 1
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.last_alone = last_alone
        self.frame_pool = frame_pool
        config = network.config
        self.convolutions = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.stable = bool(getattr(config, "do_stable_layer_norm", False))
        self.feature_extractor = network.feature_extractor
        self.feature_projection = network.feature_projection
        self.pos_conv_embed = network.encoder.pos_conv_embed
        blocks = list(network.encoder.layers)
        self.blocks = nn.ModuleList(blocks[:n_blocks])
        # A stable network has its norm after the last block, the others before the first.
        ends_here = n_blocks == len(blocks)
        self.layer_norm = nn.Identity() if self.stable and not ends_here else network.encoder.layer_norm
        self.ends_here = ends_here
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> FrozenTrunk:  # noqa: ARG002 - frozen is frozen
        """Stays in eval mode, whatever is asked for."""
        return super().train(False)

    def forward(self, waveform: Tensor) -> Tensor:
        n_heard = _n_heard(waveform)  # (B,)
        if self.normalize:
            waveform = normalize_waveform(waveform, n_heard)
        hidden = self.feature_extractor(waveform).transpose(1, 2)  # (B, 512, L) -> (B, L, 512)
        hidden = _first(self.feature_projection(hidden))  # (B, L, D)
        hidden = hidden + self.pos_conv_embed(hidden)
        if not self.stable:
            hidden = self.layer_norm(hidden)
        outputs = [hidden, *run_blocks(self.blocks, hidden, position_bias(self.blocks, hidden))]
        if self.stable and self.ends_here:
            outputs[-1] = self.layer_norm(outputs[-1])
        kept = torch.stack(outputs[-1:] if self.last_alone else outputs, dim=1)  # (B, S, L, D)
        frames = torch.arange(hidden.shape[1], device=hidden.device)
        sounding = frames < self._n_frames(n_heard)[:, None]  # (B, L)
        states = (kept * sounding[:, None, :, None]).transpose(2, 3)  # (B, S, D, L)
        if self.frame_pool == 1:
            return states
        pooled = F.avg_pool1d(states.flatten(0, 1), self.frame_pool, ceil_mode=True)  # (B, S, D, L) -> (B·S, D, L / p)
        return pooled.reshape(*states.shape[:2], *pooled.shape[1:])

    def _n_frames(self, n_samples: Tensor) -> Tensor:
        """Numbers of frames that hear something of the first `n_samples` (B,), at least 1."""
        for kernel, stride in self.convolutions:
            n_samples = torch.div(n_samples - kernel, stride, rounding_mode="floor") + 1
        return n_samples.clamp(min=1)


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
            self.blocks, hidden, self._position_bias(hidden), checkpointing=self.checkpointing and self.training
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

    def _position_bias(self, hidden: Tensor) -> Tensor | None:
        return position_bias([*self.frontend.blocks, *self.blocks], hidden)


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


def run_blocks(
    blocks: Sequence[nn.Module] | nn.ModuleList, hidden: Tensor, bias: Tensor | None, *, checkpointing: bool = False
) -> list[Tensor]:
    """Runs transformer blocks on (B, L, D) one after another and gives each one's output.

    `bias` is WavLM's for positions, shared by all its blocks.
    """
    outputs = []
    for block in blocks:
        run = block if bias is None else partial(block, position_bias=bias)
        hidden = _first(checkpoint(run, hidden, use_reentrant=False) if checkpointing else run(hidden))
        outputs.append(hidden)
    return outputs


def position_bias(blocks: Sequence[nn.Module] | nn.ModuleList, hidden: Tensor) -> Tensor | None:
    """WavLM's bias (B·heads, L, L), which its first block holds for all; None for other networks."""
    attention = getattr(blocks[0], "attention", None) if len(blocks) else None
    if not hasattr(attention, "rel_attn_embed"):
        return None
    assert attention is not None
    batch, n_frames, _ = hidden.shape
    bias = cast(Tensor, attention.compute_bias(n_frames, n_frames))  # (heads, L, L)
    return bias.unsqueeze(0).repeat(batch, 1, 1, 1).view(-1, n_frames, n_frames)


def normalize_waveform(waveform: Tensor, n_heard: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the first `n_heard` (B,) samples of (B, T); zeros after them stay zeros."""
    heard = torch.arange(waveform.shape[1], device=waveform.device) < n_heard[:, None]
    count = n_heard[:, None].to(waveform.dtype)
    centred = (waveform - waveform.sum(dim=1, keepdim=True) / count) * heard
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / (variance + EPS).sqrt()


def _n_heard(waveform: Tensor) -> Tensor:
    """Lengths (B,) of the clips without exact zeros at their end; a silent clip has its whole length."""
    n_samples = waveform.shape[1]
    place = torch.arange(1, n_samples + 1, device=waveform.device)
    n_heard = (place * (waveform != 0.0)).amax(dim=1)
    return torch.where(n_heard == 0, torch.full_like(n_heard, n_samples), n_heard)


def _first(output: Any) -> Tensor:
    """The tensor itself, or the first of several: what versions and families of transformers give differs."""
    return cast(Tensor, output if isinstance(output, Tensor) else output[0])
