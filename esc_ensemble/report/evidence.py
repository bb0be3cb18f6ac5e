"""All that a report shows of a blend or a run, gathered once from its folder."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.blend.output import describe
from esc_ensemble.errors import LogitsError, ModelFileError, list_problems
from esc_ensemble.export.source import fit_run, read_blend
from esc_ensemble.home import expand_home
from esc_ensemble.logits import UNREADABLE
from esc_ensemble.metrics import METRICS

NEEDED = ("class_names", "scores", "reason")
"""What a report shows of a blend, beside what an export needs."""
NEEDED_OF_MEMBER = ("run", "path", "weight")
NEEDED_OF_SCORE = ("name", "title", "metrics")
ARRAYS = ("clip_ids", "labels", "folds", "sources", "probabilities", "member_probabilities")
DEFAULTS: dict[str, Any] = {
    "warnings": [],
    "comparisons": [],
    "contributions": [],
    "error_correlation": None,
    "front": None,
}


@dataclass(frozen=True, eq=False)
class MemberEvidence:
    """What is left of one member on disk. All but its name and entry may be missing."""

    name: str
    entry: dict[str, Any]
    """Its entry in blend.json."""
    folder: Path
    """The run's folder, which may be gone."""
    config_text: str = ""
    """config.yaml; empty where there is none."""
    manifest: dict[str, Any] = field(default_factory=dict)
    """manifest.json; empty where there is none, like the others."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """metrics.json: each fold's scores before calibration."""
    histories: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    """Fold -> the columns of history.csv, one number an epoch (NaN where a cell is empty)."""
    checkpoints: tuple[int, ...] = ()
    """Folds whose model can be rebuilt."""
    missing: tuple[str, ...] = ()
    """What is not there, a phrase each."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """A blend, or a run as a blend of one: predictions of every clip by models that never saw it."""

    folder: Path
    kind: str
    """`blend` or `run`."""
    blend: dict[str, Any]
    """The content of blend.json."""
    clip_ids: np.ndarray
    """(N,) str."""
    labels: np.ndarray
    """(N,) int64, -1 where unknown."""
    folds: np.ndarray
    """(N,) int64, the fold that held each clip out."""
    sources: np.ndarray
    """(N,) str, the recording each clip was cut from."""
    probabilities: np.ndarray
    """(N, C) of the chosen blend, fitted without the clip's fold."""
    member_probabilities: np.ndarray
    """(M, N, C) of each member, with temperatures fitted without the clip's fold."""
    members: tuple[MemberEvidence, ...]
    """M of them."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names."""
        return tuple(self.blend["class_names"])

    @property
    def member_names(self) -> tuple[str, ...]:
        """M names."""
        return tuple(member.name for member in self.members)

    @cached_property
    def known(self) -> np.ndarray:
        """(N,) bool: which clips have a label."""
        return np.asarray(self.labels >= 0)

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N,) the blend's likeliest class."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """Folds, ascending."""
        return tuple(int(fold) for fold in np.unique(self.folds))

    @property
    def scores(self) -> list[dict[str, Any]]:
        """The rows of the table of scores; of a single member those that say something."""
        rows: list[dict[str, Any]] = self.blend["scores"]
        if len(self.members) > 1:
            return rows
        without_tta = [row for row in rows if row["name"] == "uniform_no_tta"]
        # Of one member the last temperature is its own, not the blend's.
        own = next((row for row in rows if row["name"].startswith("member:")), self.chosen)
        before = {"uncalibrated": own.get("uncalibrated")}
        title = "Calibrated on selection, scored on test" if self.fitted_on_selection else "Calibrated, cross-fitted"
        return [{**self.chosen, **before, "title": "Not calibrated" if self.one_fold else title}, *without_tta]

    @property
    def fitted_on_selection(self) -> bool:
        """Whether weights and temperatures were fitted on the selection split of one fixed split."""
        return bool(self.blend["fitted_on"] == "selection")

    @property
    def one_fold(self) -> bool:
        """Whether there was nothing to fit on but the fold that is scored: neither another nor a selection split."""
        return len(self.fold_numbers) == 1 and not self.fitted_on_selection

    @property
    def chosen(self) -> dict[str, Any]:
        """The row that the headline shows: the score of what is deployed, on clips that it was not fitted on."""
        rows: list[dict[str, Any]] = self.blend["scores"]
        return next((row for row in rows if row["name"] == "chosen"), rows[0])

    def strongest_with_models(self) -> MemberEvidence | None:
        """Gives the member of highest accuracy whose fold models are there, or None."""
        labels = self.labels[self.known]
        hits = [(each[self.known].argmax(axis=1) == labels).mean() for each in self.member_probabilities]
        able = [place for place, member in enumerate(self.members) if member.checkpoints]
        return self.members[max(able, key=lambda place: hits[place])] if able else None


