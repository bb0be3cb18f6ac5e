"""wav2vec 2.0 as it is pretrained without labels: hidden frames are told from other hidden frames (Baevski 2020).

The network is transformers' own. Its loss is computed here from similarities of hidden frames with all others, a matrix
product, where transformers gathers every negative on its own; a test holds the two equal.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esc_ensemble.config import POSITION_GROUPS, LoopConfig, MaskedModelConfig, MaskedTrainConfig, MaskingConfig
from esc_ensemble.errors import ConfigError
from esc_ensemble.files import write_json
from esc_ensemble.models.backbones import Backbone, build_masked, load_masked_weights, read_backbone
from esc_ensemble.models.base import ParameterGroup, Trainable
from esc_ensemble.models.frozen_trunk import normalize_waveform
from esc_ensemble.models.weights import save_weights

CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
"""Kernels and strides of wav2vec2's encoder: a frame each 20 ms at 16 kHz."""
MAKES_TARGETS = ("feature_extractor.", "feature_projection.layer_norm.", "quantizer.", "project_q.")
"""Parts of the network, in transformers' names, on the way from waveforms to targets."""
SAME = 1.0 - 1e-6
"""Cosine from which on two targets are the same codewords."""


@dataclass(frozen=True)
class MaskedOutput:
    """Scalars over the hidden frames of a batch."""

    contrast: Tensor
    """Mean cross-entropy of telling the right target from the negatives."""
    diversity: Tensor
    """How far the codewords are from being used alike, 0 to 1."""
    top1: Tensor
    """Part of the hidden frames whose right target is the nearest."""


class MaskedWav2Vec2(Trainable):
    """Waveform (B, T) float32 to what there is to learn from its hidden frames.

    `network` is transformers' `Wav2Vec2ForPreTraining`.
    """

    def __init__(self, network: Any, *, normalize: bool, sample_rate: int) -> None:
        super().__init__()
        self.network = network
        self.normalize = normalize
        self.sample_rate = sample_rate
        self._checkpointing = False

    @property
    def checkpointing(self) -> bool:  # type: ignore[override]
        """Whether only the maps between blocks are kept."""
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, wanted: bool) -> None:
        if wanted != self._checkpointing:
            with warnings.catch_warnings():  # a later transformers has other names for these
                warnings.simplefilter("ignore", FutureWarning)
                if wanted:
                    self.network.gradient_checkpointing_enable({"use_reentrant": False})
                else:
                    self.network.gradient_checkpointing_disable()
        self._checkpointing = wanted

    def parameter_groups(self, train: LoopConfig) -> list[ParameterGroup]:
        """What makes the targets is trained slower than what guesses them."""
        assert isinstance(train, MaskedTrainConfig)
        named = dict(self.network.named_parameters())
        slow = [name for name in named if any(part in name for part in MAKES_TARGETS)]
        return [
            ParameterGroup("blocks", [named[name] for name in named if name not in slow], train.learning_rate),
            ParameterGroup(
                "convolutions, codebooks", [named[name] for name in slow], train.learning_rate * train.encoder_rate
            ),
        ]

    def n_frames(self, n_samples: int) -> int:
        """Number of frames L of T samples."""
        for kernel, stride in zip(self.network.config.conv_kernel, self.network.config.conv_stride, strict=True):
            n_samples = (n_samples - kernel) // stride + 1
        return n_samples

    def forward(self, waveform: Tensor, hidden: Tensor, negatives: Tensor) -> MaskedOutput:
        """Judges the guesses at the M frames marked in `hidden` (B, L), by `negatives` (M, K), places in B · L."""
        if self.normalize:
            whole = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
            waveform = normalize_waveform(waveform, whole)
        output = self.network(waveform, mask_time_indices=hidden)
        config = self.network.config
        n_codewords = config.num_codevectors_per_group * config.num_codevector_groups
        with torch.autocast(device_type=waveform.device.type, enabled=False):
            guess, target = output.projected_states.float(), output.projected_quantized_states.float()  # (B, L, D) each
            logits = contrastive_logits(guess, target, hidden, negatives) / config.contrastive_logits_temperature
            right = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
            return MaskedOutput(
                contrast=F.cross_entropy(logits, right),
                diversity=1.0 - output.codevector_perplexity.float() / n_codewords,
                top1=(logits.argmax(dim=1) == 0).float().mean(),
            )


