"""Folds into a run's folder: finished folds are skipped, broken ones go on where they stopped."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esc_ensemble.config import NEEDS_SELECTION, TrainerConfig
from esc_ensemble.cores import free_cores
from esc_ensemble.data.audits import say_shared
from esc_ensemble.data.catalog import Catalog
from esc_ensemble.data.sources import refuse_shared
from esc_ensemble.data.splits import FoldSplit, describe_protocol, folds_to_test, shared_facts, split_fold
from esc_ensemble.errors import ConfigError, ModelFileError, WorkError
from esc_ensemble.files import folder_lock
from esc_ensemble.fold_scores import read_finished, remove_half_written, write_metrics
from esc_ensemble.logits import FoldLogits, LogitsPart, write_logits
from esc_ensemble.manifest import open_run, run_hash
from esc_ensemble.models.base import AudioClassifier
from esc_ensemble.models.checkpoint import check_checkpoint, save_checkpoint
from esc_ensemble.predict import predict_logits
from esc_ensemble.processes import can_spawn, run_together
from esc_ensemble.progress import say, use_lines
from esc_ensemble.settings import check
from esc_ensemble.training.trainer import (
    Beginning,
    Trainer,
    digest_beginning,
    find_beginning,
    open_trainer,
    prepare_trunk,
    tell_differences,
    train_on,
)

EPOCHS_FIXED = "epochs fixed beforehand"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is told beside its settings and its data."""

    folds: tuple[int, ...] = ()
    """Folds to train; all where empty."""
    cache_dir: Path | None = None
    """Where decoded waveforms lie; the user's cache folder where None."""
    n_workers: int = 0
    """Processes that decode; 0 takes the free cores."""
    skip_bad: bool = False
    """Leave out clips that cannot be decoded."""
    parallel_folds: int = 0
    """Folds at once; 0 takes one for each thread on a CPU, and one on a GPU."""


