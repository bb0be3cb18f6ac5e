"""A whole blend as one module: waveform in, probabilities out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from esc_ensemble import __version__
from esc_ensemble.config import DataConfig
from esc_ensemble.errors import ModelFileError, list_problems
from esc_ensemble.features.resample import Resample
from esc_ensemble.infer import METADATA_SCHEMA
from esc_ensemble.models.base import AudioClassifier, digest_weights
from esc_ensemble.models.checkpoint import load_checkpoint
from esc_ensemble.models.registry import ModelSpec
from esc_ensemble.predict import middle


@dataclass(frozen=True)
class Part:
    """One fold's model inside a blend."""

    model: AudioClassifier
    spec: ModelSpec
    temperature: float
    weight: float
    """Share of this model in the blend; all shares sum to 1."""
    shift_seconds: tuple[float, ...]
    """Cyclic time shifts that its log-probabilities are averaged over."""


class FusedBlend(nn.Module):
    """Waveform (B, T) at the blend's rate, the highest of its parts', to probabilities (B, C).

    For every part: logits of each shift, divided by its temperature, log softmax, mean over shifts; then the
    weighted mean over parts and a softmax, as `esc_ensemble.blend.combine.blend_probabilities` has it.
    Parts with the same rate, front end, shifts and window share one computation of the features.
    """

    def __init__(self, parts: Sequence[Part], combiner: str) -> None:
        super().__init__()
        self.geometric = combiner == "geometric"
        self.models = nn.ModuleList([part.model for part in parts])
        self.temperatures = [part.temperature for part in parts]
        self.weights = [part.weight for part in parts]
        self.groups = _group(parts)
        own = heard_data(parts).sample_rate
        rates = {part.spec.data.sample_rate for part in parts} - {own}
        self.resamplers = nn.ModuleDict({str(rate): Resample(own, rate) for rate in sorted(rates)})

    def forward(self, waveform: Tensor) -> Tensor:
        heard = {rate: resample(waveform) for rate, resample in self.resamplers.items()}
        blended: Tensor | None = None
        for shifts, n_window, members in self.groups:
            at_rate = heard.get(str(self._model(members[0]).sample_rate), waveform)
            # (B, T) -> (S·B, T), or as many samples as the window has
            shifted = torch.cat([middle(at_rate.roll(shift, dims=1), n_window) for shift in shifts])
            features = self._model(members[0]).frontend(shifted)
            for member in members:
                share = self.weights[member] * self._evidence(member, features, len(shifts))
                blended = share if blended is None else blended + share
        assert blended is not None
        return blended.softmax(dim=1) if self.geometric else blended

    def _evidence(self, member: int, features: Tensor, n_shifts: int) -> Tensor:
        """Calibrated log-probabilities, or probabilities, of one part: (S·B, ...) -> (B, C)."""
        model = self._model(member)
        logits = model.forward_head(model.forward_features(features))
        log_probs = (logits / self.temperatures[member]).log_softmax(dim=1)
        mean = log_probs.view(n_shifts, -1, log_probs.shape[1]).mean(dim=0)  # (S·B, C) -> (S, B, C) -> (B, C)
        return mean if self.geometric else mean.softmax(dim=1)

    def _model(self, member: int) -> AudioClassifier:
        return cast(AudioClassifier, self.models[member])


def load_parts(blend: dict[str, Any], blend_dir: Path) -> list[Part]:
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
        for fold in member["folds"]:
            model, spec = load_checkpoint(blend_dir / member["path"] / f"fold-{fold}")
            temperature = float(member["temperatures"][str(fold)])
            weight = member["weight"] / len(member["folds"])
            parts.append(Part(model, spec, temperature, weight, tuple(member["shifts"])))
    _check_parts(parts, tuple(blend["class_names"]))
    return parts


def heard_data(parts: Sequence[Part]) -> DataConfig:
    """Gives the settings that turn a file into the waveform which all parts hear, some at a lower rate."""
    return max((part.spec.data for part in parts), key=lambda data: data.sample_rate)


def describe_model(parts: Sequence[Part], blend: dict[str, Any]) -> dict[str, Any]:
    """Gives the metadata: all that a reader needs to go from files to named predictions, and where it is from."""
    data = heard_data(parts)
    return {
        "schema": METADATA_SCHEMA,
        "name": blend["name"],
        "class_names": blend["class_names"],
        "sample_rate": data.sample_rate,
        "clip_seconds": data.clip_seconds,
        "n_samples": data.n_samples,
        "fit": data.fit,
        "trim_db": data.trim_db,
        "combiner": blend["combiner"],
        "tta": blend["tta"],
        "members": blend["members"],
        "scores": blend["scores"],
        "dataset_fingerprint": blend["dataset_fingerprint"],
        "esc_ensemble": __version__,
        "torch": torch.__version__,
    }


def _check_parts(parts: Sequence[Part], class_names: tuple[str, ...]) -> None:
    problems = []
    wanted = _heard(parts[0].spec.data)
    for part in parts:
        if part.spec.class_names != class_names:
            problems.append(f"a model of {part.spec.name} has other classes than the blend")
        if _heard(part.spec.data) != wanted:
            problems.append(f"{part.spec.name} hears {_heard(part.spec.data)}, the first member {wanted}")
    if problems:
        advice = "Train the members with the same data.* settings to fuse them."
        raise ModelFileError(list_problems("These models cannot go into one file:", problems, advice))


def _heard(data: DataConfig) -> dict[str, Any]:
    return data.model_dump(exclude={"selection_fraction", "window_seconds", "sample_rate"})


def _group(parts: Sequence[Part]) -> list[tuple[tuple[int, ...], int, list[int]]]:
    """Parts by front end, shifts and window: (shifts in samples, window in samples, numbers of the parts)."""
    groups: dict[str, tuple[tuple[int, ...], int, list[int]]] = {}
    for number, part in enumerate(parts):
        shifts = tuple(round(seconds * part.spec.data.sample_rate) for seconds in part.shift_seconds)
        n_window = round(part.spec.data.window_seconds * part.spec.data.sample_rate)
        settings = part.spec.frontend and part.spec.frontend.model_dump(mode="json")
        backbone = part.spec.backbone and part.spec.backbone.to_json()
        rate, weights = part.spec.data.sample_rate, digest_weights(part.model.frontend)
        key = json.dumps([rate, settings, backbone, shifts, n_window, weights])
        groups.setdefault(key, (shifts, n_window, []))[2].append(number)
    return list(groups.values())
