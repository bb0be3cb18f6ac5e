"""What a run's folder says of itself, and whether a run goes on in it."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from esc_ensemble.config import BaselineConfig, PretrainWav2Vec2Config, TrainerConfig
from esc_ensemble.data.catalog import Catalog
from esc_ensemble.errors import ConfigError, list_problems
from esc_ensemble.files import write_json, write_text
from esc_ensemble.settings import build, config_hash, identity, read_yaml, to_yaml

RunConfig: TypeAlias = TrainerConfig | PretrainWav2Vec2Config | BaselineConfig

SCHEMA = 1
CROSS_VALIDATION = "cross-validation"
PRETRAINING = "pretraining"
N_CLIP_PATHS = 64
PACKAGES = ("torch", "accelerate", "numpy", "soundfile", "soxr")
OTHER_NAME = "Choose another name: --run of a run, --out of a comparison (or rename the change), or delete the folder."


def open_run(
    run_dir: Path,
    config: RunConfig,
    catalog: Catalog,
    *,
    weights: str = "",
    packages: Sequence[str] = PACKAGES,
    **facts: Any,
) -> dict[str, Any]:
    """Starts a run's folder with `config.yaml` and `manifest.json`, or checks that it holds the same run.

    Settings that bear on nothing but speed and memory (device, threads ...) may change from one start to the next. A
    run that an earlier version began goes on if the settings are the same, those that the version did not have being at
    their defaults: a new setting's default leaves things as they were.

    Args:
        run_dir: the run's folder.
        config: its settings.
        catalog: its clips.
        weights: tells the weights that it begins with from others; empty where they are random.
        packages: those whose versions bear on the results.
        facts: what else the manifest shall say of a new run.

    Returns:
        The manifest.

    Raises:
        ConfigError: the folder holds a run of another trainer, with other settings or on other data.
    """
    config_path, manifest_path = run_dir / "config.yaml", run_dir / "manifest.json"
    if _has_run(run_dir):
        manifest = _read_manifest(manifest_path)
        if manifest.get("kind", CROSS_VALIDATION) != facts.get("kind", CROSS_VALIDATION):
            raise ConfigError(
                f"{run_dir} is a run of another command ({manifest.get('kind', CROSS_VALIDATION)}). {OTHER_NAME}"
            )
        if manifest.get("dataset_fingerprint") != catalog.fingerprint:
            raise ConfigError(f"{run_dir} was trained on other data ({manifest.get('dataset_path')}). {OTHER_NAME}")
        check_same_settings(run_dir, config)
        # A version without `init` wrote nothing of weights: its runs did not begin with any.
        if manifest.get("weights", "" if getattr(config, "init", "") else weights) != weights:
            raise ConfigError(
                f"{run_dir} began with other weights than --init or --model.source gives now. {OTHER_NAME}"
            )
        return manifest
    manifest = {
        "schema": SCHEMA,
        "run": run_dir.name,
        "config_hash": config_hash(config),
        "dataset": catalog.name,
        "dataset_path": str(catalog.root.resolve()),
        "dataset_fingerprint": catalog.fingerprint,
        "n_clips": len(catalog.clips),
        "class_numbers": list(catalog.class_numbers),
        "fold_names": {str(fold): name for fold, name in catalog.fold_names.items()},
        "clip_paths": _spread_paths(catalog),
        "skipped_clips": list(catalog.skipped),
        "seed": config.seed,
        "weights": weights,
        **facts,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }
    write_text(config_path, to_yaml(config))
    write_json(manifest_path, manifest)
    return manifest


def is_pretraining(run_dir: Path) -> bool:
    """Whether a folder is a run of pretraining, finished or not."""
    path = run_dir / "manifest.json"
    return path.exists() and _read_manifest(path).get("kind") == PRETRAINING


def run_hash(run_dir: Path, config: RunConfig) -> str:
    """Gives the settings' hash that an opened run began with, which a later version might compute otherwise."""
    path = run_dir / "manifest.json"
    return str(_read_manifest(path).get("config_hash")) if path.exists() else config_hash(config)


