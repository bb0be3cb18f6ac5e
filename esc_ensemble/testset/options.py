"""How test clips are predicted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from esc_ensemble.errors import ConfigError
from esc_ensemble.training.device import keep_freed_memory

NAME = re.compile(r"\w[\w.-]*")
TAKEN_NAMES = ("logits", "oof")
"""Files of a fold and of a blend that must not be replaced."""
DEFAULT_NAME = "test"


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How test clips are predicted."""

    name: str = DEFAULT_NAME
    """Name of the test set, and so of the files with its logits and probabilities."""
    device: str = "auto"
    """auto, cpu or cuda."""
    batch_size: int = 0
    """Clips at a time; 0 takes as many as suit the model."""
    cache_dir: Path | None = None
    """Where decoded waveforms lie; the user's cache folder where None."""
    n_workers: int = 0
    """Processes that decode; 0 takes the free cores."""
    skip_bad: bool = False
    """Leave out clips that cannot be decoded, or that a member without models has no logits of."""


def choose_device(name: str) -> torch.device:
    """Gives the device of that name; `auto` takes a GPU where there is one.

    Raises:
        ConfigError: a GPU is asked for that is not there.
    """
    if name != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    if name == "cuda":
        raise ConfigError("--device is cuda, but torch sees no GPU here. Leave it out.")
    keep_freed_memory()
    return torch.device("cpu")


def check_name(name: str) -> None:
    """Refuses a name that cannot become that of files.

    Raises:
        ConfigError: the name has other characters, or is taken.
    """
    if not NAME.fullmatch(name) or name in TAKEN_NAMES:
        raise ConfigError(
            f'--name "{name}" cannot be used: it becomes the name of files. Write letters, digits, ".", "-" and "_", '
            f"but not {' or '.join(TAKEN_NAMES)}."
        )
