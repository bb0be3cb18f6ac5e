"""Clips that hold the same audio under several names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from esc_ensemble.data.catalog import Catalog, Clip
from esc_ensemble.data.decoding import SILENT
from esc_ensemble.data.near_duplicates import Index, find_near_duplicates
from esc_ensemble.progress import progress

NEAR_SAMPLE_RATE = 32_000
"""Hz of the waveforms in which near-duplicates are looked for: the trainers' default, so that none is decoded twice."""


@dataclass(frozen=True)
class SameAudio:
    """What was found, as `a.wav (dog, fold 1) = b.wav (dog, fold 2)`."""

    problems: tuple[str, ...]
    """Groups that stand in two folds, or in two classes without being cuts of one source."""
    harmless: tuple[str, ...]
    """The other groups."""
    shared: tuple[tuple[str, ...], ...]
    """Groups of one class in several published folds, by clip id: the folds are taken as they are."""
    n_silent: int
    """Clips that are digital silence throughout."""
    drop: dict[int, str]
    """Position in the catalog -> why, for the clips to leave out so that no problem remains."""


def same_audio(catalog: Catalog, digests: Sequence[str]) -> SameAudio:
    """Compares clips by the digests of their waveforms.

    One recording may be cut at the same place twice and given to two classes, where two things sound at
    once; that is a matter of labels, and all in one fold. The same audio in two folds is a leak. To drop are
    all but the first of a group that agrees on the class, and all of one that does not, since then no label
    can be trusted.

    Args:
        catalog: the clips.
        digests: one for each clip, in their order.
    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        if digest != SILENT:  # silence is no evidence of a copy
            groups[digest].append(index)
    problems, harmless, shared, drop = [], [], [], {}
    for group in groups.values():
        if len(group) == 1:
            continue
        clips = [catalog.clips[index] for index in group]
        text = " = ".join(_name(catalog, clip) for clip in clips)
        one_label = len({clip.label for clip in clips}) == 1
        one_source = len({clip.source for clip in clips}) == 1
        if len({clip.fold for clip in clips}) == 1 and (one_label or one_source):
            harmless.append(text)
            continue
        if catalog.published and one_label:
            shared.append(tuple(clip.clip_id for clip in clips))
            continue
        problems.append(text)
        drop.update(dict.fromkeys(group[1:] if one_label else group, f"same audio twice: {text}"))
    n_silent = sum(digest == SILENT for digest in digests)
    return SameAudio(tuple(problems), tuple(harmless), tuple(shared), n_silent, drop)


def _name(catalog: Catalog, clip: Clip) -> str:
    return f"{clip.clip_id} ({catalog.class_name(clip) or 'no class'}, fold {clip.fold})"


def alike_across_folds(catalog: Catalog, read_batch: Callable[[Index], npt.NDArray[np.int16]]) -> list[str]:
    """Finds clips of different recordings in different folds whose audio is nearly the same, the most alike first.

    Such a pair is a leak that no name shows; it is reported, and changes nothing.

    Args:
        catalog: the clips.
        read_batch: reads waveforms (B, T) int16 at `NEAR_SAMPLE_RATE` by position (B,).
    """
    with progress("Near-duplicates", len(catalog.clips), "clips", in_passing=True) as advance:
        pairs = find_near_duplicates(read_batch, len(catalog.clips), NEAR_SAMPLE_RATE, advance=advance)
    found = []
    for pair in pairs:
        first, second = catalog.clips[pair.first], catalog.clips[pair.second]
        if first.fold == second.fold or catalog.recordings[pair.first] == catalog.recordings[pair.second]:
            continue
        shift = f", {abs(pair.offset_seconds):.1f} s apart" if abs(pair.offset_seconds) >= 0.1 else ""
        found.append(f"{_name(catalog, first)} and {_name(catalog, second)}: {pair.similarity:.2f}{shift}")
    return found
