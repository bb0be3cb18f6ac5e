"""Logits of new clips that lie beside the fold models, `runs/<run>/fold-<k>/<name>.npz`: read, checked, put in order.

They are files as `esc_ensemble.logits` has them, with labels -1 and no selection part, and a name of their own, so that
whoever reads the run does not see them. Where the clips were heard here their fingerprint is that of the clips. Other
frameworks do not know it: they write that of the data they were trained on, as into all their files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.blend.apply import counting_members
from esc_ensemble.errors import LogitsError
from esc_ensemble.logits import FoldLogits, read_logits, seconds_of, shift_places

MAX_NAMED = 3


@dataclass(frozen=True, eq=False)
class NewClips:
    """The clips that a blend is applied to."""

    clip_ids: np.ndarray
    """(N,) str."""
    fingerprint: str
    """Tells them from all others."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where the logits of one fold's model are kept, and what they must be."""

    member: Mapping[str, Any]
    """Its entry in blend.json."""
    fold: int
    run_dir: Path
    path: Path
    """The file."""
    class_names: tuple[str, ...]
    trained_on: str
    """Fingerprint of the data that the blend's members were trained on."""

    @property
    def folder(self) -> Path:
        """The fold's folder."""
        return self.path.parent

    @property
    def has_model(self) -> bool:
        """Whether the logits can be computed here."""
        return (self.folder / "model.json").exists()


def find_places(blend: Mapping[str, Any], blend_dir: Path, name: str) -> list[list[Place]]:
    """Gives, for each member that counts and each of its folds, where the logits of the clips `name` are kept."""
    return [
        [
            Place(
                member=member,
                fold=fold,
                run_dir=run_dir,
                path=run_dir / f"fold-{fold}" / f"{name}.npz",
                class_names=tuple(blend["class_names"]),
                trained_on=str(blend["dataset_fingerprint"]),
            )
            for fold in member["folds"]
        ]
        for member in counting_members(blend)
        for run_dir in [(blend_dir / member["path"]).resolve()]
    ]


def read_kept(place: Place, clips: NewClips, *, allow_fewer: bool) -> FoldLogits | str:
    """Reads the logits kept at a place, or says in a sentence why there are none that can be used.

    Shifts are not looked at: see `absent_shifts`.

    Args:
        place: where.
        clips: whose logits they must be.
        allow_fewer: whether some clips may be missing.
    """
    if not place.folder.is_dir():
        return f"{place.folder} does not exist: the run was moved, or the fold deleted."
    if not place.path.exists():
        return f"{place.path} does not exist."
    try:
        kept = read_logits(place.path)
    except LogitsError as error:
        return str(error)
    return _misfit(place, kept, clips, allow_fewer=allow_fewer) or kept


def _misfit(place: Place, kept: FoldLogits, clips: NewClips, *, allow_fewer: bool) -> str:
    expected = {
        "fold": place.fold,
        "run": place.member["run"],
        "config_hash": place.member["config_hash"],
        "class_names": place.class_names,
        "shift_mode": place.member["shift_mode"],
    }
    for key, wanted in expected.items():
        if getattr(kept, key) != wanted:
            return f"{place.path} has {key} {getattr(kept, key)!r}, in the blend the member has {wanted!r}."
    accepted = [clips.fingerprint] if place.has_model else [clips.fingerprint, place.trained_on]
    if kept.dataset_fingerprint not in accepted:
        return f"{place.path} holds logits of other clips, of fingerprint {kept.dataset_fingerprint}."
    absent = np.setdiff1d(clips.clip_ids, kept.test.clip_ids)
    if absent.size and not allow_fewer:
        return f"{place.path} lacks {absent.size} of the clips, {_named(absent)}; it has {_named(kept.test.clip_ids)}."
    return ""


def absent_shifts(place: Place, kept: FoldLogits) -> tuple[float, ...]:
    """Gives the shifts in seconds that count in the blend and are not among those kept."""
    return tuple(shift for shift in place.member["shifts"] if round(float(shift), 6) not in seconds_of(kept.shifts))


def pick_logits(kept: FoldLogits, shifts: Sequence[float], clip_ids: np.ndarray) -> np.ndarray:
    """Gives logits (S, N, C) at shifts in seconds and of clips, in the order asked for; they must be there.

    Args:
        kept: from `read_kept`.
        shifts: S of them.
        clip_ids: (N,).
    """
    row_of = {str(clip_id): row for row, clip_id in enumerate(kept.test.clip_ids)}
    rows = [row_of[str(clip_id)] for clip_id in clip_ids]
    return np.asarray(kept.test.logits[np.ix_(shift_places(kept.shifts, shifts), rows)])


def _named(values: Sequence[str] | np.ndarray) -> str:
    more = " ..." if len(values) > MAX_NAMED else ""
    return ", ".join(str(value) for value in values[:MAX_NAMED]) + more
