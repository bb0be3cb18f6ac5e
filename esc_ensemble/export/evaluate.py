"""How good an exported file is: each clip of the training data heard by the models that had not heard its fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.blend.apply import counting_members
from esc_ensemble.blend.combine import Mixture, combine, evidence, mean_over_shifts
from esc_ensemble.blend.members import align_members
from esc_ensemble.config import DataConfig
from esc_ensemble.data.audio import decode
from esc_ensemble.data.locate import locate_clips
from esc_ensemble.errors import DataError
from esc_ensemble.export.parts import Part
from esc_ensemble.logits import read_run, shift_places
from esc_ensemble.manifest import read_dataset_path
from esc_ensemble.metrics import log_loss
from esc_ensemble.progress import progress


@dataclass(frozen=True, eq=False)
class OofClips:
    """Labelled clips of the data that a blend was trained on, and what its models said of them out of fold."""

    paths: tuple[Path, ...]
    """N files."""
    labels: np.ndarray
    """(N,) int64."""
    folds: np.ndarray
    """(N,) the fold that holds each clip."""
    logits: np.ndarray
    """(M, N, C) float32 of each member that counts, the weighted mean over its shifts, as its run has stored them."""


@dataclass(frozen=True)
class Accuracy:
    """An exported file against the blend that it was made of, on the same clips, both out of fold."""

    n_clips: int
    top1: float
    """Of the file."""
    blend_top1: float
    """Of the stored logits under the same weights."""
    log_loss: float
    blend_log_loss: float

    @property
    def lost_points(self) -> float:
        """Percentage points of top-1 that the file is behind."""
        return round(100.0 * (self.blend_top1 - self.top1), 6)  # 0.93 - 0.92 is more than 0.01


def find_oof_clips(blend: Mapping[str, Any], folder: Path, data: Path | None, n_clips: int) -> OofClips:
    """Gives up to `n_clips` of the labelled clips whose audio is there, spread over folds and classes.

    Args:
        blend: from `read_source`.
        folder: the blend's or run's folder, which the members' paths are relative to.
        data: the data set, or a folder with its audio; None looks where the runs' manifests say.
        n_clips: how many.

    Raises:
        LogitsError: a run's logits are gone or damaged.
        DataError: no clip's audio is there.
    """
    members = counting_members(blend)
    aligned = align_members([read_run(folder / member["path"]) for member in members])
    place = data or read_dataset_path([folder / member["path"] for member in members])
    found = locate_clips(place, map(str, aligned.clip_ids)) if place and place.exists() else {}
    usable = np.array([str(clip_id) in found for clip_id in aligned.clip_ids]) & (aligned.labels >= 0)
    if not usable.any():
        raise DataError(
            f"An export's accuracy is measured on the clips that its blend was trained on, and "
            f"{place or 'nowhere'} has none of them. Say where the data set is with --data DIR, or leave it out with "
            "--accuracy-clips 0."
        )
    order = np.lexsort((aligned.labels, aligned.fold_of_clip))  # fold by fold, and in each class by class
    order = order[usable[order]]
    chosen = order[np.linspace(0, len(order) - 1, min(len(order), n_clips)).round().astype(int)]
    return OofClips(
        paths=tuple(found[str(clip_id)] for clip_id in aligned.clip_ids[chosen]),
        labels=aligned.labels[chosen],
        folds=aligned.fold_of_clip[chosen],
        logits=np.stack(
            [
                mean_over_shifts(
                    logits[shift_places(run.shifts, member["shifts"])][:, chosen], np.array(member["shift_weights"])
                )
                for run, logits, member in zip(aligned.runs, aligned.logits, members, strict=True)
            ]
        ),
    )


def measure_accuracy(
    part_logits: Callable[[np.ndarray], np.ndarray],
    parts: Sequence[Part],
    blend: Mapping[str, Any],
    clips: OofClips,
    data: DataConfig,
) -> Accuracy:
    """Lets a file hear clips, takes of each the parts that have not heard its fold, and scores them as a blend.

    Args:
        part_logits: waveform (1, T) to the logits of all parts (P, 1, C), such as an exported file gives.
        parts: the P parts.
        blend: the content of blend.json.
        clips: what is heard.
        data: rate and channel of the waveform.
    """
    runs = [str(member["run"]) for member in counting_members(blend)]
    number = {(part.run, part.fold): place for place, part in enumerate(parts)}
    heard = np.empty_like(clips.logits)
    with progress("Hearing clips out of fold", len(clips.paths)) as advance:
        for clip, (path, fold) in enumerate(zip(clips.paths, clips.folds, strict=True)):
            said = part_logits(decode(path, data.sample_rate, channel=data.channel)[None])
            heard[:, clip] = said[[number[run, int(fold)] for run in runs], 0]
            advance()
    ours, theirs = (combine_oof(blend, logits, clips.folds) for logits in (heard, clips.logits))
    return Accuracy(
        n_clips=len(clips.paths),
        top1=float((ours.argmax(axis=1) == clips.labels).mean()),
        blend_top1=float((theirs.argmax(axis=1) == clips.labels).mean()),
        log_loss=log_loss(ours, clips.labels),
        blend_log_loss=log_loss(theirs, clips.labels),
    )


def combine_oof(blend: Mapping[str, Any], logits: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Gives a blend's probabilities (N, C) of clips from each member's logits (M, N, C) out of fold."""
    members = counting_members(blend)
    temperatures = np.array([[float(member["temperatures"][str(fold)]) for fold in folds] for member in members])
    weights = np.array([member["class_weights"] or [member["weight"]] * logits.shape[2] for member in members])
    mixture = Mixture(
        combiner=blend["combiner"],
        weights=weights.mean(axis=1),
        shift_weights=(),
        temperature=float(blend["temperature"]),
        class_weights=weights,
        bias=np.array(blend["bias"]) if blend["bias"] else None,
    )
    return combine(evidence(logits, temperatures, mixture.combiner), mixture)
