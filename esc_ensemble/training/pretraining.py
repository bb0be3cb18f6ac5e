"""Training a network on other data than it is to be judged by, for `--init` or as a backbone."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from esc_ensemble.config import NEEDS_SELECTION, PretrainWav2Vec2Config, TrainerConfig
from esc_ensemble.cores import free_cores
from esc_ensemble.data.cache import WaveformCache, build_cache
from esc_ensemble.data.catalog import Catalog, thin_out
from esc_ensemble.data.sources import LeftOut, heard_in, leave_out_shared, refuse_shared, write_sources
from esc_ensemble.data.splits import split_all
from esc_ensemble.errors import ConfigError, ModelFileError, WorkError
from esc_ensemble.files import folder_lock, write_json
from esc_ensemble.manifest import PRETRAINING, open_run
from esc_ensemble.models.base import digest_weights
from esc_ensemble.models.checkpoint import check_checkpoint, save_checkpoint
from esc_ensemble.models.masked import (
    MaskedWav2Vec2,
    build_masked_model,
    describe_masked,
    draw_hidden,
    draw_negatives,
    least_frames,
    save_backbone,
)
from esc_ensemble.models.weights import check_weights
from esc_ensemble.predict import to_waveform
from esc_ensemble.progress import say
from esc_ensemble.settings import check
from esc_ensemble.training.device import build_accelerator
from esc_ensemble.training.loop import fit
from esc_ensemble.training.masked import MaskedStep
from esc_ensemble.training.step import TrainingData
from esc_ensemble.training.trainer import (
    digest_beginning,
    find_beginning,
    heard_by,
    open_trainer,
    tell_differences,
    train_on,
)

N_JUDGED = 32
"""Clips by which the use of codewords is judged."""
COLLAPSED = 0.05
"""Part of the codewords below which there is nothing left to tell frames by."""


@dataclass(frozen=True, kw_only=True)
class PretrainingOptions:
    """What pretraining is told beside its settings and its data."""

    targets: tuple[Catalog, ...] = ()
    """Data whose recordings must not be heard."""
    max_clips: int = 0
    """Take at most this many clips of what is left; 0 takes all."""
    cache_dir: Path | None = None
    """Where decoded waveforms lie; the user's cache folder where None."""
    n_workers: int = 0
    """Processes that decode; 0 takes the free cores."""
    skip_bad: bool = False
    """Leave out clips that cannot be decoded."""


def pretrain_run(run_dir: Path, config: TrainerConfig, catalog: Catalog, options: PretrainingOptions) -> dict[str, Any]:
    """Trains a trainer's network on all labelled clips of a data set; `--init` of that trainer begins with it.

    Args:
        run_dir: the run's folder.
        config: the trainer's settings.
        catalog: the data set; its folds have no part in this.
        options: the targets, and how to decode.

    Returns:
        The content of `metrics.json`; nothing in all but the main process of several.

    Raises:
        ConfigError: the settings do not go together, or the folder holds another run.
        ModelFileError: weights to begin with cannot be read.
        DataError: clips cannot be decoded, all of them are the target's too, or what came before heard the target's.
    """
    check(config, "The settings")
    if config.data.selection_fold >= 0:
        raise ConfigError("Pretraining knows no folds: leave data.selection_fold out, and set data.selection_fraction.")
    if config.needs_selection and not config.data.selection_fraction:
        raise ConfigError(NEEDS_SELECTION)
    catalog, left_out = _what_may_be_heard(catalog, options)
    beginning = find_beginning(run_dir, config, catalog.class_names)
    if beginning.heard_at:
        for target in options.targets:
            refuse_shared(beginning.heard_at, beginning.heard, target)
    trainer = open_trainer(
        run_dir, config, catalog, beginning, config.train.threads or free_cores(), **_decoding(options)
    )
    split = split_all(trainer.catalog, config.data.selection_fraction, config.seed)

    def train() -> None:
        tell_differences(trainer)
        seed = int(np.random.default_rng([config.seed, 0]).integers(2**31))
        model = train_on(trainer, split, run_dir, seed=seed, title=run_dir.name)
        if trainer.accelerator.is_main_process:
            if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
                raise WorkError("The model diverged: train anew, under another name, with a lower train.learning_rate.")
            save_checkpoint(run_dir, model, trainer.spec, fold=None, run=run_dir.name)

    run = _Run(run_dir, config, trainer.catalog, left_out, beginning.heard, digest_beginning(trainer))
    return _carry_out(run, trainer.accelerator, train, lambda: check_checkpoint(run_dir))


