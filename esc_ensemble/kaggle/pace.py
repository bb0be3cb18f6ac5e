"""How fast this machine trains, measured on noise before anything is planned."""

from __future__ import annotations

import csv
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from esc_ensemble.config import TrainerConfig
from esc_ensemble.cores import free_cores
from esc_ensemble.kaggle.budget import Pace, Recipe
from esc_ensemble.models.registry import ModelSpec, build_model
from esc_ensemble.processes import run_together
from esc_ensemble.progress import use_lines
from esc_ensemble.training.device import build_accelerator
from esc_ensemble.training.loop import train_model
from esc_ensemble.training.step import TrainingData

N_STEPS, N_EPOCHS, LONG_EPOCHS = 3, 2, 6
HISTORY = "history.csv"
HEARING = 0.4
"""Of the time that a clip takes in training is what it takes to be heard once."""


@dataclass(frozen=True)
class Company:
    """What several folds at once cost each of them."""

    n_parallel: int
    slowdown: float = 1.0
    """How many times longer a fold takes than alone."""
    start_seconds: float = 1.0
    """Until they train."""


def guess_company(n_parallel: int) -> Company:
    """Gives what is usual, where there is no time to measure."""
    return Company(n_parallel, 1.6, 5.0) if n_parallel > 1 else Company(1)


def measure_company(recipe: Recipe, n_classes: int, n_parallel: int, folder: Path) -> Company:
    """Trains a moment alone, then in as many processes as are to train at once."""
    if n_parallel == 1:
        return Company(1)
    threads = max(1, free_cores() // n_parallel)
    config = recipe.config()
    alone = clips_per_second(config, n_classes, threads, folder / "alone", LONG_EPOCHS)
    start = time.monotonic()
    folders = [folder / f"together-{number}" for number in range(n_parallel)]
    run_together(_work, [(config, n_classes, threads, each) for each in folders])
    seconds = time.monotonic() - start
    together = min(statistics.median(_speeds(each)[1:]) for each in folders)
    training = max(_seconds(each) for each in folders)
    return Company(n_parallel, max(1.0, alone / together), max(0.0, seconds - training))


def measure_pace(
    recipe: Recipe, company: Company, *, n_classes: int, n_test: int, folder: Path, device: str = "auto"
) -> Pace:
    """Trains a moment, alone.

    Args:
        recipe: how.
        company: what other folds beside it cost.
        n_classes: C.
        n_test: number of test clips.
        folder: for what the loop writes.
        device: where to train.
    """
    config = recipe.config(device=device)
    alone = clips_per_second(config, n_classes, max(1, free_cores() // company.n_parallel), folder)
    speed = alone / company.slowdown
    hear = HEARING * n_test * len(config.shift_seconds) / (speed * company.n_parallel)  # by all cores together
    return Pace(speed, company.n_parallel, company.start_seconds, hear)


def seen_pace(pace: Pace, run_dir: Path) -> Pace:
    """Gives the pace that the folds of a run really had, the slowest of them."""
    speed = min(statistics.median(_speeds(folder)) for folder in run_dir.glob("fold-*") if (folder / HISTORY).exists())
    return replace(pace, clips_per_second=speed, hear_seconds=pace.hear_seconds * pace.clips_per_second / speed)


def clips_per_second(
    config: TrainerConfig, n_classes: int, threads: int, folder: Path, n_epochs: int = N_EPOCHS
) -> float:
    """Gives how fast a network trains on noise, after an epoch that warms up.

    Args:
        config: the training's settings.
        n_classes: C.
        threads: CPU threads.
        folder: for what the loop writes; must not hold another training.
        n_epochs: how long, at least two epochs.
    """
    n_clips = N_STEPS * config.train.batch_size
    noise = np.random.default_rng(0).integers(-3000, 3000, size=(n_clips, config.data.n_samples), dtype=np.int16)
    model = build_model(ModelSpec.of(config, tuple(str(n) for n in range(n_classes))))
    data = TrainingData(
        read_batch=lambda index: noise[index],
        labels=np.arange(n_clips, dtype=np.int64) % n_classes,
        train=np.arange(n_clips),
        selection=np.empty(0, dtype=np.int64),
        n_classes=n_classes,
        sample_rate=config.data.sample_rate,
    )
    train = config.train.model_copy(update={"epochs": n_epochs})
    accelerator = build_accelerator(train, threads)
    folder.mkdir(parents=True, exist_ok=True)
    how = {"accelerator": accelerator, "folder": folder, "seed": 0, "title": "Measuring"}
    train_model(model, data, train, config.augment, config.mix, **how)
    return statistics.median(_speeds(folder)[1:])


def _work(config: TrainerConfig, n_classes: int, threads: int, folder: Path) -> None:
    """Stands at the top of the module so that a spawned process can import it."""
    use_lines()
    clips_per_second(config, n_classes, threads, folder, LONG_EPOCHS)


def _history(folder: Path) -> list[dict[str, str]]:
    with (folder / HISTORY).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _speeds(folder: Path) -> list[float]:
    return [float(row["clips_per_second"]) for row in _history(folder)]


def _seconds(folder: Path) -> float:
    return sum(float(row["seconds"]) for row in _history(folder))
