"""Where the audio of clips is whose ids are known, such as those of a logits file."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from esc_ensemble.data.audio import AUDIO_SUFFIXES
from esc_ensemble.data.layouts import has_table, read_table
from esc_ensemble.errors import EscError


def locate_clips(data: Path, clip_ids: Iterable[str]) -> dict[str, Path]:
    """Gives the files of clips by their ids, those that are there.

    Args:
        data: a data set's folder or CSV, or any folder above the files.
        clip_ids: as the data set's table names them; else paths below the folder, or names of files.
    """
    root = data if data.is_dir() else data.parent
    by_name: dict[str, Path] = {}
    for file in sorted(root.rglob("*")):
        if file.suffix.lower() in AUDIO_SUFFIXES:
            by_name.setdefault(file.name, file)
            by_name[file.relative_to(root).as_posix()] = file
    if has_table(data):
        with suppress(EscError):  # where the table cannot be read, the names of the files have to do
            by_name |= {row.clip_id: row.path for row in read_table(data, folds=False).rows if row.path.is_file()}
    return {clip_id: by_name[clip_id] for clip_id in clip_ids if clip_id in by_name}
