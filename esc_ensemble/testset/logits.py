"""Logits of test clips, model by model: those kept beside the models are taken, the others computed and kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from esc_ensemble.blend.kept import NewClips, Place, absent_shifts, pick_logits, read_kept
from esc_ensemble.data.cache import WaveformCache, build_cache
from esc_ensemble.data.catalog import Catalog
from esc_ensemble.errors import LogitsError, ModelFileError, list_problems
from esc_ensemble.files import folder_lock
from esc_ensemble.fold_scores import remove_half_written
from esc_ensemble.logits import FoldLogits, LogitsPart, empty_part, write_logits
from esc_ensemble.manifest import recorded_hash
from esc_ensemble.models.checkpoint import check_checkpoint, load_checkpoint, read_spec
from esc_ensemble.predict import predict_logits
from esc_ensemble.progress import say
from esc_ensemble.testset.options import PredictOptions


@dataclass(frozen=True)
class Work:
    """What is the same for all models."""

    clips: NewClips
    catalog: Catalog
    options: PredictOptions
    device: torch.device


@dataclass(frozen=True)
class _Task:
    """Logits to compute."""

    place: Place
    kept: FoldLogits | None
    """Those at other shifts."""
    shifts: tuple[float, ...]


def logits_at(places: Sequence[Place], work: Work) -> dict[Place, FoldLogits]:
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


def _compute(tasks: Sequence[_Task], work: Work) -> dict[Place, FoldLogits]:
    """Computes and keeps logits, model by model; what can be refused is refused before the first."""
    for task in tasks:
        _check_model(task.place)
    heard = _open_waveforms(tasks, work)
    computed = {}
    with ExitStack() as locks:
        for run_dir in dict.fromkeys(task.place.run_dir for task in tasks):
            locks.enter_context(folder_lock(run_dir, "then type the same command again: it goes on from there"))
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


def _open_waveforms(tasks: Sequence[_Task], work: Work) -> list[tuple[WaveformCache, Catalog]]:
    """Gives, for each model, the clips as it hears them; one cache serves all that hear them alike."""
    opened: dict[str, tuple[WaveformCache, Catalog]] = {}
    found = []
    for task in tasks:
        data = read_spec(task.place.folder).data
        recipe = data.model_dump_json(include={"sample_rate", "clip_seconds", "fit", "trim_db", "channel"})
        if recipe not in opened:
            options = work.options
            opened[recipe] = build_cache(
                work.catalog,
                data,
                cache_dir=options.cache_dir,
                n_workers=options.n_workers,
                skip_bad=options.skip_bad,
            )
        found.append(opened[recipe])
    return found


def _hear(task: _Task, cache: WaveformCache, clip_ids: np.ndarray, work: Work, title: str) -> FoldLogits:
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
        read_windows=cache.windows,
        n_samples=cache.n_samples,
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
