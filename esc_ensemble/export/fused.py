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
from esc_ensemble.config.blend import Combiner
from esc_ensemble.config.kinds import ShiftMode
from esc_ensemble.errors import ModelFileError, list_problems
from esc_ensemble.features.resample import Resample
from esc_ensemble.infer import METADATA_SCHEMA
from esc_ensemble.models.base import AudioClassifier, digest_weights
from esc_ensemble.models.checkpoint import load_checkpoint
from esc_ensemble.models.registry import ModelSpec
from esc_ensemble.predict import middle, shift_samples


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


@dataclass(frozen=True)
class Mixing:
    """How the parts' evidence becomes probabilities."""

    combiner: Combiner
    temperature: float = 1.0
    bias: tuple[float, ...] = ()
    """One number for each class, added to its score; none where empty."""


class FusedBlend(nn.Module):
    """Waveform (B, T) at the blend's rate, the highest of its parts', to probabilities (B, C).

    For every part: the weighted mean of its logits over shifts, and what they say (its evidence); then the weighted
    mean over parts, the blend's own temperature and a softmax, as `esc_ensemble.blend.combine.blend_probabilities` has
    it. Parts with the same rate, front end, shifts and window share one computation of the features.
    """

    weights: Tensor
    """(number of parts, C)."""
    shift_weights: Tensor
    """(number of parts, largest S), zeros at the end."""
    bias: Tensor
    """(C,) or (1,)."""

    def __init__(self, parts: Sequence[Part], mixing: Mixing) -> None:
        super().__init__()
        self.mixing = mixing
        self.models = nn.ModuleList([part.model for part in parts])
        self.temperatures = [part.temperature for part in parts]
        self.register_buffer("weights", torch.tensor([_row(part.weight, len(part.spec.class_names)) for part in parts]))
        self.register_buffer("shift_weights", torch.tensor(_padded([part.shift_weights for part in parts])))
        self.register_buffer("bias", torch.tensor(mixing.bias) if mixing.bias else torch.zeros(1))
        self.groups = _group(parts)
        own = heard_data(parts).sample_rate
        rates = {part.spec.data.sample_rate for part in parts} - {own}
        self.resamplers = nn.ModuleDict({str(rate): Resample(own, rate) for rate in sorted(rates)})

    def forward(self, waveform: Tensor) -> Tensor:
        heard = {rate: resample(waveform) for rate, resample in self.resamplers.items()}
        mixed: Tensor | None = None
        for group in self.groups:
            at_rate = heard.get(str(self._model(group.parts[0]).sample_rate), waveform)
            # (B, T) -> (S·B, T), or as many samples as the window has
            shifted = torch.cat(
                [middle(shift_samples(at_rate, shift, group.mode), group.n_window) for shift in group.shifts]
            )
            features = self._model(group.parts[0]).frontend(shifted)
            for part in group.parts:
                share = self.weights[part] * self._evidence(part, features, len(group.shifts))
                mixed = share if mixed is None else mixed + share
        assert mixed is not None
        if self.mixing.combiner == "arithmetic":
            if self.mixing.temperature == 1.0 and not self.mixing.bias:
                return mixed
            mixed = mixed.clamp(min=torch.finfo(mixed.dtype).tiny).log()
        return ((mixed + self.bias) / self.mixing.temperature).softmax(dim=1)

    def _evidence(self, part: int, features: Tensor, n_shifts: int) -> Tensor:
        """What one part says, in the form that is averaged (`esc_ensemble.blend.combine.evidence`): -> (B, C)."""
        model = self._model(part)
        logits = model.forward_head(model.forward_features(features))
        shares = self.shift_weights[part, :n_shifts].view(n_shifts, 1, 1)
        logits = (logits.view(n_shifts, -1, logits.shape[1]) * shares).sum(dim=0)  # (S·B, C) -> (S, B, C) -> (B, C)
        if self.mixing.combiner == "logits":
            return logits - logits.mean(dim=1, keepdim=True)
        if self.mixing.combiner == "rank":
            ahead = logits.unsqueeze(2) - logits.unsqueeze(1)  # (B, C, C): above 0 where a class beats another
            return (ahead > 0).to(logits.dtype).sum(dim=2) + 0.5 * ((ahead == 0).to(logits.dtype).sum(dim=2) - 1.0)
        log_probs = (logits / self.temperatures[part]).log_softmax(dim=1)
        return log_probs if self.mixing.combiner == "geometric" else log_probs.exp()

    def _model(self, part: int) -> AudioClassifier:
        return cast(AudioClassifier, self.models[part])


def _row(weight: float | tuple[float, ...], n_classes: int) -> list[float]:
    return list(weight) if isinstance(weight, tuple) else [weight] * n_classes


def _padded(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    longest = max(map(len, rows))
    return [[*row, *[0.0] * (longest - len(row))] for row in rows]


def mixing_of(blend: dict[str, Any]) -> Mixing:
    """Gives how a blend's parts are mixed, from the content of blend.json."""
    return Mixing(blend["combiner"], float(blend["temperature"]), tuple(blend["bias"] or ()))


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
                )
            )
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
        "class_numbers": blend.get("class_numbers", []),
        "sample_rate": data.sample_rate,
        "clip_seconds": data.clip_seconds,
        "n_samples": data.n_samples,
        "fit": data.fit,
        "trim_db": data.trim_db,
        "combiner": blend["combiner"],
        "temperature": blend["temperature"],
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


@dataclass(frozen=True)
class _Group:
    """Parts that hear the same features."""

    shifts: tuple[int, ...]
    """In samples."""
    mode: ShiftMode
    n_window: int
    """In samples; 0 hears all."""
    parts: list[int]
    """Their numbers."""


def _group(parts: Sequence[Part]) -> list[_Group]:
    """Puts parts together that have the same front end, shifts and window."""
    groups: dict[str, _Group] = {}
    for number, part in enumerate(parts):
        rate = part.spec.data.sample_rate
        shifts = tuple(round(seconds * rate) for seconds in part.shift_seconds)
        n_window = round(part.spec.data.window_seconds * rate)
        settings = part.spec.frontend and part.spec.frontend.model_dump(mode="json")
        backbone = part.spec.backbone and part.spec.backbone.to_json()
        key = json.dumps(
            [rate, settings, backbone, shifts, part.shift_mode, n_window, digest_weights(part.model.frontend)]
        )
        groups.setdefault(key, _Group(shifts, part.shift_mode, n_window, [])).parts.append(number)
    return list(groups.values())
