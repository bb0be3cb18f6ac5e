"""Weights on disk, as safetensors: nothing in them is ever run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from esc_ensemble.errors import ModelFileError
from esc_ensemble.files import atomic_path

WEIGHTS_FILE = "model.safetensors"


def save_weights(folder: Path, network: nn.Module) -> None:
    """Writes a network's weights to `model.safetensors` in `folder`, atomically; transformers reads it too."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(save(weights, metadata={"format": "pt"}))


def load_weights_file(folder: Path) -> dict[str, Tensor]:
    """Reads what `save_weights` wrote.

    Raises:
        ModelFileError: it is missing or damaged.
    """
    path = folder / WEIGHTS_FILE
    with _told(path):
        return load_file(path)


def check_weights(folder: Path) -> None:
    """Looks whether a folder's weights are there and their file whole.

    Raises:
        ModelFileError: they are missing or damaged.
    """
    path = folder / WEIGHTS_FILE
    with _told(path), safe_open(path, framework="pt") as file:  # compares the header with the file's length
        file.keys()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ModelFileError(f"{path} does not exist: train it first.") from error
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is damaged: {error}. Train it again.") from error
