"""A data set as labelled clips with folds and recordings."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

ALWAYS_TRAINED = -1
"""In the place of the fold of a clip that is in every training part and never scored."""


@dataclass(frozen=True)
class Clip:
    """One labelled audio file."""

    clip_id: str
    """Its name in the metadata."""
    path: Path
    """Its file; `shard.parquet/17` for the audio in row 17 of a Parquet file."""
    label: int
    """Index into the catalog's `class_names`, -1 where unknown."""
    fold: int
    """`ALWAYS_TRAINED` for a clip that no fold tests."""
    source: str
    """The recording it was cut from."""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    """All other columns of its row, by name in lower case."""

    @property
    def n_bytes(self) -> int:
        """Size of its file; of a Parquet file for a clip in one."""
        return (self.path if self.path.is_file() else self.path.parent).stat().st_size


@dataclass(frozen=True)
class Catalog:
    """All clips of a dataset, in the order of its metadata. The arrays are (N,), in the order of `clips`."""

    name: str
    root: Path
    clips: tuple[Clip, ...]
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    """One message for each clip left out because it could not be used."""
    whole: bool = False
    """Whether all of it is trained on: folds and labels are then no matter of audits."""
    class_numbers: tuple[int, ...] = ()
    """The data set's own number of each class, as ESC-10 keeps ESC-50's 0, 1, 10 ...; empty where it has none."""
    published: bool = False
    """Whether the folds came with the data: they are taken as they are, and recordings in two of them are possible."""
    fold_names: Mapping[int, str] = field(default_factory=dict)
    """Names of the folds that are parts of a named split (train, validation, test); empty where folds have numbers."""
    rare_classes: str = ""
    """Treatment of a class without a clip to train on while a fold is held out, see `ReadOptions`."""
    same_audio: tuple[tuple[str, ...], ...] = ()
    """Groups of clips in several folds whose audio is the same, by id: they count as clips of one recording."""

    @property
    def clip_ids(self) -> npt.NDArray[np.str_]:
        """Names."""
        return np.array([clip.clip_id for clip in self.clips], dtype=np.str_)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Indices into `class_names`, -1 where unknown."""
        return np.array([clip.label for clip in self.clips], dtype=np.int64)

    @cached_property
    def folds(self) -> npt.NDArray[np.int64]:
        """Fold numbers."""
        return np.array([clip.fold for clip in self.clips], dtype=np.int64)

    @cached_property
    def sources(self) -> npt.NDArray[np.str_]:
        """Names of the recordings that the clips were cut from."""
        return np.array([clip.source for clip in self.clips], dtype=np.str_)

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """The folds there are, ascending."""
        return tuple(sorted({clip.fold for clip in self.clips} - {ALWAYS_TRAINED}))

    @property
    def test_folds(self) -> tuple[int, ...]:
        """The folds that are held out in turn: all, or of a named split its test part alone."""
        if not self.fold_names:
            return self.fold_numbers
        return self.fold_numbers[-1:]

    @property
    def selection_fold(self) -> int | None:
        """The part of a named split that selects, where it has train, validation and test."""
        return self.fold_numbers[1] if self.fold_names and len(self.fold_numbers) > 2 else None

    @cached_property
    def recordings(self) -> npt.NDArray[np.int64]:
        """A number for each clip's recording, (N,): equal where the source is, or the audio itself."""
        names, number = np.unique(self.sources, return_inverse=True)
        parent = np.arange(len(names))
        of_clip = dict(zip(self.clip_ids.tolist(), number.tolist(), strict=True))
        for group in self.same_audio:
            joined = {int(parent[of_clip[clip_id]]) for clip_id in group if clip_id in of_clip}
            parent[np.isin(parent, list(joined))] = min(joined, default=0)
        return np.asarray(parent[number])

    @cached_property
    def shared_recordings(self) -> dict[int, tuple[int, ...]]:
        """Recordings with clips in several folds, by the number in `recordings` -> the folds."""
        pairs = np.unique(np.stack([self.recordings, self.folds], axis=1)[self.folds != ALWAYS_TRAINED], axis=0)
        found: defaultdict[int, list[int]] = defaultdict(list)
        for recording, fold in pairs.tolist():
            found[recording].append(fold)
        return {recording: tuple(folds) for recording, folds in found.items() if len(folds) > 1}

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits that change with a clip's name, size, class, fold or source, not with their order."""
        lines = sorted(
            json.dumps([clip.clip_id, clip.n_bytes, self.class_name(clip), clip.fold, clip.source])
            for clip in self.clips
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

    def class_name(self, clip: Clip) -> str:
        """Returns the name of a clip's class, empty where unknown."""
        return self.class_names[clip.label] if clip.label >= 0 else ""

    def fold_title(self, fold: int) -> str:
        """Returns `fold 3`, or the name of a part of a named split."""
        return self.fold_names.get(fold, f"fold {fold}")

    def fold_label(self, fold: int) -> str:
        """Returns `fold 3`, of a named split with the name of the part: `fold 3 (test)`."""
        return f"fold {fold} ({self.fold_names[fold]})" if fold in self.fold_names else f"fold {fold}"

    def list_folds(self, folds: Iterable[int]) -> str:
        """Returns `1, 2`, of a named split with the names of the parts: `1 (train), 3 (test)`."""
        return ", ".join(self.fold_label(fold).removeprefix("fold ") for fold in folds)
