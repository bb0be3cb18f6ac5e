"""A competition's unlabelled test clips through every fold model of a blend, to a submission.

Logits are kept beside the models (`esc_ensemble.blend.kept`), and what is there is not computed again: a killed start
goes on, another blend of the same runs needs no model, and members of other frameworks take part by bringing files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.blend.apply import BlendPrediction, apply_blend
from esc_ensemble.blend.kept import NewClips, Place, find_places, pick_logits
from esc_ensemble.data.catalog import Catalog, load_unlabelled
from esc_ensemble.errors import DataError, list_problems
from esc_ensemble.files import atomic_path
from esc_ensemble.logits import FoldLogits
from esc_ensemble.progress import progress, say
from esc_ensemble.submission import Form, LabelKind, check_submission, write_submission
from esc_ensemble.testset.logits import Work, logits_at
from esc_ensemble.testset.options import DEFAULT_NAME, PredictOptions, check_name, choose_device


@dataclass(frozen=True, eq=False)
class Predicted:
    """What came out, and where it lies."""

    submission: Path
    arrays: Path
    """`.npz` of clip_ids (N,), class_names (C,), probabilities (N, C), members (M,), member_probabilities (M, N, C)."""
    labels: LabelKind
    """What stands beside the ids in the submission."""
    clip_ids: np.ndarray
    """(N,) str."""
    skipped: tuple[str, ...]
    """Ids of the clips without a prediction."""
    class_names: tuple[str, ...]
    prediction: BlendPrediction

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Gives header and rows of how many clips the blend and each member by itself put into each class.

        A run alone, or a blend of one, is one column.
        """
        members = self.prediction.members
        columns = ["blend", *members] if len(members) > 1 else list(members)
        counts = [self._counts(values) for values in self._all()[-len(columns) :]]
        rows = [[name, *(str(count[label]) for count in counts)] for label, name in enumerate(self.class_names)]
        return ["clips by class", *columns], rows

    def to_json(self) -> dict[str, Any]:
        """Gives the outcome as plain values."""
        return {
            "submission": str(self.submission),
            "probabilities": str(self.arrays),
            "labels": self.labels,
            "n_clips": len(self.clip_ids),
            "skipped": list(self.skipped),
            "members": list(self.prediction.members),
            "class_counts": dict(zip(self.class_names, self._counts(self._all()[0]).tolist(), strict=True)),
        }

    def _all(self) -> list[np.ndarray]:
        return [self.prediction.probabilities, *self.prediction.member_probabilities]

    def _counts(self, probabilities: np.ndarray) -> np.ndarray:
        return np.bincount(probabilities.argmax(axis=1), minlength=len(self.class_names))  # (N, C) -> (C,)


def predict_test(
    blend: dict[str, Any],
    blend_dir: Path,
    audio: Sequence[Path],
    *,
    sample: Path | None = None,
    labels: LabelKind | None = None,
    out: Path | None = None,
    options: PredictOptions | None = None,
) -> Predicted:
    """Predicts unlabelled clips by a blend and writes the submission, and beside it all probabilities as `<name>.npz`.

    Each member hears a clip as it heard those it was trained on, at the shifts that count in the blend.

    Args:
        blend: from `esc_ensemble.export.source.read_source`.
        blend_dir: the blend's or run's folder, which the members' paths are relative to.
        audio: audio files, and folders that are searched for them.
        sample: the competition's sample_submission.csv.
        labels: what stands beside the ids, where the sample is not to decide.
        out: the submission; in `blend_dir` where None: `submission.csv`, or of another set than the one that is
            called "test" `submission-<name>.csv`.
        options: how.

    Raises:
        DataError: clips or sample cannot be used, or the sample asks for clips that are not there.
        ConfigError: the name or the device cannot be had.
        ModelFileError: a model is damaged, or its run is not the one that was blended.
        LogitsError: a member without models has no logits of these clips.
        WorkError: another process writes to a run, or the disk is full.
    """
    options = options or PredictOptions()
    check_name(options.name)
    device = choose_device(options.device)
    catalog = load_unlabelled(audio)
    form = Form(tuple(blend["class_names"]), tuple(blend.get("class_numbers", ())), sample, labels)
    check_submission(catalog.clip_ids, form)
    clips = NewClips(catalog.clip_ids, _fingerprint(catalog))
    work = Work(clips, catalog, options, device)
    places = find_places(blend, blend_dir, options.name)
    found = logits_at([place for folds in places for place in folds], work)
    clip_ids, skipped = _in_all(found, clips)
    prediction = apply_blend(
        blend, [[pick_logits(found[place], place.member["shifts"], clip_ids) for place in folds] for folds in places]
    )
    file_name = "submission.csv" if options.name == DEFAULT_NAME else f"submission-{options.name}.csv"
    out = out or blend_dir / file_name
    arrays = out.parent / f"{options.name}.npz"
    kind = write_submission(out, clip_ids, prediction.probabilities, form, skipped)
    with atomic_path(arrays) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(
            handle,
            allow_pickle=False,
            clip_ids=clip_ids,
            class_names=np.array(form.class_names),
            probabilities=prediction.probabilities,
            members=np.array(prediction.members),
            member_probabilities=prediction.member_probabilities,
        )
    return Predicted(out, arrays, kind, clip_ids, skipped, form.class_names, prediction)


def _fingerprint(catalog: Catalog) -> str:
    """12 hex digits that follow from the clips' ids and bytes alone.

    Unlike a data set's fingerprint it reads the files: clips of one length have one size, whatever is in them.
    """
    lines = []
    with progress("Reading", len(catalog.clips), in_passing=True) as advance:
        for clip in catalog.clips:
            try:
                with clip.path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:  # decoding names it, together with all others that cannot be used
                digest = ""
            lines.append(json.dumps([clip.clip_id, digest]))
            advance()
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]


def _in_all(found: dict[Place, FoldLogits], clips: NewClips) -> tuple[np.ndarray, tuple[str, ...]]:
    """Gives the ids (N,) of the clips that all models have logits of, in the clips' order, and those of the others."""
    known = np.all([np.isin(clips.clip_ids, kept.test.clip_ids) for kept in found.values()], axis=0)
    skipped = clips.clip_ids[~known].tolist()
    if not known.any():
        raise DataError("No clip is left to predict: each is bad, or a member has no logits of it.")
    if skipped:
        say(list_problems(f"{len(skipped)} of the {len(known)} clips have no prediction:", skipped))
    return clips.clip_ids[known], tuple(skipped)
