"""What commands share."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esc_ensemble.errors import ConfigError, did_you_mean
from esc_ensemble.flags import LayoutFlags
from esc_ensemble.settings import Settings, build, merge, read_yaml

if TYPE_CHECKING:
    from esc_ensemble.data.rows import ReadOptions


def resolve(kind: type[Any], config_path: Path | None, flags: Settings | None) -> Any:
    """The settings of a command: defaults, then the YAML file, then flags."""
    given = flags.model_dump(exclude_unset=True) if flags else {}
    if config_path is None:
        return build(kind, given, "The settings")
    origin = f"{config_path} with the flags given" if given else str(config_path)
    return build(kind, merge(read_yaml(config_path), given), origin)


def read_options(how: LayoutFlags) -> ReadOptions:
    """Returns how a data set is read, as the flags say."""
    from esc_ensemble.data.rows import ReadOptions  # noqa: PLC0415

    names = {field.name for field in fields(ReadOptions)} & {field.name for field in fields(how)}
    return ReadOptions(**{name: value for name in names if (value := getattr(how, name)) is not None})


def find_folder(name: str, *parents: Path) -> Path:
    """A folder given by its path, or by its name below one of `parents`.

    Raises:
        ConfigError: there is none.
    """
    candidates = [*(parent / name for parent in parents), Path(name)]
    found = next((folder for folder in candidates if folder.is_dir()), None)
    if found is None:
        if Path(name).exists():
            raise ConfigError(f"{name} is a file. Name the folder of a run or a blend.")
        places = dict.fromkeys(candidates if not Path(name).is_absolute() else [Path(name)])
        named = [each.name for parent in parents if parent.is_dir() for each in parent.iterdir() if each.is_dir()]
        raise ConfigError(f"There is no folder {' or '.join(map(str, places))}.{did_you_mean(name, named)}")
    return found
