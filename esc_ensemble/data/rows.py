"""Cells of a table, rows of clips, and what a user decided of how they are read."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

NO_FOLD = -1
SPLIT_FOLDS = {"train": 1, "validation": 2, "test": 3}
"""The folds that the parts of a named split become."""
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn", "tr", "trainval"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "validate", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "holdout"), "test"),
}
SPLIT_WORDS = frozenset(("audio", "split", "data", "clips", "wav", "wavs", "files", "sounds", "samples", "folder", ""))
"""Words next to the name of a part, as in `audio_train`."""
FOLD_NAME = re.compile(r"fold[-_ ]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class CellTable:
    """The cells of a table as stripped text, by column name in lower case with `_` for spaces."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]
    """Line number (in Parquet the number of the row) and cells."""
    problems: tuple[str, ...] = ()
    """Lines with more or fewer cells than there are columns."""
    notes: tuple[str, ...] = ()
    """Notes on how it was read."""
    audio: tuple[Path, ...] = ()
    """Where each row's audio is stored, where the table itself holds it; see `esc_ensemble.data.parquet`."""
    stored: tuple[str, ...] = ()
    """Of audio inside the table, the path that each row's had as a file."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Choices of a user, or of a command, about how a data set is read."""

    esc10: bool = False
    """Take only ESC-50's ten classes marked esc10."""
    n_folds: int = 0
    """Folds to make, by source, where the data has none; 0 makes five of folders and refuses a table without folds."""
    table: str = ""
    """The table that describes the clips; "none" reads the folders alone."""
    audio: str = ""
    """The folder below which the audio of a table lies, where there are copies."""
    folders: Literal["", "classes", "splits", "folds"] = ""
    """Meaning of the uppermost folders."""
    sources: Literal["", "names", "files"] = ""
    """Clue to clips of one recording: the file name without the number of a cut, or none (each file is its own)."""
    rare_classes: Literal["", "drop", "train"] = ""
    """Treatment of classes with nothing to train on while a fold is held out: refused, left out, or never scored."""
    whole_labels: bool = False
    """Take a label such as "dog;rain" as the name of one class."""
    skip_bad: bool = False
    """Leave out clips that cannot be used."""
    need_folds: bool = True
    need_classes: bool = True
    search: tuple[Path, ...] = ()
    """Further folders in which a table's audio may be."""
    leave_out: frozenset[Path] = frozenset()
    """Audio files that are no part of the data set, such as test clips."""


@dataclass(frozen=True)
class Row:
    """One clip as the metadata has it."""

    clip_id: str
    path: Path
    class_name: str
    class_number: int | None
    fold: int
    source: str
    """The recording; empty where nothing says it."""
    split: str = ""
    """train, validation or test, where the data has a named split."""
    below: str = ""
    """The path below the class's folder, of folders of classes."""
    stored: str = ""
    """The path that audio inside a table had as a file."""
    metadata: dict[str, str] = field(default_factory=dict, hash=False)
    """All other columns."""


@dataclass(frozen=True)
class Listing:
    """The rows of a data set that could be read, and what is wrong with the others."""

    name: str
    root: Path
    origin: Path
    """Name in messages: the table or the folder."""
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    """Reasons that the data set cannot be used."""
    bad: tuple[str, ...] = ()
    """Clips that cannot be used, which --skip-bad leaves out."""
    notes: tuple[str, ...] = ()
    """Notes on how it was read."""
    published: bool = True
    """Whether the folds came with the data, and are not to be changed."""
    fold_names: tuple[tuple[int, str], ...] = ()
    """Fold and name of the parts of a named split; none where folds have numbers."""


def split_of_name(name: str) -> str:
    """Returns train, validation or test for a name of such a part, `val` or `audio_train`; empty for others."""
    words = [word.removesuffix("set") for word in re.split(r"[-_ .]+", name.strip().lower()) if word]
    parts = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    others = [word for word in words if word not in SPLIT_NAMES]
    return parts.pop() if len(parts) == 1 and all(word in SPLIT_WORDS for word in others) else ""


def split_in_name(name: str) -> str:
    """Returns the part of a split that a longer name has a word of, as `train-clean`; empty for none, or for two."""
    words = [word.removesuffix("set") for word in re.split(r"[^a-z]+", name.lower())]
    parts = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return parts.pop() if len(parts) == 1 else ""


def fold_of_name(name: str) -> int:
    """Returns the number in a name such as `fold3`, `NO_FOLD` for others."""
    match = FOLD_NAME.fullmatch(name.strip())
    return int(match[1]) if match else NO_FOLD


def to_text(value: Any) -> str:
    """Returns a value of JSON or Parquet as the text that a CSV file would have; empty for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list) and len(value) == 1:
        return to_text(value[0])
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)).strip()


def below(path: Path, root: Path) -> str:
    """Returns a path below a folder, for messages; the whole path of one elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
