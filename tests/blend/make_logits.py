"""Synthetic logits whose right temperature and Bayes-optimal score are known.

A member sees x = skill * onehot(label) + standard normal noise. Of such an x the class posterior is
softmax(skill * x), so the logits `temperature * skill * x` are calibrated exactly by `temperature`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from esc_ensemble.logits import FoldLogits, LogitsPart, empty_part, logits_path, write_logits

SHIFTS = (-0.1, 0.0, 0.1)


def make_labels(n_clips: int, n_classes: int, seed: int = 0) -> np.ndarray:
    labels = np.arange(n_clips) % n_classes
    return np.random.default_rng(seed).permutation(labels).astype(np.int64)


def make_member(
    labels: np.ndarray,
    n_classes: int,
    *,
    skill: float,
    seed: int,
    temperature: float = 1.0,
    n_shifts: int = 1,
    shift_noise: float = 0.0,
) -> np.ndarray:
    """Gives (S, N, C) float32; each shift adds its own noise."""
    rng = np.random.default_rng(seed)
    seen = skill * np.eye(n_classes)[labels] + rng.standard_normal((len(labels), n_classes))
    shifted = seen + shift_noise * rng.standard_normal((n_shifts, *seen.shape))
    return np.asarray(temperature * max(skill, 0.3) * shifted, dtype=np.float32)


def write_run(
    folder: Path,
    logits: np.ndarray,
    labels: np.ndarray,
    fold_of_clip: np.ndarray,
    *,
    shifts: Sequence[float] = (0.0,),
    folds: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    fingerprint: str = "data1",
    config_hash: str = "conf1",
    clip_ids: Sequence[str] | None = None,
    sources: np.ndarray | None = None,
    selection: dict[int, tuple[np.ndarray, np.ndarray]] | None = None,
) -> Path:
    """Writes a run; `selection` maps a fold to logits (S, n, C) and labels (n,) of its selection split."""
    n_shifts, n_clips, n_classes = logits.shape
    ids = np.array(clip_ids if clip_ids is not None else [f"clip-{n:05d}.wav" for n in range(n_clips)])
    for fold in np.unique(fold_of_clip) if folds is None else folds:
        mine = fold_of_clip == fold
        split = empty_part(n_shifts, n_classes)
        if selection is not None:
            values, split_labels = selection[int(fold)]
            split_ids = np.array([f"sel-{fold}-{n}" for n in range(len(split_labels))])
            split = LogitsPart(clip_ids=split_ids, labels=split_labels, logits=values)
        write_logits(
            logits_path(folder, int(fold)),
            FoldLogits(
                test=LogitsPart(
                    clip_ids=ids[mine],
                    labels=labels[mine],
                    logits=logits[:, mine],
                    sources=None if sources is None else sources[mine],
                ),
                selection=split,
                shifts=np.array(shifts, dtype=np.float32),
                class_names=tuple(class_names or [f"class {n}" for n in range(n_classes)]),
                fold=int(fold),
                run=folder.name,
                config_hash=config_hash,
                dataset_fingerprint=fingerprint,
            ),
        )
    return folder
