"""Which models there are, by name. A new model is a builder function and a line in `MODELS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from esc_ensemble.config import BcResNetConfig, DataConfig, FrontendConfig, SpecCnnConfig
from esc_ensemble.errors import ModelFileError, did_you_mean
from esc_ensemble.features.frontend import SpectrogramFrontend
from esc_ensemble.models.base import AudioClassifier
from esc_ensemble.models.bcresnet import BcResNet
from esc_ensemble.models.spec_cnn import SpecCnn, SpecCnnReference
from esc_ensemble.settings import Settings, build


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed to build a network again, weights apart."""

    model: Settings
    frontend: FrontendConfig
    data: DataConfig
    class_names: tuple[str, ...]

    @property
    def name(self) -> str:
        """The model's name in the registry."""
        return str(self.model.name)  # type: ignore[attr-defined]

    @property
    def n_samples(self) -> int:
        """Length T in samples of the waveforms that the model was made for."""
        return round(self.data.clip_seconds * self.data.sample_rate)

    def to_json(self) -> dict[str, Any]:
        """Gives the plain values that `from_json` reads."""
        return {
            "name": self.name,
            "arguments": self.model.model_dump(mode="json"),
            "frontend": self.frontend.model_dump(mode="json"),
            "data": self.data.model_dump(mode="json"),
            "class_names": list(self.class_names),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], origin: str) -> ModelSpec:
        """Reads what `to_json` wrote.

        Raises:
            ModelFileError: the model's name is unknown or a key is missing.
            ConfigError: a setting is unknown or out of range.
        """
        absent = [key for key in ("name", "arguments", "frontend", "data", "class_names") if key not in values]
        if absent:
            raise ModelFileError(f"{origin} lacks {', '.join(absent)}: it was not written by esc_ensemble.")
        settings_kind, _ = _entry(values["name"], origin)
        return cls(
            model=build(settings_kind, values["arguments"], origin),
            frontend=build(FrontendConfig, values["frontend"], origin),
            data=build(DataConfig, values["data"], origin),
            class_names=_texts(values["class_names"], origin),
        )


def _texts(values: Any, origin: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise ModelFileError(f"{origin}: class_names must be a list of names, found {values!r}.")
    return tuple(values)


def build_model(spec: ModelSpec) -> AudioClassifier:
    """Builds the network with fresh random weights from torch's default generator."""
    _, builder = _entry(spec.name, "The model settings")
    return builder(spec)


def _spec_cnn(spec: ModelSpec) -> AudioClassifier:
    assert isinstance(spec.model, SpecCnnConfig)
    kind = SpecCnn if spec.name == "spec_cnn" else SpecCnnReference
    frontend = SpectrogramFrontend(spec.frontend, spec.data.sample_rate)
    return kind(spec.model, frontend, spec.data.sample_rate, len(spec.class_names))


def _bc_resnet(spec: ModelSpec) -> AudioClassifier:
    assert isinstance(spec.model, BcResNetConfig)
    frontend = SpectrogramFrontend(spec.frontend, spec.data.sample_rate)
    return BcResNet(spec.model, frontend, spec.data.sample_rate, len(spec.class_names))


MODELS: dict[str, tuple[type[Settings], Callable[[ModelSpec], AudioClassifier]]] = {
    "spec_cnn": (SpecCnnConfig, _spec_cnn),
    "spec_cnn_reference": (SpecCnnConfig, _spec_cnn),
    "bc_resnet": (BcResNetConfig, _bc_resnet),
}


def _entry(name: str, origin: str) -> tuple[type[Settings], Callable[[ModelSpec], AudioClassifier]]:
    if not isinstance(name, str) or name not in MODELS:
        raise ModelFileError(f'{origin}: there is no model "{name}".{did_you_mean(str(name), MODELS)}')
    return MODELS[name]