def load(path: str | Path) -> Evidence:
    """Gathers a report's evidence.

    Args:
        path: a blend's or a run's folder.

    Raises:
        ModelFileError: the folder is neither, or blend.json is damaged or of another version.
        LogitsError: the predictions are missing or damaged, or no clip has a label.
    """
    folder = expand_home(path)
    if (folder / "blend.json").exists():
        return _of_blend(folder)
    result = fit_run(folder)
    members = result.members
    blend = {**DEFAULTS, **describe(result, folder)}
    return Evidence(
        folder=folder,
        kind="run",
        blend=blend,
        clip_ids=members.clip_ids,
        labels=members.labels,
        folds=members.fold_of_clip,
        sources=members.sources,
        probabilities=result.probabilities,
        member_probabilities=result.member_probabilities,
        members=(_read_member(blend["members"][0], folder),),
    )


def _of_blend(folder: Path) -> Evidence:
    path = folder / "blend.json"
    blend = read_blend(path)
    absent = [key for key in NEEDED if not blend.get(key)]
    if not absent:
        absent = [
            f"{key} of {part}"
            for part, needed in (("members", NEEDED_OF_MEMBER), ("scores", NEEDED_OF_SCORE))
            for key in needed
            if not all(isinstance(entry, dict) and key in entry for entry in blend[part])
        ]
        absent += [
            f"{key} of the metrics of scores"
            for key in METRICS
            if not absent and not all(key in row["metrics"] for row in blend["scores"])
        ]
    if absent:
        raise ModelFileError(f"{path} is damaged: it lacks {', '.join(absent)}. Blend again.")
    odd = [key for key in ("comparisons", "contributions", "warnings") if not isinstance(blend.get(key, []), list)]
    if odd:
        raise ModelFileError(f"{path} is damaged: {', '.join(odd)} must be a list. Blend again.")
    arrays = _read_arrays(folder / "oof.npz", len(blend["members"]), len(blend["class_names"]))
    return Evidence(
        folder=folder,
        kind="blend",
        blend={**DEFAULTS, **blend},
        members=tuple(_read_member(entry, folder / str(entry["path"])) for entry in blend["members"]),
        **arrays,
    )


def _read_arrays(path: Path, n_members: int, n_classes: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ARRAYS if name in archive}
    except FileNotFoundError as error:
        raise LogitsError(
            f"{path} does not exist: a report needs it. Blend again: esc-ens blend RUN ... --out {path.parent.name}"
        ) from error
    except UNREADABLE as error:
        raise LogitsError(f"{path} cannot be read: {error}. Blend again.") from error
    problems = [f"{name} is missing" for name in ARRAYS if name not in arrays]
    if not problems:
        n_clips = len(arrays["clip_ids"])
        shapes = {
            **dict.fromkeys(("labels", "folds", "sources"), (n_clips,)),
            "probabilities": (n_clips, n_classes),
            "member_probabilities": (n_members, n_clips, n_classes),
        }
        problems = [
            f"{name} has shape {arrays[name].shape}, {shape} was expected"
            for name, shape in shapes.items()
            if arrays[name].shape != shape
        ]
    if not problems:
        rules = {
            "no clip has a label": (arrays["labels"] >= 0).any(),
            f"labels go beyond the {n_classes} classes": arrays["labels"].max(initial=-1) < n_classes,
            "probabilities are not finite": np.isfinite(arrays["probabilities"]).all(),
            "member_probabilities are not finite": np.isfinite(arrays["member_probabilities"]).all(),
        }
        problems = [problem for problem, holds in rules.items() if not holds]
    if problems:
        raise LogitsError(list_problems(f"{path} cannot be reported on:", problems, "Blend again."))
    return arrays


def _read_member(entry: dict[str, Any], folder: Path) -> MemberEvidence:
    name = str(entry["run"])
    folds = [int(fold) for fold in entry.get("folds", [])]
    if not folder.is_dir():
        return MemberEvidence(name, entry, folder, missing=("its run folder",))
    config = folder / "config.yaml"
    config_text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    manifest, metrics = _read_json(folder / "manifest.json"), _read_json(folder / "metrics.json")
    histories = {fold: _read_history(folder / f"fold-{fold}" / "history.csv") for fold in folds}
    histories = {fold: columns for fold, columns in histories.items() if columns}
    checkpoints = tuple(
        fold
        for fold in folds
        if all((folder / f"fold-{fold}" / file).is_file() for file in ("model.json", "model.safetensors"))
    )
    there = {
        "settings (config.yaml)": config_text,
        "facts about its training (manifest.json)": manifest,
        "training curves (history.csv)": histories,
        "models (model.safetensors)": checkpoints,
    }
    missing = tuple(what for what, found in there.items() if not found)
    return MemberEvidence(name, entry, folder, config_text, manifest, metrics, histories, checkpoints, missing)


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is none that can be read: a report goes on without it, and says so."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_history(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return {}
    names = [name for name in (rows[0] if rows else {}) if name]
    return {name: np.array([_number(row.get(name)) for row in rows]) for name in names}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
