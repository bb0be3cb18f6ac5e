"""The networks, and what they ask of the front end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from esc_ensemble.config.kinds import Positive, Share
from esc_ensemble.settings import Settings


class SpecCnnConfig(Settings):
    """Model A."""

    name: Literal["spec_cnn", "spec_cnn_reference"] = "spec_cnn"
    """Compact residual CNN (spec_cnn) or the reference system's plain one (spec_cnn_reference)."""
    widths: tuple[Positive, ...] = (24, 48, 96, 160)
    """Channels of the stages, each of which halves time and frequency."""
    dropout: Share = 0.3
    """Dropout before the classifier."""

    def conflicts(self) -> Iterator[str]:
        if not self.widths:
            yield "widths must name at least one stage"


class BcResNetConfig(Settings):
    """Model A Pro."""

    name: Literal["bc_resnet"] = "bc_resnet"
    """BC-ResNet as published (Kim 2021)."""
    scale: Annotated[float, Field(ge=1.0, le=8.0)] = 3.0
    """Width: 8 is BC-ResNet-8, with 64 channels in its first stage and for a GPU; 1 is the smallest published."""
    subbands: Annotated[int, Field(ge=1, le=64)] = 5
    """Groups of neighbouring bands that are normalised on their own."""
    dropout: Share = 0.1
    """Dropout of whole channels in the temporal part of each block."""


class BackboneConfig(Settings):
    """Model B."""

    name: Literal["wave_backbone"] = "wave_backbone"
    """wav2vec2, HuBERT, WavLM and their like."""
    source: str = "facebook/wav2vec2-base"
    """A folder with a transformers checkpoint, a model id of the Hugging Face hub, or torchaudio:WAVLM_BASE_PLUS."""
    unfreeze: Annotated[int, Field(ge=0)] = 4
    """Last blocks that are trained; all below stays as it is, and 0 trains pooling and head alone."""
    frame_pool: Annotated[int, Field(ge=1, le=8)] = 1
    """Frames averaged into one below the blocks that learn: 2 halves an epoch's time and the cache, at some risk."""
    fuse: Literal["all", "last"] = "all"
    """Learned weights over the outputs of all blocks, or the last one's alone."""
    pooling: Literal["attention", "mean", "statistics"] = "attention"
    """Frames to one vector: a learned weighting, the mean, or mean and standard deviation."""
    attention_size: Positive = 256
    """Hidden size of the learned weighting."""
    dropout: Share = 0.4
    """Dropout before the classifier."""


def bc_resnet_bands(n_mels: int) -> tuple[int, int, int]:
    """Gives the numbers of bands inside BC-ResNet after each of its strides, which halve and round up."""
    first = -(-n_mels // 2)
    second = -(-first // 2)
    return first, second, -(-second // 2)


def fits_bc_resnet(n_mels: int, subbands: int) -> bool:
    """Whether every sub-spectral norm can cut its bands evenly, and the classifier's 5 x 5 has 5 bands to see."""
    bands = bc_resnet_bands(n_mels)
    return bands[-1] >= 5 and all(n_bands % subbands == 0 for n_bands in bands)