def contrastive_logits(guess: Tensor, target: Tensor, hidden: Tensor, negatives: Tensor) -> Tensor:
    """Cosines (M, 1 + K) of guesses with their own targets, then with those at `negatives`.

    A negative of the very same codewords is out of question: its cosine is -inf.

    Args:
        guess: (B, L, D).
        target: (B, L, D).
        hidden: which M frames are judged, (B, L) bool.
        negatives: places in the B · L frames, (M, K).
    """
    targets = F.normalize(target, dim=-1).flatten(0, 1)  # (B, L, D) -> (B · L, D)
    guesses = F.normalize(guess, dim=-1)[hidden]  # (M, D)
    own = targets[hidden.flatten()]  # (M, D)
    same = (own @ targets.T).gather(1, negatives) > SAME
    others = (guesses @ targets.T).gather(1, negatives).masked_fill(same, -torch.inf)
    return torch.cat([(guesses * own).sum(dim=1, keepdim=True), others], dim=1)


def draw_hidden(n_clips: int, n_frames: int, masking: MaskingConfig) -> Tensor:
    """Draws which frames are hidden, (B, L) bool: as many spans in each clip, from torch's default generator.

    Raises:
        ConfigError: the clips are too short for two spans.
    """
    n_starts, n_spans = _spans(n_frames, masking)
    if not _fits(n_frames, masking):
        raise ConfigError(
            f"masking.span {masking.span} does not fit into the {n_frames} frames of a clip: lower it, or raise "
            "data.clip_seconds."
        )
    starts = torch.rand(n_clips, n_starts).argsort(dim=1)[:, :n_spans]  # without repetition
    places = (starts[:, :, None] + torch.arange(masking.span)).flatten(1)  # (B, spans · span)
    return torch.zeros(n_clips, n_frames, dtype=torch.bool).scatter_(1, places, True)


def least_frames(masking: MaskingConfig) -> int:
    """Number of frames of the shortest clip that can be masked."""
    least = masking.span + 1 if masking.span > 1 else max(2, ceil(1.5 / masking.share))
    while not _fits(least, masking):
        least += 1
    return least


def _spans(n_frames: int, masking: MaskingConfig) -> tuple[int, int]:
    """Numbers of places where a hidden span can begin, and of spans."""
    n_starts = n_frames - masking.span + 1
    return n_starts, min(max(1, round(masking.share * n_frames / masking.span)), max(n_starts, 0))


def _fits(n_frames: int, masking: MaskingConfig) -> bool:
    """Whether there is a choice of spans, and another hidden frame for each to be told from."""
    n_starts, n_spans = _spans(n_frames, masking)
    return n_starts >= 2 and masking.span * n_spans >= 2


def draw_negatives(hidden: Tensor, masking: MaskingConfig) -> Tensor:
    """Draws for each hidden frame other hidden frames of its clip, then some of other clips, from torch's generator.

    Args:
        hidden: (B, L) bool, of which M are true.
        masking: how many of each.

    Returns:
        Places in the B · L frames, (M, K).
    """
    n_clips, n_frames = hidden.shape
    order = hidden.int().argsort(dim=1, descending=True, stable=True)  # hidden frames first, in their order
    n_hidden = hidden.sum(dim=1)
    clip = torch.arange(n_clips)[:, None].expand_as(hidden)[hidden][:, None]  # (M, 1)
    rank = (hidden.cumsum(dim=1) - 1)[hidden][:, None]  # of the frame itself in `order`
    drawn = _below((n_hidden[clip] - 1).expand(-1, masking.negatives))
    drawn = drawn + (drawn >= rank)  # leaves out the frame itself
    negatives = clip * n_frames + order[clip, drawn]
    if n_clips == 1 or not masking.other_negatives:
        return negatives
    other = (clip + 1 + _below(torch.full((len(clip), masking.other_negatives), n_clips - 1))) % n_clips
    return torch.cat([negatives, other * n_frames + order[other, _below(n_hidden[other])]], dim=1)


