"""The part of a pretrained network that is never trained: waveforms to hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

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
        config, encoder = network.config, network.encoder
        self.convolutions = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.feature_extractor = network.feature_extractor
        self.feature_projection = getattr(network, "feature_projection", nn.Identity())  # SEW may have none
        conformer = config.model_type == "wav2vec2-conformer"
        squeezes = config.model_type == "sew"
        self.stable = conformer or bool(getattr(config, "do_stable_layer_norm", False))
        self.squeeze = int(config.squeeze_factor) if squeezes else 1
        self.feature_norm = network.layer_norm if squeezes else nn.Identity()
        self.pos_conv_embed = None if conformer else encoder.pos_conv_embed
        self.embed_positions = encoder.embed_positions if conformer else None
        blocks = list(encoder.layers)
        self.blocks = nn.ModuleList(blocks[:n_blocks])
        # A stable network has its norm after the last block, the others before the first.
        ends_here = n_blocks == len(blocks)
        self.layer_norm = nn.Identity() if self.stable and not ends_here else encoder.layer_norm
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
        waveform = waveform.to(next(self.feature_extractor.parameters()).dtype)  # counted in full, heard in half
        hidden = self.feature_norm(self.feature_extractor(waveform).transpose(1, 2))  # (B, 512, L) -> (B, L, 512)
        hidden = self._with_positions(first_of(self.feature_projection(hidden)))  # (B, L, D)
        if not self.stable:
            hidden = self.layer_norm(hidden)
        outputs = [hidden, *run_blocks(self.blocks, hidden, self.positions(self.blocks, hidden))]
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

    def positions(self, blocks: Sequence[nn.Module] | nn.ModuleList, hidden: Tensor) -> dict[str, Tensor]:
        """What all blocks are told of positions: WavLM's bias, or the Conformer's embeddings; nothing of others."""
        if self.embed_positions is not None:
            return {"relative_position_embeddings": self.embed_positions(hidden)}
        bias = position_bias(blocks, hidden)
        return {} if bias is None else {"position_bias": bias}

    def _with_positions(self, hidden: Tensor) -> Tensor:
        """(B, L, D) to the same with positions; SEW's has its frames averaged, two and two or more."""
        if self.pos_conv_embed is None:
            return hidden
        if self.squeeze == 1:
            return hidden + self.pos_conv_embed(hidden)
        maps = hidden.transpose(1, 2)
        positions = self.pos_conv_embed(maps)  # (B, D, L / s)
        pooled = F.avg_pool1d(maps, self.squeeze)
        n_frames = hidden.shape[1] // self.squeeze
        return (pooled[..., :n_frames] + positions[..., :n_frames]).transpose(1, 2)

    def _n_frames(self, n_samples: Tensor) -> Tensor:
        """Numbers of frames that hear something of the first `n_samples` (B,), at least 1."""
        for kernel, stride in self.convolutions:
            n_samples = torch.div(n_samples - kernel, stride, rounding_mode="floor") + 1
        return torch.div(n_samples, self.squeeze, rounding_mode="floor").clamp(min=1)


def run_blocks(
    blocks: Sequence[nn.Module] | nn.ModuleList,
    hidden: Tensor,
    positions: Mapping[str, Tensor],
    *,
    checkpointing: bool = False,
) -> list[Tensor]:
    """Runs transformer blocks on (B, L, D) one after another and gives each one's output.

    `positions` is what all of them are told beside.
    """
    outputs = []
    for block in blocks:
        run = partial(block, **positions)
        hidden = first_of(checkpoint(run, hidden, use_reentrant=False) if checkpointing else run(hidden))
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


def first_of(output: Any) -> Tensor:
    """The tensor itself, or the first of several: what versions and families of transformers give differs."""
    return cast(Tensor, output if isinstance(output, Tensor) else output[0])
