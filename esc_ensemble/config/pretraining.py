"""Everything that pretraining without labels can be told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from esc_ensemble.config.augment import WaveformAugmentConfig
from esc_ensemble.config.data import DataConfig
from esc_ensemble.config.kinds import OnMachine, Positive, Share
from esc_ensemble.config.training import LoopConfig
from esc_ensemble.settings import Settings

POSITION_GROUPS = 16
"""Groups of the convolution that gives positions, as in all published networks."""


class MaskedDataConfig(DataConfig):
    """Recordings for pretraining, at the rate that speech networks hear."""

    sample_rate: Annotated[int, Field(ge=4000, le=192000)] = 16000


class MaskedTrainConfig(LoopConfig):
    """A long training at a rate that transformers bear."""

    epochs: Positive = 100
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-3
    """Peak learning rate of the blocks."""
    encoder_rate: Annotated[float, Field(gt=0.0)] = 0.2
    """Rate of convolutions and codebooks as a part of it: at all of it targets turn to noise before guesses begin."""
    schedule: Literal["onecycle", "cosine", "plateau", "constant"] = "cosine"
    warmup: Share = 0.1
    ema_decay: Share = 0.0
    channels_last: Annotated[bool, OnMachine] = False


class MaskedModelConfig(Settings):
    """A wav2vec2 and its codebooks."""

    name: Literal["wav2vec2_pretraining"] = "wav2vec2_pretraining"
    """wav2vec 2.0 as published (Baevski 2020)."""
    source: str = ""
    """A wav2vec2 to go on with, as --model.source of train-b; where empty, a fresh one of the sizes below."""
    conv_size: Positive = 128
    """Channels of the seven convolutions; 512 in published networks."""
    hidden_size: Positive = 192
    """Width of the blocks; 768 in base networks."""
    n_blocks: Positive = 4
    """Transformer blocks; 12 in base networks."""
    n_heads: Positive = 4
    """Heads of attention."""
    feed_forward: Positive = 768
    """Width inside a block; 3072 in base networks."""
    position_frames: Positive = 32
    """Frames that the convolution for positions sees; 128 in published networks."""
    codebooks: Positive = 2
    """Codebooks, one entry of each of which makes a target."""
    codewords: Annotated[int, Field(ge=2)] = 64
    """Entries of a codebook; 320 in published networks."""
    code_size: Positive = 128
    """Size of targets and predictions; 256 in base networks."""
    dropout: Share = 0.1
    """Dropout in the blocks and before the codebooks."""

    def conflicts(self) -> Iterator[str]:
        for name, parts in (("n_heads", self.n_heads), ("groups of positions", POSITION_GROUPS)):
            if self.hidden_size % parts:
                yield f"hidden_size {self.hidden_size} cannot be cut into {parts} {name}"
        if self.code_size % self.codebooks:
            yield f"code_size {self.code_size} cannot be cut into {self.codebooks} codebooks"


class MaskingConfig(Settings):
    """What is hidden, and what it is told from."""

    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.4
    """Hidden frames at most, since spans overlap; 0.65 for speech."""
    span: Annotated[int, Field(ge=1)] = 4
    """Frames hidden at a stretch, of 20 ms each; 10 for speech."""
    negatives: Positive = 50
    """Other hidden frames of the same clip, among whose targets the right one is to be found."""
    other_negatives: Annotated[int, Field(ge=0)] = 50
    """Hidden frames of other clips beside them; 0 as for speech, whose clips are less alike in themselves."""
    temperatures: tuple[float, float] = (1.0, 0.5)
    """Of the choice of codewords, in the first epoch and the last."""
    diversity: Annotated[float, Field(ge=0.0)] = 0.1
    """Weight of the loss that wants all codewords used."""

    def conflicts(self) -> Iterator[str]:
        if min(self.temperatures) <= 0.0:
            yield f"temperatures {self.temperatures} must be above 0"


class PretrainWav2Vec2Config(Settings):
    """Everything that `esc-ens pretrain wav2vec2` can be told."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Start of all random numbers; the same seed on the same machine gives the same weights."""
    data: MaskedDataConfig = MaskedDataConfig()
    """Recordings to waveforms."""
    augment: WaveformAugmentConfig = WaveformAugmentConfig()
    """Random changes to waveforms."""
    masking: MaskingConfig = MaskingConfig()
    """What is hidden, and what it is told from."""
    train: MaskedTrainConfig = MaskedTrainConfig()
    """The training."""
    model: MaskedModelConfig = MaskedModelConfig()
    """The network."""
    normalize: bool = True
    """Give waveforms mean 0 and variance 1, here and where the network is used."""

    def conflicts(self) -> Iterator[str]:
        if self.data.selects or self.train.patience or self.train.schedule == "plateau":
            yield "there are no labels to score: leave data.selection_fraction and train.patience at 0, and plateau out"
