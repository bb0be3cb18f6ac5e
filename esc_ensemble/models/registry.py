"""Which models there are, by name. A new model is a builder function and a line in `MODELS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from esc_ensemble.config import (
    BackboneConfig,
    BcResNetConfig,
    DataConfig,
    FrontendConfig,
    SpecCnnConfig,
    TrainerConfig,
)
from esc_ensemble.errors import ConfigError, ModelFileError, did_you_mean
from esc_ensemble.features.frontend import SpectrogramFrontend
from esc_ensemble.models.backbones import Backbone, build_backbone, load_weights, read_backbone, require_weights
from esc_ensemble.models.base import AudioClassifier
from esc_ensemble.models.bcresnet import BcResNet
from esc_ensemble.models.spec_cnn import SpecCnn, SpecCnnReference
from esc_ensemble.models.wave_backbone import WaveBackbone, check_fit
from esc_ensemble.settings import Settings, build


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed to build a network again, weights apart."""

    model: Settings
    frontend: FrontendConfig | None
    """None where the network hears waveforms."""
    data: DataConfig
    class_names: tuple[str, ...]
    backbone: Backbone | None = None
    """What the source of a pretrained network says of it; None for all others."""

    @classmethod
    def of(cls, config: TrainerConfig, class_names: tuple[str, ...], *, backbone: Backbone | None = None) -> ModelSpec:
        """Gives the spec of the network that a trainer's settings ask for; a backbone's source is read if not given.

        Raises:
            ModelFileError: the backbone's source cannot be read.
            ConfigError: the backbone cannot follow the settings.
        """
        frontend = config.frontend if isinstance(config.frontend, FrontendConfig) else None
        if isinstance(config.model, BackboneConfig):
            if backbone is None:
                backbone = read_backbone(config.model.source)
                require_weights(config.model.source)
            check_fit(config.model, backbone, config.data.sample_rate)
            if conflict := config.data.length_conflict(backbone.least_samples(), "one frame of the backbone"):
                raise ConfigError(f"The settings cannot be used: {conflict}.")
        return cls(config.model, frontend, config.data, class_names, backbone)

    @property
    def name(self) -> str:
        """The model's name in the registry."""
        return str(self.model.name)  # type: ignore[attr-defined]

    def to_json(self) -> dict[str, Any]:
        """Gives the plain values that `from_json` reads."""
        return {
            "name": self.name,
            "arguments": self.model.model_dump(mode="json"),
            "data": self.data.model_dump(mode="json"),
            "class_names": list(self.class_names),
            **({"frontend": self.frontend.model_dump(mode="json")} if self.frontend else {}),
            **({"backbone": self.backbone.to_json()} if self.backbone else {}),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], origin: str) -> ModelSpec:
        """Reads what `to_json` wrote.

        Raises:
            ModelFileError: the model's name is unknown or a key is missing.
            ConfigError: a setting is unknown or out of range.
        """
        settings_kind, _ = _entry(values.get("name", ""), origin)
        part = "backbone" if settings_kind is BackboneConfig else "frontend"
        absent = [key for key in ("arguments", part, "data", "class_names") if key not in values]
        if absent:
            raise ModelFileError(f"{origin} lacks {', '.join(absent)}: it was not written by esc_ensemble.")
        return cls(
            model=build(settings_kind, values["arguments"], origin),
            frontend=build(FrontendConfig, values["frontend"], origin) if part == "frontend" else None,
            data=build(DataConfig, values["data"], origin),
            class_names=_texts(values["class_names"], origin),
            backbone=Backbone.from_json(values["backbone"], origin) if part == "backbone" else None,
        )


def _texts(values: Any, origin: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise ModelFileError(f"{origin}: class_names must be a list of names, found {values!r}.")
    return tuple(values)


def build_model(spec: ModelSpec) -> AudioClassifier:
    """Builds the network with fresh random weights from torch's default generator, a backbone's too."""
    _, builder = _entry(spec.name, "The model settings")
    return builder(spec)


def build_pretrained(spec: ModelSpec) -> AudioClassifier:
    """Builds the network as training begins with it: with fresh random weights, but for a backbone's source's own.

    Raises:
        ModelFileError: the source's weights cannot be read, or do not fit.
    """
    if not isinstance(spec.model, BackboneConfig):
        return build_model(spec)
    assert spec.backbone
    network = build_backbone(spec.backbone)
    load_weights(spec.model.source, network)
    return _wave_backbone(spec, network)


def _spec_cnn(spec: ModelSpec) -> AudioClassifier:
    assert isinstance(spec.model, SpecCnnConfig) and spec.frontend
    kind = SpecCnn if spec.name == "spec_cnn" else SpecCnnReference
    frontend = SpectrogramFrontend(spec.frontend, spec.data.sample_rate)
    return kind(spec.model, frontend, spec.data.sample_rate, len(spec.class_names))


def _bc_resnet(spec: ModelSpec) -> AudioClassifier:
    assert isinstance(spec.model, BcResNetConfig) and spec.frontend
    frontend = SpectrogramFrontend(spec.frontend, spec.data.sample_rate)
    return BcResNet(spec.model, frontend, spec.data.sample_rate, len(spec.class_names))


def _wave_backbone(spec: ModelSpec, network: nn.Module | None = None) -> AudioClassifier:
    assert isinstance(spec.model, BackboneConfig) and spec.backbone
    network = network or build_backbone(spec.backbone)
    return WaveBackbone(spec.model, spec.backbone, network, spec.data.sample_rate, len(spec.class_names))


MODELS: dict[str, tuple[type[Settings], Callable[[ModelSpec], AudioClassifier]]] = {
    "spec_cnn": (SpecCnnConfig, _spec_cnn),
    "spec_cnn_reference": (SpecCnnConfig, _spec_cnn),
    "bc_resnet": (BcResNetConfig, _bc_resnet),
    "wave_backbone": (BackboneConfig, _wave_backbone),
}


def _entry(name: str, origin: str) -> tuple[type[Settings], Callable[[ModelSpec], AudioClassifier]]:
    if not isinstance(name, str) or name not in MODELS:
        raise ModelFileError(f'{origin}: there is no model "{name}".{did_you_mean(str(name), MODELS)}')
    return MODELS[name]
