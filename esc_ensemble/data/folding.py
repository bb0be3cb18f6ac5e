"""Recordings and folds by rule, for data that comes without them."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

CUT_MARKER = re.compile(r"(?<=.)[-_]\d+$")
# Names that carry their recording: ESC-50's fold-source-take-class and UrbanSound8K's source-class-occurrence-slice,
# both with Freesound's numbers, and Speech Commands' speaker.
FREESOUND_NAMES = (re.compile(r"^\d-(\d+)-[A-Z]-\d+$"), re.compile(r"^(\d+)-\d+-\d+-\d+$"))
SPEAKER_NAME = re.compile(r"^(.+)_nohash_\d+$")


def freesound_number(stem: str) -> str:
    """Returns Freesound's number in a file name of ESC-50's or UrbanSound8K's kind; empty where there is none."""
    return next((match[1] for pattern in FREESOUND_NAMES if (match := pattern.match(stem))), "")


def recording_in_name(stem: str) -> str:
    """Returns the recording, or the speaker, in a file name of a known kind; empty where it is of none."""
    speaker = SPEAKER_NAME.match(stem)
    return speaker[1] if speaker else freesound_number(stem)


def without_cut_marker(stem: str) -> str:
    """Returns a file name without the number of a cut at its end, `rain_7` of `rain_7-1`."""
    return CUT_MARKER.sub("", stem)


@dataclass(frozen=True)
class Sources:
    """The recordings that clips were cut from, as far as their paths show them."""

    names: list[str]
    """One a clip."""
    notes: list[str]
    """Notes on how they were found."""


def find_sources(clip_ids: Sequence[str], below: Sequence[str], classes: Sequence[str], n_folds: int) -> Sources:
    """Reads the recordings off the clips' paths, for folds that are to be made.

    A folder between class and file is a recording (of several the uppermost), also where two classes have one of the
    same name. Else the recording is in the file's name: where it is of a known kind, or else the name without the
    number of a cut. A class in which that leaves fewer recordings than folds is numbered rather than cut
    (`dog_001.wav` ...): each of its files is then its own recording, and a note says so.

    Args:
        clip_ids: paths of the clips.
        below: path of each clip below the folder of its class, or its name alone.
        classes: the class of each clip.
        n_folds: how many folds are to be made of them; 0 leaves names as they are, since folds are given.
    """
    paths = [PurePosixPath(path) for path in below]
    folders = ["" if len(path.parts) < 2 else path.parts[0] for path in paths]
    known = [folder or recording_in_name(path.stem) for folder, path in zip(folders, paths, strict=True)]
    notes = []
    if n_in_folders := sum(map(bool, folders)):
        n_folders = len(set(folders) - {""})
        notes.append(
            f"{n_in_folders} clips are in {n_folders} {'folder' if n_folders == 1 else 'folders'} below a class; "
            "each of these counts as one recording (--sources names or --sources files decides otherwise)."
        )
    if not n_folds:
        return Sources([found or clip_id for found, clip_id in zip(known, clip_ids, strict=True)], notes)
    cut = [found or without_cut_marker(path.stem) for found, path in zip(known, paths, strict=True)]
    cuts_of_class: defaultdict[str, set[str]] = defaultdict(set)
    for source, name in zip(cut, classes, strict=True):
        cuts_of_class[name].add(source)
    numbered = {
        name for found, name in zip(known, classes, strict=True) if not found and len(cuts_of_class[name]) < n_folds
    }
    if numbered:
        notes.append(
            f"Too few recordings can be read off the file names of {', '.join(sorted(numbered))}, so each of their "
            "files counts as its own. If some are cuts of one recording, scores come out too good: name the recordings "
            'in a column "source" of a table, or put each into a folder of its own.'
        )
    names = [
        found or (path.stem if name in numbered else source)
        for found, path, name, source in zip(known, paths, classes, cut, strict=True)
    ]
    return Sources(names, notes)


def assign_folds(sources: Sequence[str], classes: Sequence[str], n_folds: int) -> list[int]:
    """Deals whole sources to folds 1..n_folds so that every class is spread evenly.

    The rule of scikit-learn's StratifiedGroupKFold: sources go one by one, those with most clips of one
    class first, each to the fold that leaves the classes' counts over the folds the most even. Written out
    here because folds are part of a result: they must not change with the version of a library. Ties are
    broken by hashed name.

    Args:
        sources: the source of each clip.
        classes: the class of each clip.
        n_folds: how many folds to make.

    Returns:
        The fold of each clip.
    """
    source_names, source_index = np.unique(np.array(sources, dtype=np.str_), return_inverse=True)
    class_names, class_index = np.unique(np.array(classes, dtype=np.str_), return_inverse=True)
    counts = np.zeros((len(source_names), len(class_names)))  # clips a source and class
    np.add.at(counts, (source_index, class_index), 1)
    totals = counts.sum(axis=0)
    order = sorted(
        range(len(source_names)),
        key=lambda i: (-counts[i].max(), hashlib.sha256(str(source_names[i]).encode()).hexdigest()),
    )
    filled = np.zeros((n_folds, len(class_names)))
    fold_of_source = np.zeros(len(source_names), dtype=np.int64)
    for index in order:
        # What adding the source does to the sum of squares of each class's share in each fold.
        cost = ((2 * filled * counts[index] + counts[index] ** 2) / totals**2).sum(axis=1)
        fold = min(range(n_folds), key=lambda f: (round(float(cost[f]), 12), filled[f].sum(), f))
        filled[fold] += counts[index]
        fold_of_source[index] = fold + 1
    return [int(fold) for fold in fold_of_source[source_index]]
