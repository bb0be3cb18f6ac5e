"""A trained model on disk: `model.safetensors` holds the weights, `model.json` all that rebuilds the rest."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from esc_ensemble.errors import ModelFileError
from esc_ensemble.files import write_json
from esc_ensemble.models.base import AudioClassifier
from esc_ensemble.models.registry import ModelSpec, build_model
from esc_ensemble.models.weights import WEIGHTS_FILE, check_weights, load_weights_file, save_weights

SCHEMA = 1


def save_checkpoint(folder: Path, model: AudioClassifier, spec: ModelSpec, *, fold: int | None, run: str) -> None:
    """Writes `model.safetensors` and `model.json` into `folder`, each atomically; a pretrained model has no fold."""
    save_weights(folder, model)
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
        raise ModelFileError(f"{path} does not exist: train it first.") from error
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}. Train it again.") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise ModelFileError(f"{path} has another schema than {SCHEMA}. Train it again with this version.")
    return ModelSpec.from_json(values, str(path))


def check_checkpoint(folder: Path) -> None:
    """Looks whether a fold's model is there and its file whole, without building it.

    Raises:
        ModelFileError: a file is missing or damaged.
    """
    read_spec(folder)
    check_weights(folder)


def load_checkpoint(folder: Path) -> tuple[AudioClassifier, ModelSpec]:
    """Rebuilds the trained model of a fold's folder on the CPU, in eval mode.

    Raises:
        ModelFileError: a file is missing, damaged, or its weights do not fit the model it names.
    """
    spec = read_spec(folder)
    path = folder / WEIGHTS_FILE
    weights = load_weights_file(folder)
    with torch.random.fork_rng(devices=[]):
        model = build_model(spec)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelFileError(f"{path} does not fit the model named in model.json: {error}") from error
    return model.eval(), spec


def begin_with(model: AudioClassifier, folder: Path) -> None:
    """Puts a trained model's weights into a fresh one of the same kind, all but the part that belongs to the classes.

    Args:
        model: with fresh weights.
        folder: of the trained model; it may have other classes, and other blocks of a backbone that learned.

    Raises:
        ModelFileError: a file is missing or damaged, or the two models differ.
    """
    spec = read_spec(folder)
    weights = model.renamed(load_weights_file(folder))
    own = model.state_dict()
    part = f"{model.class_part}."
    wanted = {name: tensor for name, tensor in own.items() if not name.startswith(part)}
    given = {name: tensor for name, tensor in weights.items() if not name.startswith(part)}
    differing = sorted(
        {name for name in wanted.keys() & given.keys() if wanted[name].shape != given[name].shape}
        | wanted.keys() ^ given.keys()
    )
    if differing:
        settings = ", ".join(f"{name} {value}" for name, value in spec.to_json()["arguments"].items())
        raise ModelFileError(
            f"{folder} holds another network than is to be trained ({settings}); they differ in {differing[0]} and "
            f"{len(differing) - 1} more weights. Train with its settings, or pretrain with these."
        )
    model.load_state_dict(own | given)
