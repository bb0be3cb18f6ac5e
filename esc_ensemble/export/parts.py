"""What a blend is fused of: every fold's model of every member, and which of them hear the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from esc_ensemble import __version__
from esc_ensemble.config import DataConfig
from esc_ensemble.config.blend import Combiner
from esc_ensemble.config.data import LONGEST_SECONDS
from esc_ensemble.config.kinds import ShiftMode
from esc_ensemble.errors import ModelFileError, list_problems
from esc_ensemble.infer import METADATA_SCHEMA
from esc_ensemble.models.base import AudioClassifier, digest_weights
from esc_ensemble.models.checkpoint import load_checkpoint
from esc_ensemble.models.registry import ModelSpec


@dataclass(frozen=True)
class Part:
    """One fold's model inside a blend."""

    model: AudioClassifier
    spec: ModelSpec
    temperature: float
    weight: float | tuple[float, ...]
    """Share of this model in the blend, or one for each class; all parts' shares sum to 1 (for classes not quite)."""
    shift_seconds: tuple[float, ...]
    """Time shifts that its logits are averaged over."""
    shift_weights: tuple[float, ...]
    """Share of each of them; they sum to 1."""
    shift_mode: ShiftMode = "cyclic"
    """What a shift does with what it moves over the clip's end."""
    run: str = ""
    """The member that it is of."""
    fold: int = 0
    """The fold that it has not heard."""


@dataclass(frozen=True)
class Mixing:
    """How the parts' evidence becomes probabilities."""

    combiner: Combiner
    temperature: float = 1.0
    bias: tuple[float, ...] = ()
    """One number for each class, added to its score; none where empty."""


def mixing_of(blend: Mapping[str, Any]) -> Mixing:
    """Gives how a blend's parts are mixed, from the content of blend.json."""
    return Mixing(blend["combiner"], float(blend["temperature"]), tuple(blend["bias"] or ()))


def load_parts(blend: Mapping[str, Any], blend_dir: Path) -> list[Part]:
    """Loads every fold's model of every member with a weight above 0.

    Args:
        blend: the content of blend.json.
        blend_dir: the folder that the members' paths are relative to.

    Raises:
        ModelFileError: a checkpoint is missing or damaged, or the members do not hear the same waveform.
    """
    parts = []
    for member in blend["members"]:
        if member["weight"] <= 0.0:
            continue
        run_dir = blend_dir / member["path"]
        for fold in member["folds"]:
            model, spec = load_checkpoint(run_dir / f"fold-{fold}")
            n_folds = len(member["folds"])
            by_class = member["class_weights"]
            parts.append(
                Part(
                    model,
                    spec,
                    temperature=float(member["temperatures"][str(fold)]),
                    weight=tuple(w / n_folds for w in by_class) if by_class else member["weight"] / n_folds,
                    shift_seconds=tuple(member["shifts"]),
                    shift_weights=tuple(member["shift_weights"]),
                    shift_mode=member["shift_mode"],
                    run=member["run"],
                    fold=fold,
                )
            )
    _check_parts(parts, tuple(blend["class_names"]))
    return parts


def heard_data(parts: Sequence[Part]) -> DataConfig:
    """Gives the settings of the waveform that goes in: the highest rate, and the longest clip at it."""
    longest = max(parts, key=_fitted_seconds)
    rate = max(part.spec.data.sample_rate for part in parts)
    return longest.spec.data.model_copy(update={"sample_rate": rate, "clip_seconds": _fitted_seconds(longest)})


def _fitted_seconds(part: Part) -> float:
    """The length that a file fits clips to: of very long ones, what their windows in the middle need."""
    data = part.spec.data
    if data.clip_seconds <= LONGEST_SECONDS:
        return data.clip_seconds
    return min(data.clip_seconds, data.window_seconds + 2 * max(map(abs, part.shift_seconds), default=0.0))


def describe_model(parts: Sequence[Part], blend: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the metadata: all that a reader needs to go from files to named predictions, and where it is from."""
    data = heard_data(parts)
    return {
        "schema": METADATA_SCHEMA,
        "name": blend["name"],
        "class_names": blend["class_names"],
        "class_numbers": blend.get("class_numbers", []),
        "sample_rate": data.sample_rate,
        "clip_seconds": data.clip_seconds,
        "n_samples": data.n_samples,
        "fit": data.fit,
        "trim_db": data.trim_db,
        "channel": data.channel,
        "combiner": blend["combiner"],
        "temperature": blend["temperature"],
        "tta": blend["tta"],
        "members": blend["members"],
        "scores": blend["scores"],
        "fitted_on": blend["fitted_on"],
        "dataset_fingerprint": blend["dataset_fingerprint"],
        "esc_ensemble": __version__,
        "torch": torch.__version__,
    }


def _check_parts(parts: Sequence[Part], class_names: tuple[str, ...]) -> None:
    problems = [f"the model of {part.run}, fold {part.fold}" for part in parts if part.spec.class_names != class_names]
    if problems:
        headline = "These models have other classes than the blend, or in another order:"
        raise ModelFileError(list_problems(headline, problems, "Train them again, and blend again."))
    channels = {part.spec.data.channel: part.run for part in parts}
    if len(channels) > 1:
        settings = [f"{run}: data.channel {channel}" for channel, run in channels.items()]
        advice = "One file takes one waveform: train them with the same data.channel."
        raise ModelFileError(list_problems("These members were trained on different channels:", settings, advice))


class Fitted(NamedTuple):
    """How clips are cut and fitted (`esc_ensemble.config.DataConfig`)."""

    clip_seconds: float
    fit: Literal["tile", "pad"]
    trim_db: float


@dataclass(frozen=True)
class Group:
    """Parts that hear the same features."""

    fitted: Fitted
    """How clips are cut and fitted before."""
    sample_rate: int
    """In Hz."""
    shifts: tuple[int, ...]
    """In samples."""
    mode: ShiftMode
    n_window: int
    """In samples; 0 hears all."""
    parts: tuple[int, ...]
    """Their numbers."""

    @property
    def view(self) -> tuple[object, ...]:
        """Groups that agree in this hear the same waveforms."""
        return self.fitted, self.sample_rate, self.shifts, self.mode, self.n_window


def group_parts(parts: Sequence[Part]) -> list[Group]:
    """Puts parts together that have the same front end, shifts and window."""
    alike: dict[str, list[int]] = {}
    for number, part in enumerate(parts):
        settings = part.spec.frontend and part.spec.frontend.model_dump(mode="json")
        backbone = part.spec.backbone and part.spec.backbone.to_json()
        key = json.dumps([_view(part), settings, backbone, digest_weights(part.model.frontend)])
        alike.setdefault(key, []).append(number)
    return [Group(*_view(parts[numbers[0]]), tuple(numbers)) for numbers in alike.values()]


def _view(part: Part) -> tuple[Fitted, int, tuple[int, ...], ShiftMode, int]:
    data = part.spec.data
    shifts = tuple(round(seconds * data.sample_rate) for seconds in part.shift_seconds)
    fitted = Fitted(_fitted_seconds(part), data.fit, data.trim_db)
    return fitted, data.sample_rate, shifts, part.shift_mode, round(data.window_seconds * data.sample_rate)
