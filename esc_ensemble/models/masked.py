"""wav2vec 2.0 as it is pretrained without labels: hidden frames are told from others of the same clip (Baevski 2020).

The network is transformers' own. Its loss is computed here from similarities of all frames of a clip with each other,
a matrix product, where transformers gathers every negative on its own; a test holds the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esc_ensemble.config import POSITION_GROUPS, MaskedModelConfig, MaskingConfig
from esc_ensemble.errors import ConfigError
from esc_ensemble.files import write_json
from esc_ensemble.models.backbones import Backbone, build_masked, load_masked_weights, read_backbone
from esc_ensemble.models.base import Trainable
from esc_ensemble.models.wave_backbone import normalize_waveform
from esc_ensemble.models.weights import save_weights

CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
"""Kernels and strides of wav2vec2's encoder: a frame each 20 ms at 16 kHz."""
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

    @property
    def checkpointing(self) -> bool:  # type: ignore[override]
        """Whether only the maps between blocks are kept."""
        return bool(self.network.is_gradient_checkpointing)

    @checkpointing.setter
    def checkpointing(self, wanted: bool) -> None:
        if wanted:
            self.network.gradient_checkpointing_enable({"use_reentrant": False})
        elif self.checkpointing:
            self.network.gradient_checkpointing_disable()

    def n_frames(self, n_samples: int) -> int:
        """Number of frames L of T samples."""
        for kernel, stride in zip(self.network.config.conv_kernel, self.network.config.conv_stride, strict=True):
            n_samples = (n_samples - kernel) // stride + 1
        return n_samples

    def forward(self, waveform: Tensor, hidden: Tensor, negatives: Tensor) -> MaskedOutput:
        """Judges the guesses at hidden frames (B, L); `negatives` (B, L, K) are places in the same clip."""
        if self.normalize:
            whole = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
            waveform = normalize_waveform(waveform, whole)
        output = self.network(waveform, mask_time_indices=hidden)
        n_codewords = self.network.config.num_codevectors_per_group * self.network.config.num_codevector_groups
        with torch.autocast(device_type=waveform.device.type, enabled=False):
            guess = F.normalize(output.projected_states.float(), dim=-1)  # (B, L, D)
            target = F.normalize(output.projected_quantized_states.float(), dim=-1)
            logits = contrastive_logits(guess, target, negatives) / self.network.config.contrastive_logits_temperature
            chosen = logits[hidden]  # (B, L, 1 + K) -> (hidden frames, 1 + K)
            right = torch.zeros(len(chosen), dtype=torch.int64, device=chosen.device)
            return MaskedOutput(
                contrast=F.cross_entropy(chosen, right),
                diversity=1.0 - output.codevector_perplexity.float() / n_codewords,
                top1=(chosen.argmax(dim=1) == 0).float().mean(),
            )


def contrastive_logits(guess: Tensor, target: Tensor, negatives: Tensor) -> Tensor:
    """Cosines (B, L, 1 + K) of each guess (B, L, D) with its own target, then with those at `negatives` (B, L, K).

    A negative of the very same codewords is out of question: its cosine is -inf.
    """
    cosines = guess @ target.mT  # (B, L, L)
    own = cosines.diagonal(dim1=1, dim2=2)[..., None]  # (B, L, 1)
    same = (target @ target.mT).gather(2, negatives) > SAME
    others = cosines.gather(2, negatives).masked_fill(same, -torch.inf)
    return torch.cat([own, others], dim=2)


def draw_hidden(n_clips: int, n_frames: int, masking: MaskingConfig) -> Tensor:
    """Draws which frames are hidden, (B, L) bool: as many spans in each clip, from torch's default generator.

    Raises:
        ConfigError: the clips are too short for two spans.
    """
    n_starts = n_frames - masking.span + 1
    n_spans = min(max(1, round(masking.share * n_frames / masking.span)), max(n_starts, 0))
    if n_starts < 2 or masking.span * n_spans < 2:
        raise ConfigError(
            f"masking.span {masking.span} does not fit into the {n_frames} frames of a clip: lower it, or raise "
            "data.clip_seconds."
        )
    starts = torch.rand(n_clips, n_starts).argsort(dim=1)[:, :n_spans]  # without repetition
    places = (starts[:, :, None] + torch.arange(masking.span)).flatten(1)  # (B, spans · span)
    return torch.zeros(n_clips, n_frames, dtype=torch.bool).scatter_(1, places, True)


def draw_negatives(hidden: Tensor, n_negatives: int) -> Tensor:
    """Draws for each hidden frame other hidden frames of its clip, all equally likely: (B, L) -> (B, L, K).

    What stands at frames that are not hidden has no meaning.
    """
    n_clips, n_frames = hidden.shape
    order = hidden.int().argsort(dim=1, descending=True, stable=True)  # hidden frames first, in their order
    n_hidden = hidden.sum(dim=1)
    rank = hidden.cumsum(dim=1) - 1  # a hidden frame's place in `order`
    others = (n_hidden - 1)[:, None, None]
    drawn = (torch.rand(n_clips, n_frames, n_negatives) * others).long().clamp(max=others - 1)
    drawn = drawn + (drawn >= rank[:, :, None])  # leaves out the frame itself
    return order[:, :, None].expand(-1, -1, n_negatives).gather(1, drawn.clamp(max=n_frames - 1))


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
        "num_negatives": masking.negatives,
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