def train_run(run_dir: Path, config: TrainerConfig, catalog: Catalog, options: RunOptions) -> dict[str, Any]:
    """Decodes the clips where that was not done before, then trains every fold (or those named) not done yet.

    Folds that train at once do so in processes of their own, which share the CPU's threads or the GPU. In the
    end `metrics.json` is written over all folds that are done.

    Args:
        run_dir: the run's folder.
        config: all settings.
        catalog: the clips.
        options: which folds, and how.

    Returns:
        The content of `metrics.json`; nothing in all but the main process of several.

    Raises:
        ConfigError: the settings do not go together, or the folder holds a run with other settings or data.
        ModelFileError: a backbone's source or the pretrained run cannot be read.
        DataError: clips cannot be decoded, a fold does not exist, a class would have no training clip, or the
            pretrained weights have heard sources of these data.
    """
    beginning = check_run(run_dir, config, catalog, options.folds)
    n_folds = len(folds_to_test(catalog, config.data, options.folds))
    threads = config.train.threads or free_cores()
    n_parallel = min(options.parallel_folds or _room(config, threads), n_folds)
    if not can_spawn():
        n_parallel = 1
    opened = partial(
        open_trainer, run_dir, config, catalog, beginning, cache_dir=options.cache_dir, skip_bad=options.skip_bad
    )
    trainer = opened(max(1, threads // n_parallel), n_workers=options.n_workers)
    accelerator = trainer.accelerator
    folds = folds_to_test(trainer.catalog, config.data, options.folds)
    splits = [_split(config, trainer.catalog, fold) for fold in folds]
    if not accelerator.is_main_process:
        for split in splits:
            _train_fold(trainer, split)
        return {}
    say_shared(trainer.catalog, config.data.shared_recordings)
    with folder_lock(run_dir):
        _open_run(trainer, splits)
        tell_differences(trainer)
        todo = [split for split in splits if not _finished(trainer, split.fold)]
        # As many threads as the run began with, whatever is left to do: sums depend on it in their last bit.
        each = torch.get_num_threads()
        n_parallel = min(n_parallel, len(todo), options.parallel_folds or max(1, threads // each))
        prepare_trunk(trainer, todo)
        if n_parallel > 1 and accelerator.num_processes == 1:
            say(f"{run_dir.name}: {n_parallel} folds at a time, {each} threads each")
            work = partial(_train_share, partial(opened, each, n_workers=1))
            run_together(work, [(todo[number::n_parallel],) for number in range(n_parallel)])
        else:
            for split in splits:
                _train_fold(trainer, split)
        return _write_metrics(trainer)


def check_run(run_dir: Path, config: TrainerConfig, catalog: Catalog, folds: tuple[int, ...] = ()) -> Beginning:
    """Refuses before any work what `train_run` could not do with these settings, and finds what it begins with.

    Raises:
        ConfigError: the settings do not go together, or with the backbone.
        ModelFileError: a backbone's source or the pretrained run cannot be read.
        DataError: a fold does not exist, or the pretrained weights have heard sources of these data.
    """
    check(config, "The settings")
    if config.needs_selection and not config.data.selects and catalog.selection_fold is None:
        raise ConfigError(NEEDS_SELECTION)
    for fold in folds_to_test(catalog, config.data, folds):
        _split(config, catalog, fold)
    beginning = find_beginning(run_dir, config, catalog.class_names)
    if beginning.heard_at:
        refuse_shared(beginning.heard_at, beginning.heard, catalog)
    return beginning


def _split(config: TrainerConfig, catalog: Catalog, fold: int) -> FoldSplit:
    return split_fold(catalog, fold, config.data, config.seed)


def _room(config: TrainerConfig, threads: int) -> int:
    """How many folds to train at once: on a CPU processes of one thread each lose nothing by waiting."""
    on_gpu = config.train.device != "cpu" and torch.cuda.is_available()
    return 1 if on_gpu or int(os.environ.get("WORLD_SIZE", "1")) > 1 else threads


def _train_share(opened: Callable[[], Trainer], splits: list[FoldSplit]) -> None:
    """Trains some folds in a process of its own; the run is open already."""
    use_lines()
    with redirect_stderr(StringIO()):  # what is to be said of the data was said
        trainer = opened()
    for split in splits:
        _train_fold(trainer, split)


def _open_run(trainer: Trainer, splits: list[FoldSplit]) -> None:
    """Starts the run's folder, or checks that it holds the same run and goes on as that began."""
    accelerator = trainer.accelerator
    manifest = open_run(
        trainer.run_dir,
        trainer.config,
        trainer.catalog,
        weights=digest_beginning(trainer),
        protocol=describe_protocol(trainer.catalog, trainer.config.data, EPOCHS_FIXED),
        **shared_facts(trainer.catalog, trainer.config.data, splits),
        device=str(accelerator.device),
        precision=accelerator.mixed_precision.replace("no", "fp32"),
        threads=torch.get_num_threads(),
        processes=accelerator.num_processes,
    )
    torch.set_num_threads(manifest.get("threads", torch.get_num_threads()))  # sums depend on it in their last bit


def _train_fold(trainer: Trainer, split: FoldSplit) -> None:
    config, accelerator = trainer.config, trainer.accelerator
    folder = trainer.run_dir / f"fold-{split.fold}"
    if _finished(trainer, split.fold):
        if accelerator.is_main_process:
            _tidy(folder)
            say(f"{trainer.run_dir.name} {trainer.catalog.fold_label(split.fold)}: done already")
        return
    seed = int(np.random.default_rng([config.seed, split.fold]).integers(2**31))
    title = f"{trainer.run_dir.name} {trainer.catalog.fold_label(split.fold)}"
    model = train_on(trainer, split, folder, seed=seed, title=title)
    if accelerator.is_main_process:
        fold_logits = _predict_fold(trainer, split, model)
        if not np.isfinite(fold_logits.test.logits).all():
            raise WorkError(
                f"The model of fold {split.fold} diverged: its logits are not finite. Train anew, under another name, "
                "with a lower train.learning_rate."
            )
        save_checkpoint(folder, model, trainer.spec, fold=split.fold, run=trainer.run_dir.name)
        write_logits(folder / "logits.npz", fold_logits)
        _tidy(folder)
    accelerator.wait_for_everyone()


def _tidy(folder: Path) -> None:
    """Removes from a finished fold what resuming needed, and the half-written files of a killed process."""
    (folder / "state.pt").unlink(missing_ok=True)
    remove_half_written(folder)


def _finished(trainer: Trainer, fold: int) -> FoldLogits | None:
    """The fold's logits, if they and its model are there, whole, and from this very run."""
    try:
        check_checkpoint(trainer.run_dir / f"fold-{fold}")
    except ModelFileError:
        return None
    return read_finished(trainer.run_dir, fold, run_hash(trainer.run_dir, trainer.config), trainer.catalog.fingerprint)


def _predict_fold(trainer: Trainer, split: FoldSplit, model: AudioClassifier) -> FoldLogits:
    config, catalog = trainer.config, trainer.catalog
    model.to(trainer.accelerator.device)

    def part(index: np.ndarray) -> LogitsPart:
        logits = predict_logits(
            model,
            trainer.cache.batch,
            index,
            config.shift_seconds,
            sample_rate=config.data.sample_rate,
            n_classes=len(catalog.class_names),
            device=trainer.accelerator.device,
            window_seconds=config.data.window_seconds,
            shift_mode=config.shift_mode,
            batch_size=model.clips_at_once,
            title=f"{trainer.run_dir.name} fold {split.fold}: logits",
            read_windows=trainer.cache.windows,
            n_samples=trainer.cache.n_samples,
        )
        return LogitsPart(catalog.clip_ids[index], catalog.labels[index], logits, catalog.sources[index])

    return FoldLogits(
        test=part(split.test),
        selection=part(split.selection),
        shifts=np.array(config.shift_seconds, dtype=np.float32),
        class_names=catalog.class_names,
        fold=split.fold,
        run=trainer.run_dir.name,
        config_hash=run_hash(trainer.run_dir, trainer.config),
        dataset_fingerprint=catalog.fingerprint,
        shift_mode=trainer.config.shift_mode,
        shared_recordings=trainer.config.data.shared_recordings if catalog.shared_recordings else "",
    )


def _write_metrics(trainer: Trainer) -> dict[str, Any]:
    found = [_finished(trainer, fold) for fold in trainer.catalog.fold_numbers]
    protocol = describe_protocol(trainer.catalog, trainer.config.data, EPOCHS_FIXED)
    return write_metrics(trainer.run_dir, [fold for fold in found if fold], protocol)
