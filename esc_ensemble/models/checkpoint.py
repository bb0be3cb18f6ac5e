"""A trained model on disk: `model.safetensors` holds the weights, `model.json` all that rebuilds the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from esc_ensemble.errors import ModelFileError
from esc_ensemble.files import atomic_path, write_json
from esc_ensemble.models.base import AudioClassifier
from esc_ensemble.models.registry import ModelSpec, build_model

SCHEMA = 1


def save_checkpoint(folder: Path, model: AudioClassifier, spec: ModelSpec, *, fold: int, run: str) -> None:
    """Writes `model.safetensors` and `model.json` into `folder`, each atomically."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(weights))
    write_json(folder / "model.json", {"schema": SCHEMA, "run": run, "fold": fold, **spec.to_json()})


def read_spec(folder: Path) -> ModelSpec:
    """Reads `model.json` of a fold's folder.

    Raises:
        ModelFileError: it is missing or not one of ours.
    """
    path = folder / "model.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path} does not exist: train this fold first.") from error
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}. Train this fold again.") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise ModelFileError(f"{path} has another schema than {SCHEMA}. Train this fold again with this version.")
    return ModelSpec.from_json(values, str(path))


def check_checkpoint(folder: Path) -> None:
    """Looks whether a fold's model is there and its file whole, without building it.

    Raises:
        ModelFileError: a file is missing or damaged.
    """
    read_spec(folder)
    path = folder / "model.safetensors"
    with _told(path), safe_open(path, framework="pt") as file:  # compares the header with the file's length
        file.keys()


def load_checkpoint(folder: Path) -> tuple[AudioClassifier, ModelSpec]:
    """Rebuilds the trained model of a fold's folder on the CPU, in eval mode.

    Raises:
        ModelFileError: a file is missing, damaged, or its weights do not fit the model it names.
    """
    spec = read_spec(folder)
    path = folder / "model.safetensors"
    with _told(path):
        weights = load_file(path)
    with torch.random.fork_rng(devices=[]):
        model = build_model(spec)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelFileError(f"{path} does not fit the model named in model.json: {error}") from error
    return model.eval(), spec


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ModelFileError(f"{path} does not exist: train this fold first.") from error
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is damaged: {error}. Train this fold again.") from error