def _below(bounds: Tensor) -> Tensor:
    """Draws whole numbers from 0 up to but without each of the bounds, all equally likely."""
    return (torch.rand(bounds.shape) * bounds).long().clamp(max=bounds - 1)


def describe_masked(model: MaskedModelConfig, masking: MaskingConfig, sample_rate: int, normalize: bool) -> Backbone:
    """Says what network is to be pretrained: the source's, or a fresh one of the sizes in the settings.

    Raises:
        ModelFileError: the source cannot be read.
        ConfigError: the source is not a wav2vec2, or hears another rate or normalisation.
    """
    if model.source:
        backbone = read_backbone(model.source)
        if backbone.architecture["model_type"] != "wav2vec2":
            raise ConfigError(
                f"{model.source} is a {backbone.architecture['model_type']}: only a wav2vec2 can be pretrained here."
            )
        if backbone.sample_rate != sample_rate:
            raise ConfigError(f"{model.source} hears {backbone.sample_rate} Hz: set data.sample_rate to that.")
        if backbone.normalize != normalize:
            raise ConfigError(f"{model.source} wants normalize to be {str(backbone.normalize).lower()}: set it so.")
        return backbone
    architecture = {
        "model_type": "wav2vec2",
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.n_blocks,
        "num_attention_heads": model.n_heads,
        "intermediate_size": model.feed_forward,
        "conv_dim": [model.conv_size] * len(CONVOLUTIONS),
        "conv_kernel": [kernel for kernel, _ in CONVOLUTIONS],
        "conv_stride": [stride for _, stride in CONVOLUTIONS],
        "num_conv_pos_embeddings": model.position_frames,
        "num_conv_pos_embedding_groups": POSITION_GROUPS,
        "do_stable_layer_norm": True,  # norms before the blocks' parts: they bear higher rates
        "hidden_dropout": model.dropout,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "feat_quantizer_dropout": model.dropout,
        "num_codevector_groups": model.codebooks,
        "num_codevectors_per_group": model.codewords,
        "codevector_dim": model.code_size,
        "proj_codevector_dim": model.code_size,
        "num_negatives": masking.negatives + masking.other_negatives,
        "diversity_loss_weight": masking.diversity,
    }
    return Backbone(architecture, normalize=normalize, sample_rate=sample_rate)


def build_masked_model(model: MaskedModelConfig, backbone: Backbone) -> MaskedWav2Vec2:
    """Builds the network, with the source's weights where there is one; random ones come from torch's generator.

    Raises:
        ModelFileError: the source's weights cannot be read.
    """
    network: nn.Module = build_masked(backbone)
    if model.source:
        load_masked_weights(model.source, network)
    return MaskedWav2Vec2(network, normalize=backbone.normalize, sample_rate=backbone.sample_rate)


def save_backbone(folder: Path, model: MaskedWav2Vec2) -> None:
    """Writes a transformers checkpoint with codebooks: config, preprocessor's config and weights, each atomically."""
    config = model.network.config.to_diff_dict() | {"architectures": [type(model.network).__name__]}
    write_json(folder / "config.json", config)
    hears = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": model.normalize,
        "sampling_rate": model.sample_rate,
    }
    write_json(folder / "preprocessor_config.json", hears)
    save_weights(folder, model.network)
