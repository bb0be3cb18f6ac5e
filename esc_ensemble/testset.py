"""A competition's unlabelled test clips through every fold model of a blend, to a submission.

Logits are kept beside the models (`esc_ensemble.blend.kept`), and what is there is not computed again: a killed start
goes on, another blend of the same runs needs no model, and members of other frameworks take part by bringing files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esc_ensemble.blend.apply import BlendPrediction, apply_blend
from esc_ensemble.blend.kept import NewClips, Place, absent_shifts, find_places, pick_logits, read_kept
from esc_ensemble.data.cache import WaveformCache, build_cache
from esc_ensemble.data.catalog import Catalog, load_unlabelled
from esc_ensemble.errors import ConfigError, DataError, LogitsError, ModelFileError, list_problems
from esc_ensemble.files import atomic_path, folder_lock
from esc_ensemble.fold_scores import remove_half_written
from esc_ensemble.logits import FoldLogits, LogitsPart, empty_part, write_logits
from esc_ensemble.manifest import recorded_hash
from esc_ensemble.models.checkpoint import check_checkpoint, load_checkpoint, read_spec
from esc_ensemble.predict import predict_logits
from esc_ensemble.progress import progress, say
from esc_ensemble.submission import Form, LabelKind, check_submission, write_submission
from esc_ensemble.training.device import keep_freed_memory

NAME = re.compile(r"\w[\w.-]*")
TAKEN_NAMES = ("logits", "oof")
"""Files of a fold and of a blend that must not be replaced."""
DEFAULT_NAME = "test"


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How test clips are predicted."""

    name: str = DEFAULT_NAME
    """Name of the test set, and so of the files with its logits and probabilities."""
    device: str = "auto"
    """auto, cpu or cuda."""
    batch_size: int = 0
    """Clips at a time; 0 takes as many as suit the model."""
    cache_dir: Path | None = None
    """Where decoded waveforms lie; the user's cache folder where None."""
    n_workers: int = 0
    """Processes that decode; 0 takes the free cores."""
    skip_bad: bool = False
    """Leave out clips that cannot be decoded, or that a member without models has no logits of."""


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
        """Gives header and rows of how many clips the blend and each member by itself put into each class."""
        counts = [self._counts(values) for values in self._all()]
        rows = [[name, *(str(count[label]) for count in counts)] for label, name in enumerate(self.class_names)]
        return ["clips by class", "blend", *self.prediction.members], rows

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
    _check_name(options.name)
    device = choose_device(options.device)
    catalog = load_unlabelled(audio)
    form = Form(tuple(blend["class_names"]), tuple(blend.get("class_numbers", ())), sample, labels)
    check_submission(catalog.clip_ids, form)
    clips = NewClips(catalog.clip_ids, _fingerprint(catalog))
    work = _Work(clips, catalog, form, options, device)
    places = find_places(blend, blend_dir, options.name)
    found = _logits_at([place for folds in places for place in folds], work)
    clip_ids, skipped = _in_all(found, clips)
    prediction = apply_blend(
        blend, [[pick_logits(found[place], place.member["shifts"], clip_ids) for place in folds] for folds in places]
    )
    file_name = "submission.csv" if options.name == DEFAULT_NAME else f"submission-{options.name}.csv"
    out = out or blend_dir / file_name
    arrays = out.parent / f"{options.name}.npz"
    kind = write_submission(out, clip_ids, prediction.probabilities, form)
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


def choose_device(name: str) -> torch.device:
    """Gives the device of that name; `auto` takes a GPU where there is one.

    Raises:
        ConfigError: a GPU is asked for that is not there.
    """
    if name != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    if name == "cuda":
        raise ConfigError("--device is cuda, but torch sees no GPU here. Leave it out.")
    keep_freed_memory()
    return torch.device("cpu")


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or name in TAKEN_NAMES:
        raise ConfigError(
            f'--name "{name}" cannot be used: it becomes the name of files. Write letters, digits, ".", "-" and "_", '
            f"but not {' or '.join(TAKEN_NAMES)}."
        )


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


@dataclass(frozen=True)
class _Work:
    """What is the same for all models."""

    clips: NewClips
    catalog: Catalog
    form: Form
    options: PredictOptions
    device: torch.device


@dataclass(frozen=True)
class _Task:
    """Logits to compute."""

    place: Place
    kept: FoldLogits | None
    """Those at other shifts."""
    shifts: tuple[float, ...]


