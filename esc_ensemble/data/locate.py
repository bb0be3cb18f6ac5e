"""Where the audio of clips is whose ids are known, such as those in a logits file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from esc_ensemble.data.audio_index import AudioIndex
from esc_ensemble.data.layouts import list_clips
from esc_ensemble.data.rows import ReadOptions
from esc_ensemble.errors import DataError


def locate_clips(data: Path, clip_ids: Iterable[str]) -> dict[str, Path]:
    """Returns the files of clips by their ids, those that are there.

    Args:
        data: a data set's folder or table, or any folder above the files.
        clip_ids: as the data set's table names them; else paths below the folder, or names of files.
    """
    wanted = list(clip_ids)
    listed: dict[str, Path] = {}
    try:
        rows = list_clips(data, ReadOptions(need_folds=False, need_classes=False)).rows
        listed = {row.clip_id: row.path for row in rows}
    except DataError:  # no data set: the names of the files have to do
        pass
    if not all(clip_id in listed for clip_id in wanted):
        root = data if data.is_dir() else data.parent
        found = AudioIndex([root]).find(wanted)
        listed = {name: path for name, path in zip(wanted, found.paths, strict=True) if path} | listed
    return {clip_id: listed[clip_id] for clip_id in wanted if clip_id in listed and exists(listed[clip_id])}


def exists(path: Path) -> bool:
    """Whether there is a file, or a row of a Parquet file."""
    return path.is_file() or (path.parent.suffix.lower() == ".parquet" and path.parent.is_file())
