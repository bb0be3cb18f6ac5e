"""Blending from logits files: 8 members, 2000 clips, 50 classes, 5 folds, 300 trials.

The parts are timed too: one fit by each method, one member's temperature, the cross-fit. The whole reads the files,
fits, cross-fits, scores with bootstrap intervals and writes the blend.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import get_args

import numpy as np
import timing

from esc_ensemble.blend.calibrate import fit_temperature
from esc_ensemble.blend.crossfit import cross_fit, cross_fit_members, oof_logits
from esc_ensemble.blend.ensemble import blend_runs
from esc_ensemble.blend.fit import fit_mixture
from esc_ensemble.blend.members import align_members
from esc_ensemble.blend.objective import Evidence
from esc_ensemble.config import BlendConfig
from esc_ensemble.config.blend import Method
from esc_ensemble.logits import FoldLogits, LogitsPart, empty_part, logits_path, read_run, write_logits

CLIPS_PER_SOURCE = 4


def main() -> None:
    options = timing.parser(__doc__, repeats=3, data=False)
    for name, value in (("members", 8), ("clips", 2000), ("classes", 50), ("folds", 5), ("trials", 300), ("shifts", 5)):
        options.add_argument(f"--{name}", type=int, default=value)
    arguments = options.parse_args()
    if arguments.threads and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    config = BlendConfig(trials=arguments.trials, tta=True)
    with tempfile.TemporaryDirectory() as scratch:
        runs = write_runs(Path(scratch) / "runs", arguments)
        oof = oof_logits(align_members([read_run(run) for run in runs]), config)
        ones = np.ones((oof.n_members, len(oof.labels)))
        outs = (Path(scratch) / "blends" / str(number) for number in count())
        times = timing.take_turns(
            {
                "read and align": timing.timed(lambda: align_members([read_run(run) for run in runs])),
                "one temperature": timing.timed(lambda: fit_temperature(oof.means[0], oof.labels)),
                **{
                    f"one fit by {method}": timing.timed(_fit(oof.logits, ones, oof.labels, config, method))
                    for method in get_args(Method)
                },
                "cross-fit": timing.timed(lambda: cross_fit(oof, config)),
                "members cross-fitted": timing.timed(lambda: cross_fit_members(oof)),
                "whole": timing.timed(lambda: blend_runs(runs, config, next(outs))),
            },
            arguments.repeats,
        )
    figures = {f"{name}, s": found.median for name, found in times.items()}
    figures["one fit by optuna / 3 s (wanted <= 1)"] = figures["one fit by optuna, s"] / 3.0
    timing.print_result("blend_speed", figures, arguments)


def _fit(
    logits: Sequence[np.ndarray], ones: np.ndarray, labels: np.ndarray, config: BlendConfig, method: str
) -> Callable[[], object]:
    own = config.model_copy(update={"method": method})
    return lambda: fit_mixture(Evidence(logits, ones, labels), own)


def write_runs(folder: Path, arguments: argparse.Namespace) -> list[Path]:
    """Writes members that hear the same clips with different skill: noisy one-hot vectors as logits."""
    rng = np.random.default_rng(0)
    n_clips, n_classes = arguments.clips, arguments.classes
    labels = rng.permutation(np.arange(n_clips) % n_classes)
    fold_of_clip = np.arange(n_clips) // CLIPS_PER_SOURCE % arguments.folds + 1
    runs = []
    for number in range(arguments.members):
        skill = rng.uniform(2.0, 4.0)
        seen = skill * np.eye(n_classes)[labels] + rng.standard_normal((n_clips, n_classes))
        logits = skill * (seen + 0.3 * rng.standard_normal((arguments.shifts, n_clips, n_classes)))
        runs.append(folder / f"member-{number}")
        for fold in range(1, arguments.folds + 1):
            clips = np.flatnonzero(fold_of_clip == fold)
            _write_fold(runs[-1], fold, clips, labels, logits.astype(np.float32))
    return runs


def _write_fold(run: Path, fold: int, clips: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> None:
    n_shifts, _, n_classes = logits.shape
    test = LogitsPart(
        clip_ids=np.array([f"clip-{clip:05d}.wav" for clip in clips]),
        labels=labels[clips].astype(np.int64),
        logits=logits[:, clips],
        sources=np.array([f"source-{clip // CLIPS_PER_SOURCE}" for clip in clips]),
    )
    write_logits(
        logits_path(run, fold),
        FoldLogits(
            test=test,
            selection=empty_part(n_shifts, n_classes),
            shifts=(np.arange(n_shifts, dtype=np.float32) - n_shifts // 2) / 10,
            class_names=tuple(f"class {number}" for number in range(n_classes)),
            fold=fold,
            run=run.name,
            config_hash=run.name,
            dataset_fingerprint="synthetic",
        ),
    )


if __name__ == "__main__":
    main()
