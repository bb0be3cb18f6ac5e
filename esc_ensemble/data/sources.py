"""Which recordings a network has heard before, and that none of them is in the data that judges it.

A recording is known by its source in the metadata, and by its file's name: the number in it where the name is of
ESC-50's or UrbanSound8K's kind, else the name. In these data sets, and in FSD50K, sources are Freesound's numbers, so
that a recording is found again in another set; other names tell only the same files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from esc_ensemble.data.audio_index import stem_of
from esc_ensemble.data.catalog import Catalog, Clip
from esc_ensemble.data.folding import freesound_number
from esc_ensemble.data.tables import plural
from esc_ensemble.errors import DataError, ModelFileError, list_problems
from esc_ensemble.files import write_json
from esc_ensemble.progress import say

SOURCES_FILE = "sources.json"
SCHEMA = 1


@dataclass(frozen=True)
class LeftOut:
    """What of a data set is not used for pretraining, since its recordings stand in a target too."""

    sources: tuple[str, ...]
    clip_ids: tuple[str, ...]


def leave_out_shared(catalog: Catalog, targets: Sequence[Catalog]) -> tuple[Catalog, LeftOut]:
    """Takes the clips out of a data set whose recordings stand in one of the targets, and says which.

    Raises:
        DataError: nothing is left.
    """
    held = heard_in(*targets)
    marks = [_marks(clip) for clip in catalog.clips]
    shared = [number for number, own in enumerate(marks) if own & held]
    names = tuple(sorted({name for number in shared for name in marks[number] & held}, key=_in_order))
    left_out = LeftOut(names, tuple(catalog.clips[number].clip_id for number in shared))
    said = " and ".join(f'"{target.name}"' for target in targets)
    for each in (catalog, *targets):
        if not all(any(mark.isdecimal() for mark in _marks(clip)) for clip in each.clips):
            say(f'Note: not all clips of "{each.name}" have Freesound numbers; others are known by equal names only.')
    if not shared:
        say(f'No source of "{catalog.name}" is in {said}.')
        return catalog, left_out
    if len(shared) == len(catalog.clips):
        raise DataError(f'All clips of "{catalog.name}" are of sources that are in {said} too: none is left.')
    say(
        f"Left out {plural(len(shared), 'clip')} of {plural(len(names), 'source')} that {said} "
        f"{'hold' if len(targets) > 1 else 'holds'} too: {', '.join(names)}."
    )
    gone = set(shared)
    return _without_empty_classes(catalog, [n for n in range(len(catalog.clips)) if n not in gone]), left_out


def heard_in(*catalogs: Catalog) -> set[str]:
    """All marks by which the recordings of data sets can be known."""
    return {mark for catalog in catalogs for clip in catalog.clips for mark in _marks(clip)}


def _marks(clip: Clip) -> frozenset[str]:
    """What a clip's recording is known by."""
    stem = (
        clip.path.stem if clip.path.is_file() else stem_of(clip.clip_id.rpartition("/")[2])
    )  # a row of Parquet has no name
    return frozenset({_plain(clip.source), _plain(freesound_number(stem) or stem)})


def _plain(source: str) -> str:
    """Whole numbers without leading zeros, and without the decimals that some tools put behind them."""
    whole = re.fullmatch(r"0*(\d+)(\.0+)?", source.strip(), re.ASCII)
    return whole[1] if whole else source.strip()


def _without_empty_classes(catalog: Catalog, keep: Sequence[int]) -> Catalog:
    clips = [catalog.clips[number] for number in keep]
    labels = sorted({clip.label for clip in clips if clip.label >= 0})
    index = {label: place for place, label in enumerate(labels)} | {-1: -1}
    return replace(
        catalog,
        clips=tuple(replace(clip, label=index[clip.label]) for clip in clips),
        class_names=tuple(catalog.class_names[label] for label in labels),
    )


def write_sources(folder: Path, sources: Iterable[str]) -> None:
    """Writes down beside a network's weights what it has heard."""
    write_json(folder / SOURCES_FILE, {"schema": SCHEMA, "sources": sorted(set(sources), key=_in_order)})


def read_sources(folder: Path) -> frozenset[str]:
    """Reads which sources the network in a folder has heard.

    Raises:
        ModelFileError: the file is missing or damaged.
    """
    path = folder / SOURCES_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        sources = values["sources"]
        if values["schema"] != SCHEMA or not isinstance(sources, list) or not sources:
            raise ValueError("it is no list of sources")
        if not all(isinstance(source, str) for source in sources):
            raise ValueError("a source is no text")
    except FileNotFoundError as error:
        raise ModelFileError(f"{path} does not exist: {folder} is no run of `esc-ens pretrain`.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} cannot be read ({error}). Pretrain again.") from error
    return frozenset(sources)


def refuse_shared(folder: Path, heard: frozenset[str], catalog: Catalog) -> None:
    """Makes sure that a pretrained network has heard none of the recordings that it is to be judged by.

    Raises:
        DataError: it has; all of them are named.
    """
    shared = sorted(heard & heard_in(catalog), key=_in_order)
    if shared:
        count = plural(len(shared), "source")
        raise DataError(
            list_problems(
                f'{folder} was pretrained on {count} of "{catalog.name}", so its scores would come out too good:',
                shared,
                f"Pretrain under another name with --target {catalog.root}, which leaves them out.",
            )
        )


def _in_order(source: str) -> tuple[int, str]:
    """Numbers by size, then names."""
    return (int(source), "") if source.isdecimal() and source.isascii() else (1 << 62, source)
