"""Where a fold's training stands, on disk after each epoch."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from esc_ensemble.errors import ModelFileError
from esc_ensemble.files import atomic_path
from esc_ensemble.models.base import Trainable
from esc_ensemble.training.optim import AveragedWeights

SCHEMA = 2


@dataclass
class TrainingState:
    """What changes from epoch to epoch beside weights; the whole of it goes into `state.pt`."""

    epoch: int = 0
    plateau_factor: float = 1.0
    micro_batch: int = 0
    """Clips at a time once the memory ran out; 0 while the batch size fits."""
    best_loss: float = math.inf
    best_epoch: int = -1
    plateau_epoch: int = -1
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def save_state(
    folder: Path,
    state: TrainingState,
    *,
    model: Trainable,
    optimizer: Any,
    average: AveragedWeights,
    accelerator: Accelerator,
) -> None:
    """Writes all that the next epoch needs to `state.pt`, and the history to `history.csv`."""
    scaler = accelerator.scaler
    values = {
        "schema": SCHEMA,
        "state": vars(state),
        "model": model.changing(),
        "optimizer": optimizer.state_dict(),
        "average": average.weights,
        "n_updates": average.n_updates,
        "n_even": average.n_even,
        "scaler": scaler.state_dict() if scaler else {},
    }
    with atomic_path(folder / "state.pt") as temporary, temporary.open("wb") as file:
        try:
            torch.save(values, file)
        except RuntimeError as error:  # by which torch covers up a full disk
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    names = list(dict.fromkeys(name for row in state.history for name in row))
    with atomic_path(folder / "history.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(state.history)


def load_state(
    folder: Path, *, model: Trainable, optimizer: Any, average: AveragedWeights, accelerator: Accelerator
) -> TrainingState:
    """Puts what `save_state` wrote back in place; a fresh state where there is no file.

    Raises:
        ModelFileError: the file is damaged.
    """
    path = folder / "state.pt"
    if not path.exists():
        return TrainingState()
    try:
        values = torch.load(path, map_location=accelerator.device, weights_only=True)
        if values["schema"] != SCHEMA:
            raise ValueError(f"schema {values['schema']} instead of {SCHEMA}")
        model.load_changing(values["model"])
        optimizer.load_state_dict(values["optimizer"])
        average.weights = values["average"]
        average.n_updates = values["n_updates"]
        average.n_even = values["n_even"]
        if accelerator.scaler and values["scaler"]:
            accelerator.scaler.load_state_dict(values["scaler"])
        return TrainingState(**values["state"])
    except (RuntimeError, LookupError, TypeError, ValueError, EOFError, OSError, UnpicklingError) as error:
        # torch's own text on a bad pickle advises to load it unsafely.
        reason = "it is no training state" if isinstance(error, UnpicklingError) else error
        raise ModelFileError(f"{path} is damaged ({reason}). Delete it to train this fold from the start.") from error
