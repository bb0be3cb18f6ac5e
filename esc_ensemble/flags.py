"""Kinds of command-line flags: what they accept, and how they are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Group, Parameter, validators

from esc_ensemble.errors import NUMBERED_PARTS

SETTINGS = Group("Settings (defaults are in configs/)")
READING = Group("Reading the data, where its layout could mean two things")
Json = Annotated[bool, Parameter(name="--json", negative="")]
Flag = Annotated[bool, Parameter(negative="")]
Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
CountOrAll = Annotated[int, Parameter(validator=validators.Number(gte=0))]


def _check_name(kind: Any, value: str | None) -> None:  # noqa: ARG001 - cyclopts' shape
    if value is not None and (value.strip() in ("", ".") or ".." in Path(value).parts):
        raise ValueError(f'"{value}" is not a name for a folder.')


Name = Annotated[str, Parameter(validator=_check_name)]


def _numbers(kind: Any, tokens: Sequence[cyclopts.Token]) -> tuple[int, ...]:  # noqa: ARG001 - cyclopts' shape
    parts = [part.strip() for token in tokens for part in token.value.split(",")]
    if not all(part.isdigit() for part in parts):
        raise ValueError("write whole numbers with commas between, such as 1,2")
    return tuple(int(part) for part in parts)


def _folds(kind: Any, tokens: Sequence[cyclopts.Token]) -> tuple[int, ...]:
    try:
        return _numbers(kind, tokens)
    except ValueError as error:
        raise ValueError(f"{error}; {NUMBERED_PARTS}") from error


Folds = Annotated[tuple[int, ...], Parameter(converter=_folds, n_tokens=1, negative="")]
Numbers = Annotated[tuple[int, ...], Parameter(converter=_numbers, n_tokens=1, negative="")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LayoutFlags:
    """How a data set is read where its layout could mean two things."""

    table: Annotated[str, Parameter(group=READING)] = ""
    """Table that describes the clips (CSV, TSV, JSON Lines, Parquet); "none" reads the folders alone."""
    audio: Annotated[str, Parameter(group=READING)] = ""
    """Folder below which the table's audio lies, where copies of the same names are in several."""
    folders: Annotated[Literal["classes", "splits", "folds"] | None, Parameter(group=READING)] = None
    """What the uppermost folders are, where it is not clear: classes, splits (train, test ...) or folds (fold1 ...)."""
    sources: Annotated[Literal["names", "files"] | None, Parameter(group=READING)] = None
    """What shows clips of one recording, where no column does: file names alone, or nothing (each file is one)."""
    whole_labels: Annotated[bool, Parameter(group=READING, negative="")] = False
    """Take a cell of several labels, such as "dog;rain", as the name of one class."""
    skip_bad: Flag = False
    """Leave out clips that cannot be used: missing, empty or undecodable ones; they are listed in manifest.json."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReadFlags(LayoutFlags):
    """How a data set with folds is read."""

    esc10: Flag = False
    """Take only ESC-50's ten classes marked esc10."""
    n_folds: int = 0
    """Make this many folds by source, where the data has none."""
    rare_classes: Annotated[Literal["drop", "train"] | None, Parameter(group=READING)] = None
    """Classes of one fold or recording alone: leave them out (drop), or train on and never score them (train)."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DataFlags(LayoutFlags):
    """What all commands that train can be told of their data and their folders."""

    data: Path
    """Data set: a folder of any known layout (docs/own-data.md), a table, or hf:OWNER/NAME."""
    config: Path | None = None
    """YAML file of settings; flags win over it."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    limit: CountOrAll = 0
    """Take at most this many clips, spread evenly over classes and folds, to try things out; 0 takes all."""
    cache: Path | None = None
    """Folder for decoded waveforms; $ESC_ENSEMBLE_CACHE or the user's cache folder where not given."""
    workers: CountOrAll = 0
    """Processes that decode; 0 takes the free cores."""
    as_json: Json = False
    """Print the result as JSON on stdout."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FoldFlags(DataFlags, ReadFlags):
    """What all commands that go through the folds can be told beside their settings."""

    fold: Folds = ()
    """Folds to test, such as 1,2; all where not given, of a named split its test part."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainingFlags(FoldFlags):
    """What all commands that train networks fold by fold can be told beside their settings."""

    parallel_folds: CountOrAll = 0
    """Folds trained at once; 0 takes one for each CPU thread, and one on a GPU."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PretrainingFlags(DataFlags):
    """What all commands that pretrain can be told beside their settings."""

    target: Annotated[tuple[Path, ...], Parameter(negative="", consume_multiple=True)] = ()
    """Data sets that the network is meant for: clips of their recordings are left out."""
