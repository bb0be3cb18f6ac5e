"""Controlled comparison: one base, single changes, the same folds and seeds; differences with intervals."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.blend.calibrate import fit_temperature
from esc_ensemble.blend.crossfit import clips_to_fit_on
from esc_ensemble.config import TrainerConfig
from esc_ensemble.data.catalog import Catalog
from esc_ensemble.data.splits import folds_to_test
from esc_ensemble.errors import ConfigError, DiskError, EscError, list_problems
from esc_ensemble.files import atomic_path, folder_lock, write_json
from esc_ensemble.logits import RunLogits, read_run
from esc_ensemble.manifest import check_same_settings
from esc_ensemble.metrics import bootstrap_interval, clip_losses, softmax
from esc_ensemble.progress import say
from esc_ensemble.settings import build, merge
from esc_ensemble.training.crossval import RunOptions, check_run, train_run

BASE = "base"
N_DRAWS = 2000


@dataclass(frozen=True)
class Variant:
    """One row of a comparison; differences are to the base, paired clip by clip over `folds`.

    `top1` and `log_loss` are means over clips and seeds. Log losses are those after a temperature, which for each fold
    is fitted on the others (a single fold has none): mixing and label smoothing make a network unsure of itself,
    which any blend mends. The differences' intervals (95 %) resample sources: they hold for other clips, not for
    other seeds, whose spread is `seed_std` (0 for a single seed, which has none).
    """

    name: str
    runs: tuple[str, ...]
    folds: tuple[int, ...]
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
            f"{self.top1:.4f}",
            f"{self.seed_std:.4f}" if len(self.runs) > 1 else "",
            "" if base else f"{self.top1_gain:+.4f} ({low:+.4f} to {high:+.4f})",
            f"{self.log_loss:.4f}",
            "" if base else f"{self.log_loss_gain:+.4f} ({best:+.4f} to {worst:+.4f})",
        ]


HEADER = ["variant", "top-1", "± seeds", "difference (95 %)", "log loss", "difference (95 %)"]


def plan(
    kind: type[TrainerConfig],
    base: Mapping[str, Any],
    changes: Mapping[Any, Any],
    seeds: Sequence[int],
    base_origin: str = "The base",
) -> dict[str, list[TrainerConfig]]:
    """Gives the settings of every run: variant -> one for each seed. The base comes first.

    Args:
        kind: the trainer's settings.
        base: what the base has in the place of defaults.
        changes: name of a variant -> the settings in which it differs from the base.
        seeds: at least one, each once.
        base_origin: where `base` is from, for errors.

    Raises:
        ConfigError: a change is not a group of settings, changes nothing, or has a name of no use for a folder.
    """
    variants = {BASE: [build(kind, merge(dict(base), {"seed": seed}), base_origin) for seed in seeds]}
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"The seeds {', '.join(map(str, seeds))} name one twice.")
    if not changes:
        raise ConfigError("There is no change to compare: write a name and, under it, the settings that differ.")
    if set(changes) <= set(kind.model_fields):
        raise ConfigError(
            f"{', '.join(changes)} are settings, not changes: write a name for the change above them, and indent them."
        )
    problems = []
    folders = {BASE: BASE}
    for name, change in changes.items():
        problem = _misnamed(name, folders) or _useless(name, change)
        if not problem:
            try:
                values = _merged(base, name, change)
                variants[name] = [build(kind, values | {"seed": seed}, f'The change "{name}"') for seed in seeds]
            except ConfigError as error:
                problem = str(error)
            else:
                if variants[name] == variants[BASE]:
                    problem = f'The change "{name}" changes nothing: the base has these values already.'
        if problem:
            problems.append(problem)
    if problems:
        raise ConfigError("\n".join(problems))
    return variants


def _misnamed(name: Any, folders: dict[str, str]) -> str:
    """What is wrong with a change's name, if anything; adds its folder to `folders`."""
    if not isinstance(name, str):
        return f"The name of a change is read as {name!r}, no text: put quotes around it in the file."
    slug = _slug(name)
    if not slug:
        return f'The change "{name}" needs a Latin letter or a digit in its name, for its folder.'
    if slug == BASE:
        return f'The change "{name}" has the name of the base: rename it. The base is set with --config.'
    other = folders.setdefault(slug, name)
    return "" if other == name else f'The changes "{other}" and "{name}" would have the same folder: rename one.'


def _useless(name: str, change: Any) -> str:
    if not isinstance(change, dict) or not change:
        return f'The change "{name}" must be a group of settings, such as `mix: {{mixup: 0.0}}`.'
    if "seed" in change:
        return f'The change "{name}" names a seed: seeds are given with --seeds, for all variants.'
    return ""


def _merged(base: Mapping[str, Any], name: str, change: dict[str, Any]) -> dict[str, Any]:
    try:
        return merge(dict(base), change)
    except ConfigError as error:
        raise ConfigError(f'The change "{name}" does not fit the base: {error}') from error


