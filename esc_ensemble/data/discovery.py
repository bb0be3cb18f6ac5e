"""Data sets somewhere below some folders, as a Kaggle kernel finds them: where they are, the likeliest first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from esc_ensemble.data.columns import CLASS_COLUMNS, FILE_COLUMNS
from esc_ensemble.data.rows import split_of_name
from esc_ensemble.data.table_layouts import METADATA, OFFICIAL, is_sample
from esc_ensemble.data.tables import TABLE_SUFFIXES, read_header
from esc_ensemble.data.walk import is_audio, walk

KAGGLE_INPUT = Path("/kaggle/input")
"""Its folders are data sets, not classes."""
MOUNTS = ("datasets", "competitions")


def find_datasets(tops: Sequence[Path], leave_out: Collection[Path], within: str = "") -> list[Path]:
    """Lists folders and tables that may be labelled data sets: `load_catalog` takes the first that is one.

    Official tables come first, then folders with a table that has a column for the file and one for the class, such
    tables themselves (their audio may be elsewhere), Parquet files, and last folders with several folders of audio.

    Args:
        tops: where to look.
        leave_out: audio that is no training data, such as test clips.
        within: a part that the path must hold.
    """
    walks = {top: walk(top) for top in tops}
    files = [file for found in walks.values() for file in found.files]
    official, tables, shards = [], [], []
    for file in files:
        if file.suffix.lower() not in TABLE_SUFFIXES or is_sample(file):
            continue
        if Path(file.parent.name, file.name) in OFFICIAL:
            official.append(file.parent.parent)
        elif file.suffix.lower() == ".parquet":
            shards.append(_top_of_shards(file, tops))
        elif _describes_clips(file):
            in_part = file.name in METADATA and file.parent not in tops  # of train/metadata.csv the folder above
            tables += [*([file.parent.parent] if in_part else []), file.parent, file]
    hidden = set(leave_out)
    folders = _class_folders(tops, [file for file in files if is_audio(file)], hidden)
    ordered = dict.fromkeys([*official, *tables, *shards, *folders])
    return [path for path in ordered if within in path.as_posix()]


def _describes_clips(table: Path) -> bool:
    columns = set(read_header(table))
    return bool(columns & set(FILE_COLUMNS)) and bool(columns & set(CLASS_COLUMNS))


def _top_of_shards(shard: Path, tops: Sequence[Path]) -> Path:
    """Returns the data set's folder: of `data/train-00000.parquet` and `train/0000.parquet` the one above."""
    inside = shard.parent.name in ("data", "default") or split_of_name(shard.parent.name)
    return shard.parent.parent if inside and shard.parent not in tops else shard.parent


def _class_folders(tops: Sequence[Path], audio: Sequence[Path], leave_out: set[Path]) -> list[Path]:
    """Lists folders whose folders may be classes, the uppermost first."""
    children: dict[Path, set[Path]] = {}
    with_test: set[Path] = {parent for path in audio if path in leave_out for parent in path.parents}
    for path in audio:
        if path in leave_out:
            continue
        child = path.parent
        while child not in tops and child.parent != child:
            children.setdefault(child.parent, set()).add(child)
            child = child.parent
    return [
        folder
        for folder, below in sorted(children.items(), key=lambda item: (len(item[0].parts), -len(item[1])))
        if len(below) > 1 and not below & with_test and not _is_mount(folder)
    ]


def _is_mount(folder: Path) -> bool:
    """Whether a folder is one that Kaggle puts data sets into."""
    if not folder.is_relative_to(KAGGLE_INPUT):
        return False
    parts = folder.relative_to(KAGGLE_INPUT).parts
    return not parts or (parts[0] in MOUNTS and len(parts) < (3 if parts[0] == "datasets" else 2))