def _logits_at(places: Sequence[Place], work: _Work) -> dict[Place, FoldLogits]:
    """Gives the logits of every place, computing those that are not there."""
    found: dict[Place, FoldLogits] = {}
    tasks, problems = [], []
    for place in places:
        kept = read_kept(place, work.clips, allow_fewer=work.options.skip_bad)
        if isinstance(kept, FoldLogits):
            absent = absent_shifts(place, kept)
            if not absent:
                found[place] = kept
            elif place.has_model:
                tasks.append(_Task(place, kept, absent))
            else:
                problems.append(f"{place.path} lacks the shifts {', '.join(map(str, absent))} of the blend.")
        elif place.has_model:
            if place.path.exists():
                say(f"{kept}\nIt is computed anew.")
            tasks.append(_Task(place, None, tuple(place.member["shifts"])))
        else:
            problems.append(kept)
    if problems:
        headline = (
            "Members without models (fold-*/model.json) take part with logits of the test clips that are brought, a "
            "file a fold:"
        )
        advice = "docs/foreign-members.md says how to write them. Or blend without these members."
        raise LogitsError(list_problems(headline, problems, advice))
    if tasks and found:
        say(f"Logits of {len(found)} of the {len(places)} models are there already.")
    return found | _compute(tasks, work)


def _compute(tasks: Sequence[_Task], work: _Work) -> dict[Place, FoldLogits]:
    """Computes and keeps logits, model by model; what can be refused is refused before the first."""
    for task in tasks:
        _check_model(task.place)
    heard = _open_waveforms(tasks, work)
    computed = {}
    with ExitStack() as locks:
        for run_dir in dict.fromkeys(task.place.run_dir for task in tasks):
            locks.enter_context(folder_lock(run_dir))
        for number, (task, (cache, catalog)) in enumerate(zip(tasks, heard, strict=True), start=1):
            title = f"{task.place.member['run']} fold {task.place.fold} (model {number} of {len(tasks)})"
            logits = _hear(task, cache, catalog.clip_ids, work, title)
            remove_half_written(task.place.folder)
            write_logits(task.place.path, logits)
            computed[task.place] = logits
    return computed


def _check_model(place: Place) -> None:
    """Refuses a model that cannot be loaded, or whose run is another than the one that was blended."""
    check_checkpoint(place.folder)
    recorded = recorded_hash(place.run_dir)
    if recorded and recorded != place.member["config_hash"]:
        raise ModelFileError(
            f"{place.run_dir} was trained with other settings after it was blended ({recorded} there, "
            f"{place.member['config_hash']} in the blend). Blend again."
        )
    if read_spec(place.folder).class_names != place.class_names:
        raise ModelFileError(f"{place.folder / 'model.json'} has other classes than the blend. Blend again.")


def _open_waveforms(tasks: Sequence[_Task], work: _Work) -> list[tuple[WaveformCache, Catalog]]:
    """Gives, for each model, the clips as it hears them; one cache serves all that hear them alike."""
    opened: dict[str, tuple[WaveformCache, Catalog]] = {}
    found = []
    for task in tasks:
        data = read_spec(task.place.folder).data
        recipe = data.model_dump_json(include={"sample_rate", "clip_seconds", "fit", "trim_db"})
        if recipe not in opened:
            options = work.options
            opened[recipe] = build_cache(
                work.catalog,
                data,
                cache_dir=options.cache_dir,
                n_workers=options.n_workers,
                skip_bad=options.skip_bad,
            )
            check_submission(opened[recipe][1].clip_ids, work.form)  # some may have been left out
        found.append(opened[recipe])
    return found


def _hear(task: _Task, cache: WaveformCache, clip_ids: np.ndarray, work: _Work, title: str) -> FoldLogits:
    """Computes one model's logits at the shifts that are not kept, and puts them to those that are."""
    place, kept, shifts = task.place, task.kept, task.shifts
    if kept is not None and not np.isin(clip_ids, kept.test.clip_ids).all():
        kept, shifts = None, tuple(place.member["shifts"])
    if kept is None and 0.0 not in shifts:
        shifts = (0.0, *shifts)  # every such file has the clip as it is
    model, spec = load_checkpoint(place.folder)
    logits = predict_logits(
        model.to(work.device),
        cache.batch,
        np.arange(len(clip_ids)),
        shifts,
        sample_rate=spec.data.sample_rate,
        n_classes=len(place.class_names),
        device=work.device,
        window_seconds=spec.data.window_seconds,
        shift_mode=place.member["shift_mode"],
        batch_size=work.options.batch_size or model.clips_at_once,
        title=title,
    )
    seconds = np.array(shifts, dtype=np.float32)
    if kept is not None:
        logits = np.concatenate([pick_logits(kept, kept.shifts.tolist(), clip_ids), logits])
        seconds = np.concatenate([kept.shifts, seconds])
    order = np.argsort(seconds)
    return FoldLogits(
        test=LogitsPart(clip_ids, np.full(len(clip_ids), -1, dtype=np.int64), logits[order]),
        selection=empty_part(len(order), len(place.class_names)),
        shifts=seconds[order],
        class_names=place.class_names,
        fold=place.fold,
        run=place.member["run"],
        config_hash=place.member["config_hash"],
        dataset_fingerprint=work.clips.fingerprint,
        shift_mode=place.member["shift_mode"],
    )
