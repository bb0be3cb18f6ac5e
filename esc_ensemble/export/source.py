"""What is to be exported, or heard by: a blend's folder, or a single run treated as a blend of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.blend.combine import COMBINERS
from esc_ensemble.blend.ensemble import fit_runs
from esc_ensemble.blend.members import align_members
from esc_ensemble.blend.output import SCHEMA, describe
from esc_ensemble.blend.result import BlendResult
from esc_ensemble.config import BlendConfig
from esc_ensemble.errors import DataError, LogitsError, ModelFileError, list_problems
from esc_ensemble.infer import find_audio
from esc_ensemble.logits import read_run
from esc_ensemble.logits_rules import SHIFT_MODES
from esc_ensemble.manifest import read_class_numbers

WEIGHT_SLACK = 1e-3
NEEDED = ("name", "members", "combiner", "temperature", "bias", "tta", "class_names", "scores", "dataset_fingerprint")
OPTIONAL = {"fitted_on": "other folds"}
"""What files of this schema may lack, and what it is then."""


def read_source(folder: Path, *, tta: bool = False, needs_models: bool = True) -> dict[str, Any]:
    """Reads blend.json of a blend's folder, or makes the same for a run: its temperatures, weight 1.

    `class_numbers` is added from the runs' manifests: the data set's own, empty where they do not say.

    Args:
        folder: a blend's or a run's folder.
        tta: for a run, whether its time shifts are put inside; a blend has decided already.
        needs_models: whether members that count must have models.

    Raises:
        ModelFileError: the folder is neither, blend.json is damaged, or a member that counts has no models.
        LogitsError: the run has no usable logits.
        ConfigError: manifests number the classes differently.
    """
    blend = _read(folder, tta=tta)
    if needs_models:
        _check_models(blend, folder)
    run_dirs = [folder / member["path"] for member in blend["members"]]
    return blend | {"class_numbers": list(read_class_numbers(run_dirs, len(blend["class_names"])))}


def _read(folder: Path, *, tta: bool) -> dict[str, Any]:
    path = folder / "blend.json"
    if path.exists():
        return read_blend(path)
    return describe(fit_run(folder, tta=tta), folder)


def fit_run(folder: Path, *, tta: bool = False) -> BlendResult:
    """Calibrates and scores a single run as a blend of one.

    Args:
        folder: the run's.
        tta: whether its time shifts count.

    Raises:
        ModelFileError: the folder is no run.
        LogitsError: the run has no usable logits.
    """
    try:
        members = align_members([read_run(folder)])
    except LogitsError as error:
        if folder.is_dir() and any(folder.glob("fold-*")):
            raise
        raise ModelFileError(
            f"{folder} is neither a blend (blend.json) nor a run (fold-*/logits.npz). "
            "Name one from submissions/ or runs/."
        ) from error
    return fit_runs(members, BlendConfig(method="uniform", combiner="geometric", tta=tta))


def read_blend(path: Path) -> dict[str, Any]:
    """Reads and checks a blend.json.

    Raises:
        ModelFileError: it cannot be read, is of another version, or damaged.
    """
    try:
        blend = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}. Blend again.") from error
    found = blend.get("schema") if isinstance(blend, dict) else None
    if found != SCHEMA:
        raise ModelFileError(
            f"{path} was written by another version (it has schema {found}, this one reads {SCHEMA}). Blend again: "
            f"esc-ens blend RUN ... --out {path.parent.name}"
        )
    absent = [key for key in NEEDED if key not in blend]
    if absent or not blend["members"]:
        raise ModelFileError(f"{path} is damaged: it lacks {', '.join(absent) or 'members'}. Blend again.")
    _check_blend(blend, path)
    return {**OPTIONAL, **blend}


def _check_blend(blend: dict[str, Any], path: Path) -> None:
    """Refuses a blend.json that was edited into something that cannot be computed."""
    try:
        weights = [float(member["weight"]) for member in blend["members"]]
        sound = (
            blend["combiner"] in COMBINERS
            and float(blend["temperature"]) > 0.0
            and len(blend["bias"] or blend["class_names"]) == len(blend["class_names"])
            and min(weights) >= 0.0
            and abs(sum(weights) - 1.0) < WEIGHT_SLACK
            and all(
                member["folds"]
                and member["shifts"]
                and len(member["shifts"]) == len(member["shift_weights"])
                and abs(sum(member["shift_weights"]) - 1.0) < WEIGHT_SLACK
                and member["shift_mode"] in SHIFT_MODES
                and len(member["class_weights"] or blend["class_names"]) == len(blend["class_names"])
                and all(float(member["temperatures"][str(fold)]) > 0.0 for fold in member["folds"])
                and isinstance(member["path"], str)
                for member in blend["members"]
            )
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise ModelFileError(
            f"{path} is damaged: members need a path, folds, shifts with weights that sum to 1, a temperature above 0 "
            "for each fold, and weights that are not negative and sum to 1. Blend again."
        )


def _check_models(blend: dict[str, Any], folder: Path) -> None:
    """Refuses members that hold logits alone; where only some models are gone, whoever loads them says which."""
    without = [
        f"{member['run']} ({folder / member['path']})"
        for member in blend["members"]
        if member["weight"] > 0.0
        and any((folder / member["path"]).glob("fold-*/logits.npz"))
        and not any((folder / member["path"]).glob("fold-*/model.json"))
    ]
    if without:
        headline = (
            f"{folder} cannot be exported: runs of `esc-ens baseline` and of other frameworks have no model "
            "(fold-*/model.json) to put into the file:"
        )
        advice = "Blend without them, esc-ens blend RUN [RUN ...] --out NAME, and export that."
        raise ModelFileError(list_problems(headline, without, advice))


def find_clips(blend: Mapping[str, Any], folder: Path, data: Path | None, n_clips: int) -> list[Path]:
    """Gives up to `n_clips` audio files, spread over the data set, that the exported file is compared on.

    Args:
        blend: from `read_source`.
        folder: the blend's or run's folder, which the members' paths are relative to.
        data: a folder with audio; None takes clips that a member was trained on.
        n_clips: how many.

    Raises:
        DataError: there is no audio.
    """
    if data is None:
        # Members of other frameworks have no manifest.
        paths = [folder / member["path"] / "manifest.json" for member in blend["members"]]
        manifest_path = next((path for path in paths if path.exists()), paths[0])
        try:
            manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
            listed = [Path(path) for path in manifest["clip_paths"]]
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ModelFileError(
                f"{manifest_path} does not say where the training data is ({error}). "
                "Say where audio is with --data DIR."
            ) from error
        files = [path for path in listed if path.is_file()]
        if not files:
            raise DataError(
                "The export is checked on real clips, but those it was trained on are gone: "
                f"{', '.join(map(str, listed[:3]))} ... Say where audio is with --data DIR."
            )
    else:
        files = find_audio([data])
    places = np.linspace(0, len(files) - 1, min(len(files), n_clips)).round().astype(int)
    return [files[place] for place in places]
