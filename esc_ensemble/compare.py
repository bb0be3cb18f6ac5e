"""Controlled comparison: one base, single changes, the same folds and seeds; differences with intervals."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.config import TrainerConfig
from esc_ensemble.data.catalog import Catalog
from esc_ensemble.errors import ConfigError
from esc_ensemble.files import atomic_path, write_json
from esc_ensemble.logits import RunLogits, read_run
from esc_ensemble.metrics import bootstrap_interval, clip_losses, softmax
from esc_ensemble.settings import build, merge
from esc_ensemble.training.crossval import train_run

BASE = "base"
N_DRAWS = 2000


@dataclass(frozen=True)
class Variant:
    """One row of a comparison; differences are to the base, paired clip by clip.

    `top1` and `log_loss` are means over clips and seeds. The differences' intervals (95 %) resample sources: they
    hold for other clips, not for other seeds, whose spread is `seed_std`.
    """

    name: str
    runs: tuple[str, ...]
    top1: float
    log_loss: float
    seed_std: float
    top1_gain: float
    top1_interval: tuple[float, float]
    log_loss_gain: float
    log_loss_interval: tuple[float, float]

    def cells(self) -> list[str]:
        """Gives the row of a printed table."""
        base = self.name == BASE
        low, high = self.top1_interval
        best, worst = self.log_loss_interval
        return [
            self.name,
            f"{self.top1:.4f} ± {self.seed_std:.4f}",
            "" if base else f"{self.top1_gain:+.4f} ({low:+.4f} to {high:+.4f})",
            f"{self.log_loss:.4f}",
            "" if base else f"{self.log_loss_gain:+.4f} ({best:+.4f} to {worst:+.4f})",
        ]


HEADER = ["variant", "top-1 ± seeds", "difference (95 %)", "log loss", "difference (95 %)"]


def plan(
    kind: type[TrainerConfig], base: Mapping[str, Any], changes: Mapping[str, Any], seeds: Sequence[int]
) -> dict[str, list[TrainerConfig]]:
    """Gives the settings of every run: variant -> one for each seed. The base comes first.

    Args:
        kind: the trainer's settings.
        base: what the base has in the place of defaults.
        changes: name of a variant -> the settings in which it differs from the base.
        seeds: at least one.

    Raises:
        ConfigError: a change is not a group of settings, changes nothing, or has a name of no use for a folder.
    """
    variants: dict[str, list[TrainerConfig]] = {}
    folders: dict[str, str] = {}
    for name, change in ({BASE: {}} | dict(changes)).items():
        if not isinstance(change, dict) or (name != BASE and not change):
            raise ConfigError(f'The change "{name}" must be a group of settings, such as `mix: {{mixup: 0.0}}`.')
        if "seed" in change:
            raise ConfigError(f'The change "{name}" names a seed: seeds are given with --seeds, for all variants.')
        other = folders.setdefault(_slug(name), name)
        if other != name or not _slug(name):
            raise ConfigError(f'The changes "{other}" and "{name}" would have the same folder: rename one.')
        variants[name] = [
            build(kind, merge(merge(dict(base), change), {"seed": seed}), f'The change "{name}"') for seed in seeds
        ]
        if name != BASE and variants[name] == variants[BASE]:
            raise ConfigError(f'The change "{name}" changes nothing: the base has these values already.')
    return variants


def compare(
    folder: Path, variants: Mapping[str, Sequence[TrainerConfig]], catalog: Catalog, **how: Any
) -> list[Variant]:
    """Trains what is not trained yet and writes `compare.json`, `compare.csv` and `compare.png` into `folder`.

    The files are written anew after each variant, so that a long comparison can be read while it runs.

    Args:
        folder: each variant and seed has a run of its own in it, which resumes like any run.
        variants: what `plan` gave.
        catalog: the clips.
        how: what else `train_run` is told, such as the folds.

    Returns:
        The rows, base first.
    """
    rows: list[Variant] = []
    base: list[RunLogits] = []
    for name, configs in variants.items():
        runs = []
        for config in configs:
            run_dir = folder / f"{_slug(name)}-seed{config.seed}"
            train_run(run_dir, config, catalog, **how)
            runs.append(read_run(run_dir))
        base = base or runs
        rows.append(judge(name, runs, base))
        write_json(folder / "compare.json", [vars(row) for row in rows])
        _write_csv(folder / "compare.csv", rows)
        if len(rows) > 1:
            plot(folder / "compare.png", rows)
    return rows


def judge(name: str, runs: Sequence[RunLogits], base: Sequence[RunLogits]) -> Variant:
    """Gives the row of a variant from its runs and the base's, seed by seed, over the folds that both have.

    Scores are without time shifts and temperatures: what training alone gives.
    """
    hits, losses = _by_clip(runs, base)  # (seeds, N) each
    base_hits, base_losses = _by_clip(base, runs)
    sources = _common(base[0], runs[0])[2]
    gain = (hits - base_hits).mean(axis=0)  # (N,)
    loss_gain = (losses - base_losses).mean(axis=0)
    return Variant(
        name=name,
        runs=tuple(run.name for run in runs),
        top1=float(hits.mean()),
        log_loss=float(losses.mean()),
        seed_std=float(hits.mean(axis=1).std()),
        top1_gain=float(gain.mean()),
        top1_interval=bootstrap_interval(gain, sources, N_DRAWS),
        log_loss_gain=float(loss_gain.mean()),
        log_loss_interval=bootstrap_interval(loss_gain, sources, N_DRAWS),
    )


def plot(path: Path, rows: Sequence[Variant]) -> None:
    """Draws each variant's differences to the base with their intervals: top-1 on the left, log loss on the right."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second that only this needs

    changed = [row for row in rows if row.name != BASE]
    figure = Figure(figsize=(11, 1.4 + 0.4 * len(changed)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    panels: list[tuple[Any, str, list[float], list[tuple[float, float]]]] = [
        (left, "top-1, points", [100 * r.top1_gain for r in changed], [_points(r.top1_interval) for r in changed]),
        (right, "log loss", [r.log_loss_gain for r in changed], [r.log_loss_interval for r in changed]),
    ]
    places = np.arange(len(changed))
    for axes, title, gains, intervals in panels:
        reach = np.array([[gain - low, high - gain] for gain, (low, high) in zip(gains, intervals, strict=True)])
        axes.axvline(0.0, color="0.6", linewidth=1)
        axes.errorbar(gains, places, xerr=np.abs(reach.reshape(-1, 2)).T, fmt="o", capsize=3, color="#1f6feb")
        axes.set_xlabel(f"difference to the base: {title}")
        axes.grid(axis="x", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    left.set_yticks(places, [row.name for row in changed])
    left.set_ylim(len(changed) - 0.5, -0.5)
    base = rows[0]
    figure.suptitle(f"base: top-1 {base.top1:.4f}, log loss {base.log_loss:.4f}; bars are 95 % over sources")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _write_csv(path: Path, rows: Sequence[Variant]) -> None:
    numbers = ["top1", "seed_std", "top1_gain", "log_loss", "log_loss_gain"]
    header = ["name", *numbers, *(f"{name}_gain_{end}" for name in ("top1", "log_loss") for end in ("low", "high"))]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            values = [getattr(row, number) for number in numbers]
            writer.writerow([row.name, *values, *row.top1_interval, *row.log_loss_interval])


def _common(run: RunLogits, other: RunLogits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits without shift (N, C), labels and sources of the run's clips in the folds that both runs have."""
    chosen = np.isin(run.fold_of_clip, other.fold_numbers)
    centre = int(np.flatnonzero(run.shifts == 0.0)[0])
    return run.logits[centre, chosen], run.labels[chosen], run.sources[chosen]


def _by_clip(runs: Sequence[RunLogits], others: Sequence[RunLogits]) -> tuple[np.ndarray, np.ndarray]:
    """Hits and losses (seeds, N) of the clips that all runs have."""
    hits, losses = [], []
    for run, other in zip(runs, others, strict=True):
        logits, labels, _ = _common(run, other)
        hits.append((logits.argmax(axis=1) == labels).astype(np.float64))
        losses.append(clip_losses(softmax(logits.astype(np.float64)), labels))
    return np.stack(hits), np.stack(losses)


def _points(interval: tuple[float, float]) -> tuple[float, float]:
    return 100.0 * interval[0], 100.0 * interval[1]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-")
