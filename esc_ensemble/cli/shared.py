"""What commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from esc_ensemble.settings import Settings, build, merge, read_yaml


def resolve(kind: type[Any], config_path: Path | None, flags: Settings | None) -> Any:
    """The settings of a command: defaults, then the YAML file, then flags."""
    given = flags.model_dump(exclude_unset=True) if flags else {}
    if config_path is None:
        return build(kind, given, "The settings")
    origin = f"{config_path} with the flags given" if given else str(config_path)
    return build(kind, merge(read_yaml(config_path), given), origin)


def find_folder(name: str, *parents: Path) -> Path:
    """A folder given by its path, or by its name below one of `parents`."""
    candidates = [*(parent / name for parent in parents), Path(name)]
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])
