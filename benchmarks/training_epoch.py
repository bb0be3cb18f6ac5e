"""An epoch of training: the reference's way, ours with the same network, ours with the default settings.

- reference: each clip decoded, resampled and analysed with librosa in each epoch; Spec-CNN, plain float32.
- same network: the cache and training loop of this package with the reference's network and settings.
- default: `TrainAConfig()`.

Ours train as `esc-ens train-a` does: on a CPU one fold for each core at once, each with one thread, so an epoch
costs the time of these epochs divided by their number; beside it stands one fold alone with all threads. The
reference has all threads too. Each contestant has its own process; filling the cache is not counted
(`cache_build.py` does that). A part of the epoch is timed and scaled to the whole.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import reference
import timing
import torch

from esc_ensemble.config import DataConfig, TrainAConfig
from esc_ensemble.data.cache import build_cache
from esc_ensemble.data.catalog import load_catalog
from esc_ensemble.data.splits import split_fold
from esc_ensemble.models.registry import ModelSpec, build_model
from esc_ensemble.settings import build, merge, read_yaml
from esc_ensemble.training.device import build_accelerator
from esc_ensemble.training.loop import train_model
from esc_ensemble.training.step import TrainingData

FOLD = 1
REFERENCE_CONFIG = Path(__file__).parents[1] / "configs" / "train-a-reference.yaml"


def main() -> None:
    options = timing.parser(__doc__, repeats=3)
    options.add_argument("--clips", type=int, default=96, help="training clips timed; 0 takes all of the epoch")
    options.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    arguments = options.parse_args()
    threads = timing.n_threads(arguments)
    ours = {"threads": threads, "device": arguments.device}
    same = merge(read_yaml(REFERENCE_CONFIG), {"train": ours})
    configs = {
        "same network": build(TrainAConfig, same, str(REFERENCE_CONFIG)),
        "default": build(TrainAConfig, {"train": ours}, "the defaults"),
    }
    on_gpu = arguments.device != "cpu" and torch.cuda.is_available()
    n_folds = 1 if on_gpu else threads
    with timing.data_folder(arguments) as data, tempfile.TemporaryDirectory() as scratch:
        n_epoch, clips = choose_clips(data, arguments.clips)
        for config in configs.values():
            build_cache(load_catalog(data), config.data, cache_dir=Path(scratch))
        makers: dict[str, Any] = {
            "reference": (make_reference, (data, clips, threads, arguments.device)),
            **{
                f"{name}, alone": (make_ours, (data, Path(scratch), clips, config, threads))
                for name, config in configs.items()
            },
            **{
                f"{name} {number}": (make_ours, (data, Path(scratch), clips, config, max(1, threads // n_folds)))
                for name, config in configs.items()
                for number in range(n_folds)
            },
        }
        with timing.in_processes(makers) as rounds:
            for name in configs:
                rounds[name] = timing.together([rounds.pop(f"{name} {number}") for number in range(n_folds)])
            times = timing.take_turns(rounds, arguments.repeats)
    figures: dict[str, Any] = {"clips in the epoch": n_epoch, "clips timed, then scaled": len(clips)}
    for name, found in times.items():
        figures[f"{name}, s per epoch"] = found.median * n_epoch / len(clips)
    figures["folds at once"] = n_folds
    for name in configs:
        alone = times["reference"].median / times[f"{name}, alone"].median
        figures[f"{name}, ms per clip"] = times[name].median / len(clips) * 1e3
        figures[f"reference / {name} (wanted >= {4 if name == 'same network' else 15})"] = (
            times["reference"].median / times[name].median
        )
        figures[f"reference / {name}, one fold alone"] = alone
    timing.print_result("training_epoch", figures, arguments)


def choose_clips(data: Path, n_clips: int) -> tuple[int, np.ndarray]:
    """Gives the number of training clips, and the numbers of those that are timed, spread over all classes."""
    train = split_fold(load_catalog(data), FOLD, DataConfig(), 0).train
    if not n_clips or n_clips >= len(train):
        return len(train), train
    return len(train), np.sort(np.random.default_rng(0).permutation(train)[:n_clips])


def make_reference(data: Path, clips: np.ndarray, threads: int, device: str) -> timing.Round:
    """Prepares a training the reference's way."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    catalog = load_catalog(data)
    use_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    training = reference.Reference(
        paths=[catalog.clips[index].path for index in clips],
        labels=catalog.labels[clips],
        model=reference.spec_cnn(len(catalog.class_names)),
        device=torch.device("cuda" if use_gpu else "cpu"),
    )
    return timing.timed(training.run_epoch)


def make_ours(data: Path, cache_dir: Path, clips: np.ndarray, config: TrainAConfig, threads: int) -> timing.Round:
    """Prepares a training by this package; a round is the second epoch: as warm as the reference."""
    catalog = load_catalog(data)
    cache, _ = build_cache(catalog, config.data, cache_dir=cache_dir)
    accelerator = build_accelerator(config.train, threads)
    n_classes = len(catalog.class_names)
    nobody = np.empty(0, dtype=np.int64)
    clips_and_labels = TrainingData(cache.batch, catalog.labels, clips, nobody, n_classes, config.data.sample_rate)
    spec = ModelSpec(config.model, config.frontend, config.data, catalog.class_names)
    two_epochs = config.train.model_copy(update={"epochs": 2})

    def one_round() -> float:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            train_model(
                build_model(spec),
                clips_and_labels,
                two_epochs,
                config.augment,
                config.mix,
                accelerator=accelerator,
                folder=Path(folder),
                seed=0,
                title="an epoch",
            )
            with (Path(folder) / "history.csv").open(encoding="utf-8") as file:
                return float(list(csv.DictReader(file))[-1]["seconds"])

    return one_round


if __name__ == "__main__":
    main()