def recorded_hash(run_dir: Path) -> str:
    """Gives the settings' hash in a run's manifest; empty for a run of another framework, which has none."""
    path = run_dir / "manifest.json"
    return str(_read_manifest(path).get("config_hash", "")) if path.exists() else ""


def read_class_numbers(run_dirs: Sequence[Path], n_classes: int) -> tuple[int, ...]:
    """Gives the data set's own class numbers as the manifests of runs on it have them; empty where none has.

    Raises:
        ConfigError: class numbers are damaged, or two manifests contradict each other.
    """
    found: dict[tuple[int, ...], Path] = {}
    for path in (run_dir / "manifest.json" for run_dir in run_dirs):
        try:
            numbers = _read_manifest(path).get("class_numbers")
        except ConfigError:  # none, or one that cannot be read: it says nothing
            continue
        if not numbers:  # of an earlier version, or of data without numbers
            continue
        whole = isinstance(numbers, list) and all(type(number) is int for number in numbers)
        if not whole or len(numbers) != n_classes or len(set(numbers)) != n_classes:
            raise ConfigError(
                f"{path} is damaged: class_numbers must be {n_classes} different whole numbers, found {numbers!r}. "
                "Take the key out to do without them."
            )
        found.setdefault(tuple(numbers), path)
    if len(found) > 1:
        problems = [f"{path}: {', '.join(map(str, numbers))}" for numbers, path in found.items()]
        raise ConfigError(list_problems("These runs number the classes differently:", problems))
    return next(iter(found), ())


def read_dataset_path(run_dirs: Sequence[Path]) -> Path | None:
    """Gives where the data of runs is by their manifests, of several places one that is there; None if none says."""
    told = []
    for run_dir in run_dirs:
        path = run_dir / "manifest.json"
        if path.exists() and (place := _read_manifest(path).get("dataset_path")):
            told.append(Path(str(place)))
    return next((place for place in told if place.exists()), told[0] if told else None)


def _spread_paths(catalog: Catalog) -> list[str]:
    """Some of the clips' files, spread over the data set: what an export is later compared on."""
    n_clips = len(catalog.clips)
    places = np.linspace(0, n_clips - 1, min(n_clips, N_CLIP_PATHS)).round().astype(int)
    return [str(catalog.clips[place].path.resolve()) for place in places]


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. {OTHER_NAME}") from error
    if not isinstance(manifest, dict):
        raise ConfigError(f"{path} is not a run's manifest. {OTHER_NAME}")
    return manifest


def check_same_settings(run_dir: Path, config: RunConfig) -> None:
    """Refuses to go on in a folder whose run has other settings; a folder without a run is fine.

    Raises:
        ConfigError: the folder holds a run of another trainer or with other settings.
    """
    if not _has_run(run_dir) or _read_manifest(run_dir / "manifest.json").get("config_hash") == config_hash(config):
        return
    path = run_dir / "config.yaml"
    values = read_yaml(path)
    model = values.get("model")
    if not isinstance(model, dict) or model.get("name") not in _model_names(config):
        raise ConfigError(f"{run_dir} is a run of another trainer. {OTHER_NAME}")
    old = build(type(config), values, str(path))
    problems = _differences(identity(old), identity(config))
    if problems:
        raise ConfigError(list_problems(f"{run_dir} was trained with other settings:", problems, OTHER_NAME))


def _has_run(run_dir: Path) -> bool:
    begun = any(run_dir.glob("fold-*")) or any((run_dir / name).exists() for name in ("state.pt", "model.safetensors"))
    return begun and all((run_dir / name).exists() for name in ("config.yaml", "manifest.json"))


def _model_names(config: RunConfig) -> tuple[str, ...]:
    """The models that this trainer knows."""
    kind: Any = type(config.model).model_fields["name"].annotation
    return tuple(kind.__args__)


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            found += _differences(old[key], value, f"{prefix}{key}.")
        elif old.get(key) != value:
            found.append(f"{prefix}{key}: {old.get(key)} there, {value} asked for")
    return found
