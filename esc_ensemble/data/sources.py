"""Which recordings a network has heard before, and that none of them is in the data that judges it.

Sources are compared as they stand in the metadata. In ESC-50, UrbanSound8K and FSD50K they are Freesound's numbers, so
that a recording is known again in another data set; file names tell only the same files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from esc_ensemble.data.catalog import Catalog
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
    held = {source for target in targets for source in target.sources.tolist()}
    shared = [number for number, clip in enumerate(catalog.clips) if clip.source in held]
    names = tuple(sorted({catalog.clips[number].source for number in shared}, key=_in_order))
    left_out = LeftOut(names, tuple(catalog.clips[number].clip_id for number in shared))
    said = " and ".join(f'"{target.name}"' for target in targets)
    for each in (catalog, *targets):
        if not all(clip.source.isdigit() for clip in each.clips):
            say(f'Note: sources of "{each.name}" are no Freesound numbers, so only equal names can be found.')
    if not shared:
        say(f'No source of "{catalog.name}" is in {said}.')
        return catalog, left_out
    if len(shared) == len(catalog.clips):
        raise DataError(f'All clips of "{catalog.name}" are of sources that are in {said} too: none is left.')
    say(
        f"Left out {plural(len(shared), 'clip')} of {plural(len(names), 'source')} that {said} holds too: "
        f"{', '.join(names)}."
    )
    gone = set(shared)
    clips = tuple(clip for number, clip in enumerate(catalog.clips) if number not in gone)
    return replace(catalog, clips=clips), left_out  # a class may be left without clips: its scores are of no use here


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
        if values["schema"] != SCHEMA or not all(isinstance(source, str) for source in sources):
            raise ValueError("it is no list of sources")
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
    shared = sorted(heard & set(catalog.sources.tolist()), key=_in_order)
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
