"""What can be set: one frozen class a topic, one documented line a field.

The files in `configs/` are these defaults written out; a test keeps the two equal.
"""

from __future__ import annotations

from esc_ensemble.config.augment import AugmentConfig, MixConfig, WaveformAugmentConfig
from esc_ensemble.config.baseline import BaselineConfig, BaselineDataConfig, BaselineModelConfig, MfccConfig
from esc_ensemble.config.blend import BlendConfig
from esc_ensemble.config.data import DataConfig
from esc_ensemble.config.frontend import FrontendConfig, PcenConfig
from esc_ensemble.config.models import BackboneConfig, BcResNetConfig, SpecCnnConfig, bc_resnet_bands, fits_bc_resnet
from esc_ensemble.config.pretraining import (
    POSITION_GROUPS,
    MaskedModelConfig,
    MaskedTrainConfig,
    MaskingConfig,
    PretrainWav2Vec2Config,
)
from esc_ensemble.config.trainers import (
    NEEDS_SELECTION,
    AMixConfig,
    AProFrontendConfig,
    AProTrainConfig,
    ATrainConfig,
    BackboneTrainConfig,
    BDataConfig,
    BFrontendConfig,
    SpectrogramTrainerConfig,
    TrainAConfig,
    TrainAProConfig,
    TrainBConfig,
    TrainerConfig,
)
from esc_ensemble.config.training import LoopConfig, TrainConfig
from esc_ensemble.settings import Settings

__all__ = [
    "COMMANDS",
    "NEEDS_SELECTION",
    "POSITION_GROUPS",
    "AMixConfig",
    "AProFrontendConfig",
    "AProTrainConfig",
    "ATrainConfig",
    "AugmentConfig",
    "BDataConfig",
    "BFrontendConfig",
    "BackboneConfig",
    "BackboneTrainConfig",
    "BaselineConfig",
    "BaselineDataConfig",
    "BaselineModelConfig",
    "BcResNetConfig",
    "BlendConfig",
    "DataConfig",
    "FrontendConfig",
    "LoopConfig",
    "MaskedModelConfig",
    "MaskedTrainConfig",
    "MaskingConfig",
    "MfccConfig",
    "MixConfig",
    "PcenConfig",
    "PretrainWav2Vec2Config",
    "SpecCnnConfig",
    "SpectrogramTrainerConfig",
    "TrainAConfig",
    "TrainAProConfig",
    "TrainBConfig",
    "TrainConfig",
    "TrainerConfig",
    "WaveformAugmentConfig",
    "bc_resnet_bands",
    "fits_bc_resnet",
]

COMMANDS: dict[str, type[Settings]] = {
    "train-a": TrainAConfig,
    "train-a-pro": TrainAProConfig,
    "train-b": TrainBConfig,
    "baseline": BaselineConfig,
    "pretrain-wav2vec2": PretrainWav2Vec2Config,
    "blend": BlendConfig,
}
"""The settings of each command that has any."""
