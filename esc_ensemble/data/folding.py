"""Recordings and folds by rule, for data that comes without them."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from esc_ensemble.data.rows import NO_FOLD, fold_of_name, split_of_name

# The mark of a piece at a name's end: `-3`, `_0.5`, `_part3`, `_chunk000`, ` (2)`, `.7`, `_10s`, `_1of3`, `_start2`;
# or of a copy: `_L`, `_left`, `_ch1`, ` - Copy`, `_16k`, `_mono`, `_0.9x`, `_pitch`.
_WORD = (
    "part|piece|chunk|seg|segment|clip|slice|cut|win|window|frame|take|start|end|from|to|off|offset|pos|t|p|"
    "ch|chan|channel|mic|track|aug|copy|dup|rep|v|ver|version"
)
_COPY = (
    "left|right|center|centre|mono|stereo|copy|noise|noisy|pitch|stretch|shift|reverb|aug|augmented|"
    "one|two|three|four|five|six|seven|eight|nine|ten|[a-z]"
)
_NUMBER = r"\d+(?:\.\d+)?(?:s|sec|ms|m\d+s?|x|k|khz|hz|st|db|[-_ ]?of[-_ ]?\d+)?"
PIECE = re.compile(
    rf"(?<=.)(?:[-_ .,+@#~]+(?:(?:{_WORD})?[-_ ]?{_NUMBER}|(?:part[-_ ]?)?(?:{_COPY}))|\s*[(\[]\d+[)\]])$",
    re.IGNORECASE,
)
COUNTER = re.compile(rf"^(?:{_WORD})?\d+[-_ ]+(?=.*[^\W\d])", re.IGNORECASE)
"""A number before the name, `003_rec7`."""
MOST_MARKS = 3
"""Marks that are cut off one name, such as number, start and end of a piece."""
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


def without_marks(stem: str, n_marks: int) -> str:
    """Returns a file name without up to `n_marks` marks of a piece at its end: `rain_7` of `rain_7-1`."""
    for _ in range(n_marks):
        stem = PIECE.sub("", stem)
    return stem


@dataclass(frozen=True)
class Sources:
    """The recordings that clips were cut from, as far as their paths show them."""

    names: list[str]
    """One a clip."""
    known: list[bool]
    """Whether a clip's is a folder, or in a name of a known kind; others are inferred from marks of pieces."""
    notes: list[str]
    """Notes on how they were found."""


def find_sources(below: Sequence[str], classes: Sequence[str], n_folds: int) -> Sources:
    """Reads the recordings off the clips' paths.

    A folder between class and file is a recording (of several the uppermost), also where two classes have one of the
    same name. Else the recording is in the file's name: where it is of a known kind, or else the name without the marks
    of a piece, as many as leave each class as many recordings as folds. A class in which that leaves fewer is numbered
    rather than cut (`dog_001.wav` ...): each of its files is then its own recording, and a note says so.

    Args:
        below: path of each clip below the folder of its class, or its name alone.
        classes: the class of each clip.
        n_folds: how many folds there are.
    """
    paths = [PurePosixPath(path) for path in below]
    folders = ["" if len(path.parts) < 2 else path.parts[0] for path in paths]
    known = [folder or recording_in_name(path.stem) for folder, path in zip(folders, paths, strict=True)]
    notes = []
    if n_in_folders := sum(map(bool, folders)):
        names = sorted(set(folders) - {""})
        what = "one folder" if len(names) == 1 else f"{len(names)} folders"
        notes.append(
            f"{n_in_folders} clips are in {what} below a class, such as {names[0]}; each of these counts as one "
            "recording (--sources names or --sources files decides otherwise)."
        )
    stems = [path.stem for path in paths]
    cut, numbered = _cut_names(stems, classes, [not each for each in known], n_folds)
    if numbered:
        notes.append(
            f"Too few recordings can be read off the file names of {', '.join(sorted(numbered))}, so each of their "
            "files counts as its own. If some are cuts of one recording, scores come out too good: name the recordings "
            'in a column "source" of a table, or put each into a folder of its own.'
        )
    chosen = [found or name for found, name in zip(known, cut, strict=True)]
    return Sources(chosen, [bool(each) for each in known], notes)


def _cut_names(
    stems: Sequence[str], classes: Sequence[str], chosen: Sequence[bool], n_folds: int
) -> tuple[list[str], set[str]]:
    """Cuts the marks of pieces off names; returns them, and the classes whose files are numbered rather than cut."""

    def n_sources(cut: Sequence[str]) -> dict[str, int]:
        found: defaultdict[str, set[str]] = defaultdict(set)
        for name, label, counts in zip(cut, classes, chosen, strict=True):
            if counts:
                found[label].add(name)
        return {label: len(names) for label, names in found.items()}

    levels = {n_marks: [without_marks(stem, n_marks) for stem in stems] for n_marks in range(MOST_MARKS + 1)}
    numbered = {label for label, n in n_sources(levels[1]).items() if n < n_folds}
    fits = [
        n_marks
        for n_marks in range(1, MOST_MARKS + 1)
        if all(n >= n_folds for label, n in n_sources(levels[n_marks]).items() if label not in numbered)
    ]
    cut = levels[max(fits, default=1)]
    if len(set(cut)) == len(cut):  # nothing was cut: the pieces may be numbered in front
        front = [COUNTER.sub("", stem) for stem in stems]
        repeat = 1.5 * len(set(zip(front, classes, strict=True))) <= len(front)  # within their class, as pieces do
        if repeat and all(n >= n_folds for n in n_sources(front).values()):
            return front, set()
    return [
        stem if label in numbered else name for stem, label, name in zip(stems, classes, cut, strict=True)
    ], numbered


def crossing_sources(names: Sequence[str], folds: Sequence[object], inferred: Sequence[bool]) -> list[str]:
    """Returns the inferred recordings with clips in several folds, sorted.

    Args:
        names: the recording of each clip.
        folds: the fold, or the part of a split, of each.
        inferred: whether it is.
    """
    folds_of: defaultdict[str, set[object]] = defaultdict(set)
    for name, fold in zip(names, folds, strict=True):
        folds_of[name].add(fold)
    return sorted({name for name, guess in zip(names, inferred, strict=True) if guess and len(folds_of[name]) > 1})


def folders_of_recordings(
    paths: Sequence[PurePosixPath], classes: Sequence[str], *, skip_classes: bool = True
) -> list[str]:
    """Returns each clip's path from the folder on that may be its recording, or its name alone.

    Levels of folders that all clips share, that are parts of a split or folds, and that stand for the classes (one
    folder a class) are passed over.

    Args:
        paths: of the clips, below the data set's folder, or below those of their classes.
        classes: the class of each clip.
        skip_classes: whether folders of classes are among those of the paths.
    """
    folders = [path.parts[:-1] for path in paths]
    level = 0
    while folders and all(len(each) > level for each in folders):
        names = [each[level] for each in folders]
        pairs = set(zip(names, classes, strict=True))
        of_classes = skip_classes and len(pairs) == len(set(names)) == len(set(classes)) > 1
        of_parts = all(split_of_name(name) or fold_of_name(name) != NO_FOLD for name in set(names))
        if len(set(names)) > 1 and not of_classes and not of_parts:
            break
        level += 1
    return ["/".join(path.parts[level:]) for path in paths]


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
        key=lambda i: (
            -counts[i].max(),
            hashlib.sha256(str(source_names[i]).encode(errors="surrogateescape")).hexdigest(),
        ),
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
