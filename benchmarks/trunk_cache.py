"""An epoch of model B with and without the frozen trunk's cache, at the real size of wav2vec2-base.

The weights are random, which costs the same time; dropout is that of the published checkpoint. Both train on the
same fixed views, from the same waveforms; filling the cache is timed apart. The state of an epoch is saved as always.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
from transformers import AutoConfig, AutoModel

from esc_ensemble.config import TrainBConfig
from esc_ensemble.data.cache import build_cache
from esc_ensemble.data.catalog import load_catalog
from esc_ensemble.models.registry import ModelSpec, build_pretrained
from esc_ensemble.settings import build
from esc_ensemble.training.device import build_accelerator
from esc_ensemble.training.loop import train_model
from esc_ensemble.training.step import TrainingData
from esc_ensemble.training.trunk import Trunk, build_trunk_cache


def main() -> None:
    options = timing.parser(__doc__, repeats=3)
    options.add_argument("--clips", type=int, default=64, help="training clips of an epoch")
    options.add_argument("--unfreeze", type=int, default=4, help="blocks that learn")
    options.add_argument("--frame-pool", type=int, default=1, help="frames averaged above the frozen blocks")
    options.add_argument("--family", choices=("wav2vec2", "wavlm"), default="wav2vec2")
    options.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    arguments = options.parse_args()
    with timing.data_folder(arguments) as data, tempfile.TemporaryDirectory() as scratch:
        AutoModel.from_config(AutoConfig.for_model(arguments.family, activation_dropout=0.0)).save_pretrained(
            f"{scratch}/backbone"
        )
        settings = {
            "frontend": {"views": 1},
            "train": {"epochs": 1, "threads": timing.n_threads(arguments), "device": arguments.device},
            "model": {
                "source": f"{scratch}/backbone",
                "unfreeze": arguments.unfreeze,
                "frame_pool": arguments.frame_pool,
            },
        }
        rounds, seconds_to_fill = make_rounds(build(TrainBConfig, settings, "it"), data, Path(scratch), arguments.clips)
        times = timing.take_turns(rounds, arguments.repeats)
    figures = {
        "clips": arguments.clips,
        "filling the cache, s a clip": seconds_to_fill / arguments.clips,
        **{f"{name}, s a clip": found.median / arguments.clips for name, found in times.items()},
        "without / with (wanted >= 3)": times["without"].median / times["with"].median,
    }
    timing.print_result("trunk_cache", figures, arguments)


def make_rounds(config: TrainBConfig, data: Path, scratch: Path, n_clips: int) -> tuple[dict[str, timing.Round], float]:
    """Gives an epoch with and one without the cache, and how long the cache took to fill."""
    catalog = load_catalog(data)
    cache, _ = build_cache(catalog, config.data, cache_dir=scratch)
    accelerator = build_accelerator(config.train)
    spec = ModelSpec.of(config, catalog.class_names)
    model = build_pretrained(spec)
    clips = np.linspace(0, len(catalog.clips) - 1, n_clips).round().astype(np.int64)
    trunk = Trunk(
        network=model.frontend.to(accelerator.device),
        read_batch=cache.batch,
        n_clips=len(catalog.clips),
        sample_rate=config.data.sample_rate,
        augment=config.augment,
        n_views=config.frontend.views,
        seed=config.seed,
        accelerator=accelerator,
    )
    filled: list[Any] = []
    seconds = timing.timed(lambda: filled.append(build_trunk_cache(trunk, cache.path, clips)))()

    def epoch(features: Any) -> timing.Round:
        training = TrainingData(
            read_batch=cache.batch,
            labels=catalog.labels,
            train=clips,
            selection=np.empty(0, dtype=np.int64),
            n_classes=len(catalog.class_names),
            sample_rate=config.data.sample_rate,
            read_features=features,
            n_views=config.frontend.views,
        )

        def one_round() -> None:
            torch.manual_seed(0)
            with tempfile.TemporaryDirectory() as folder:
                train_model(
                    model,
                    training,
                    config.train,
                    config.augment,
                    config.mix,
                    accelerator=accelerator,
                    folder=Path(folder),
                    seed=0,
                    title="an epoch",
                )

        return timing.timed(one_round)

    return {"without": epoch(trunk), "with": epoch(filled[0])}, seconds


if __name__ == "__main__":
    main()