def compare(
    folder: Path, variants: Mapping[str, Sequence[TrainerConfig]], catalog: Catalog, options: RunOptions
) -> tuple[list[Variant], list[str]]:
    """Trains what is not trained yet and writes `compare.json`, `compare.csv` and `compare.png` into `folder`.

    The files hold `variants` and nothing from earlier. They are written anew after each variant, so that a long
    comparison can be read while it runs. A variant whose training fails, say because it diverges, is left out, and
    the others go on.

    Args:
        folder: each variant and seed has a run of its own in it, which resumes like any run.
        variants: what `plan` gave.
        catalog: the clips.
        options: which folds to train and to judge by, and how.

    Returns:
        The rows, base first, and what went wrong, a text for each variant that failed.

    Raises:
        ConfigError: the folder holds runs of these names with other settings, or some cannot be trained.
        EscError: the base's training failed, the disk is full, or another process writes to the folder.
    """
    _refuse_beforehand(folder, variants, catalog, options.folds)
    folds = folds_to_test(catalog, next(iter(variants.values()))[0].data, options.folds)
    rows: list[Variant] = []
    failures: list[str] = []
    base: list[RunLogits] = []
    with folder_lock(folder):
        for name in ("compare.json", "compare.csv", "compare.png"):
            (folder / name).unlink(missing_ok=True)
        for name, configs in variants.items():
            try:
                runs = [_train(_run_dir(folder, name, config), config, catalog, options) for config in configs]
            except EscError as error:
                if not base or isinstance(error, DiskError):
                    raise
                failures.append(f"{name}: {error}")
                say(f'The change "{name}" failed and is left out: {error}')
                continue
            base = base or runs
            rows.append(judge(name, runs, base, folds))
            _write(folder, rows)
    return rows, failures


def _train(run_dir: Path, config: TrainerConfig, catalog: Catalog, options: RunOptions) -> RunLogits:
    train_run(run_dir, config, catalog, options)
    return heard(read_run(run_dir), config)


def _write(folder: Path, rows: Sequence[Variant]) -> None:
    write_json(folder / "compare.json", [vars(row) for row in rows])
    _write_csv(folder / "compare.csv", rows)
    if len(rows) > 1:
        plot(folder / "compare.png", rows)


def _refuse_beforehand(
    folder: Path, variants: Mapping[str, Sequence[TrainerConfig]], catalog: Catalog, folds: tuple[int, ...]
) -> None:
    problems = []
    for name, configs in variants.items():
        for config in configs:
            try:
                check_same_settings(_run_dir(folder, name, config), config)
                check_run(_run_dir(folder, name, config), config, catalog, folds)
            except EscError as error:
                problems.append(f"{name}: {error}")
    if problems:
        raise ConfigError(list_problems("Nothing was trained:", problems))


def _run_dir(folder: Path, name: str, config: TrainerConfig) -> Path:
    return folder / f"{_slug(name)}-seed{config.seed}"


def heard(run: RunLogits, config: TrainerConfig) -> RunLogits:
    """The run with one set of logits (1, N, C): of whole clips those without shift, of windows the mean over crops."""
    crops = bool(config.data.window_seconds)
    return replace(run, logits=run.logits.mean(axis=0, keepdims=True) if crops else run.logits[run.shifts == 0.0])


def judge(name: str, runs: Sequence[RunLogits], base: Sequence[RunLogits], folds: Sequence[int]) -> Variant:
    """Gives the row of a variant from its runs and the base's, seed by seed, over `folds`, which all of them have.

    Runs have one set of logits each (`heard`), without time shifts: what training alone gives.
    """
    hits, losses = _by_clip(runs, folds)  # (seeds, N) each
    base_hits, base_losses = _by_clip(base, folds)
    sources = base[0].sources[np.isin(base[0].fold_of_clip, folds)]
    gain = (hits - base_hits).mean(axis=0)  # (N,)
    loss_gain = (losses - base_losses).mean(axis=0)
    return Variant(
        name=name,
        runs=tuple(run.name for run in runs),
        folds=tuple(folds),
        top1=float(hits.mean()),
        log_loss=float(losses.mean()),
        seed_std=float(hits.mean(axis=1).std(ddof=1)) if len(runs) > 1 else 0.0,
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
        (
            left,
            "top-1, points (right is better)",
            [100 * r.top1_gain for r in changed],
            [_points(r.top1_interval) for r in changed],
        ),
        (
            right,
            "log loss (left is better)",
            [r.log_loss_gain for r in changed],
            [r.log_loss_interval for r in changed],
        ),
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
    folds = ", ".join(map(str, base.folds))
    figure.suptitle(
        f"base: top-1 {base.top1:.4f}, log loss {base.log_loss:.4f}; folds {folds}; bars are 95 % over sources"
    )
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


def _by_clip(runs: Sequence[RunLogits], folds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Hits and losses (seeds, N) of the clips in `folds`."""
    hits, losses = [], []
    for run in runs:
        chosen = np.isin(run.fold_of_clip, folds)
        logits, labels, fold_of_clip = run.logits[0, chosen], run.labels[chosen], run.fold_of_clip[chosen]
        hits.append((logits.argmax(axis=1) == labels).astype(np.float64))
        losses.append(clip_losses(softmax(_calibrated(logits, labels, fold_of_clip, run.sources[chosen])), labels))
    return np.stack(hits), np.stack(losses)


def _calibrated(logits: np.ndarray, labels: np.ndarray, fold_of_clip: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Logits (N, C), each fold's divided by the temperature of least log loss on the others; one alone as it is."""
    calibrated = logits.astype(np.float64)
    for fold in np.unique(fold_of_clip):
        others = clips_to_fit_on(fold_of_clip, sources, fold)
        if others.any():
            calibrated[fold_of_clip == fold] /= fit_temperature(logits[others], labels[others])
    return calibrated


def _points(interval: tuple[float, float]) -> tuple[float, float]:
    return 100.0 * interval[0], 100.0 * interval[1]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