def pretrain_wav2vec2_run(
    run_dir: Path, config: PretrainWav2Vec2Config, catalog: Catalog, options: PretrainingOptions
) -> dict[str, Any]:
    """Trains a wav2vec2 without labels; the run's folder is then a backbone for `--model.source` of train-b.

    Args:
        run_dir: the run's folder.
        config: all settings.
        catalog: the recordings.
        options: the targets, and how to decode.

    Returns:
        The content of `metrics.json`; nothing in all but the main process of several.

    Raises:
        ConfigError: the settings do not go together, or the folder holds another run.
        ModelFileError: weights to begin with cannot be read.
        DataError: clips cannot be decoded, or all of them are the target's too.
    """
    check(config, "The settings")
    backbone = describe_masked(config.model, config.masking, config.data.sample_rate, config.normalize)
    least, purpose = backbone.least_samples(least_frames(config.masking)), f"masking.span {config.masking.span}"
    if conflict := config.data.length_conflict(least, purpose):
        raise ConfigError(f"The settings cannot be used: {conflict}.")
    heard = heard_by(config.model.source)
    for target in options.targets:
        refuse_shared(Path(config.model.source), heard, target)
    catalog, left_out = _what_may_be_heard(catalog, options)
    cache, catalog = build_cache(catalog, config.data, **_decoding(options))
    accelerator = build_accelerator(config.train)
    torch.manual_seed(config.seed)
    model = build_masked_model(config.model, backbone)
    n_window = round(config.data.window_seconds * config.data.sample_rate)

    def train() -> None:
        data = TrainingData(
            read_batch=cache.batch,
            labels=np.zeros(len(catalog.clips), dtype=np.int64),
            train=np.arange(len(catalog.clips)),
            selection=np.zeros(0, dtype=np.int64),
            n_classes=1,
            sample_rate=config.data.sample_rate,
        )
        step = MaskedStep(model, config.augment, config.masking, n_window=n_window)
        fit(step, data, config.train, accelerator=accelerator, folder=run_dir, seed=config.seed, title=run_dir.name)
        if accelerator.is_main_process:
            save_backbone(run_dir, model)

    run = _Run(run_dir, config, catalog, left_out, heard, digest_weights(model) if config.model.source else "")
    return _carry_out(
        run,
        accelerator,
        train,
        lambda: check_weights(run_dir),
        lambda: {"codewords_in_use": _codewords_in_use(model, cache, config)},
    )


@dataclass(frozen=True)
class _Run:
    """What is written down of a run."""

    run_dir: Path
    config: TrainerConfig | PretrainWav2Vec2Config
    catalog: Catalog
    left_out: LeftOut
    heard: frozenset[str]
    """Sources that the weights have heard before."""
    weights: str
    """Tells the weights that it begins with from others."""


def _what_may_be_heard(catalog: Catalog, options: PretrainingOptions) -> tuple[Catalog, LeftOut]:
    left_out = LeftOut((), ())
    if options.targets:
        catalog, left_out = leave_out_shared(catalog, options.targets)
    else:
        say("No --target is given: data that share a source with these will refuse this run.")
    return thin_out(catalog, options.max_clips) if options.max_clips else catalog, left_out


def _decoding(options: PretrainingOptions) -> dict[str, Any]:
    return {"cache_dir": options.cache_dir, "n_workers": options.n_workers, "skip_bad": options.skip_bad}


def _carry_out(
    run: _Run,
    accelerator: Accelerator,
    train: Callable[[], None],
    check_done: Callable[[], None],
    judge: Callable[[], dict[str, Any]] = dict,
) -> dict[str, Any]:
    """Opens the run's folder, trains unless that was done before, and writes `metrics.json` last of all."""
    folder = run.run_dir
    if not accelerator.is_main_process:
        if _finished(folder, check_done) is None:
            train()
        return {}
    with folder_lock(folder):
        manifest = open_run(
            folder,
            run.config,
            run.catalog,
            weights=run.weights,
            kind=PRETRAINING,
            left_out={"sources": list(run.left_out.sources), "clips": list(run.left_out.clip_ids)},
            device=str(accelerator.device),
            precision=accelerator.mixed_precision.replace("no", "fp32"),
            threads=torch.get_num_threads(),
            processes=accelerator.num_processes,
        )
        torch.set_num_threads(manifest.get("threads", torch.get_num_threads()))
        write_sources(folder, heard_in(run.catalog) | run.heard)
        metrics = _finished(folder, check_done)
        if metrics is not None:
            say(f"{folder.name}: done already")
            return metrics
        train()
        metrics = {
            "clips": len(run.catalog.clips),
            "sources": len(set(run.catalog.sources.tolist())),
            "left_out_sources": len(run.left_out.sources),
            "left_out_clips": len(run.left_out.clip_ids),
            **_last_row(folder / "history.csv"),
            **judge(),
        }
        write_json(folder / "metrics.json", metrics)
        (folder / "state.pt").unlink(missing_ok=True)
        for half_written in folder.glob(".*.part.*"):
            half_written.unlink()
        return metrics


def _finished(folder: Path, check_done: Callable[[], None]) -> dict[str, Any] | None:
    """The metrics of a run that is whole, None of any other."""
    try:
        check_done()
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (ModelFileError, OSError, ValueError):
        return None
    return metrics if isinstance(metrics, dict) else None


def _last_row(path: Path) -> dict[str, Any]:
    with path.open(newline="", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[-1]
    kept = ("train_loss", "train_top1", "selection_loss", "selection_top1")
    return {"epochs": int(row["epoch"]), **{name: float(row[name]) for name in kept if row.get(name)}}


@torch.inference_mode()
def _codewords_in_use(model: MaskedWav2Vec2, cache: WaveformCache, config: PretrainWav2Vec2Config) -> float:
    """Which part of the codewords is used, by their perplexity over some clips; 1 where all are, and alike."""
    some = np.unique(np.linspace(0, len(cache.waveforms) - 1, N_JUDGED).round().astype(int))
    waveform = to_waveform(cache.batch(some), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        hidden = draw_hidden(len(waveform), model.n_frames(waveform.shape[1]), config.masking)
        used = 1.0 - float(model(waveform, hidden, draw_negatives(hidden, config.masking)).diversity)
    if used < COLLAPSED:
        say(
            f"Warning: {used:.1%} of the codewords are in use, so frames can hardly be told apart. Pretrain longer, on "
            "more recordings, or with a larger masking.diversity or a smaller train.learning_rate."
        )
    return used
