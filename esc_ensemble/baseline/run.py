"""Baselines fold by fold into a run's folder, by the same rules as the trainers' runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esc_ensemble.baseline.classify import class_log_frequencies, fit_regression, regression_logits
from esc_ensemble.baseline.mfcc import Statistics, cache_statistics
from esc_ensemble.config import BaselineConfig
from esc_ensemble.data.audits import say_shared
from esc_ensemble.data.cache import WaveformCache, build_cache
from esc_ensemble.data.catalog import Catalog
from esc_ensemble.data.splits import FoldSplit, Indices, describe_protocol, folds_to_test, shared_facts, split_fold
from esc_ensemble.files import folder_lock
from esc_ensemble.fold_scores import read_finished, remove_half_written, write_metrics
from esc_ensemble.logits import FoldLogits, LogitsPart, logits_path, write_logits
from esc_ensemble.manifest import open_run, run_hash
from esc_ensemble.progress import progress, say
from esc_ensemble.settings import check

PACKAGES = ("librosa", "scikit-learn", "numpy", "soundfile", "soxr")


def fit_run(
    run_dir: Path,
    config: BaselineConfig,
    catalog: Catalog,
    *,
    folds: Sequence[int] = (),
    cache_dir: Path | None = None,
    n_workers: int = 0,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Decodes the clips where that was not done before, then fits every fold (or those named) not done yet.

    Scaler and classifier see the training part of each fold alone; MFCCs know no other clip and are computed once.

    Args:
        run_dir: the run's folder.
        config: all settings.
        catalog: the clips.
        folds: which folds; all where empty.
        cache_dir: where decoded waveforms lie; the user's cache folder where None.
        n_workers: processes that decode and compute MFCCs; 0 takes the free cores.
        skip_bad: leave out clips that cannot be decoded.

    Returns:
        The content of `metrics.json`, over all folds that are done.

    Raises:
        ConfigError: the settings do not go together, or the folder holds a run with other settings or data.
        DataError: clips cannot be decoded, a fold does not exist, or a class would have no training clip.
        WorkError: another process writes to the folder, the disk is full, or a worker process died.
    """
    check(config, "The settings")
    for fold in folds_to_test(catalog, config.data, folds):
        _split(config, catalog, fold)
    cache, catalog = build_cache(catalog, config.data, cache_dir=cache_dir, n_workers=n_workers, skip_bad=skip_bad)
    splits = [_split(config, catalog, fold) for fold in folds_to_test(catalog, config.data, folds)]
    protocol = describe_protocol(catalog, config.data, "settings fixed beforehand")
    say_shared(catalog, config.data.shared_recordings)
    with folder_lock(run_dir):
        facts = shared_facts(catalog, config.data, splits)
        open_run(run_dir, config, catalog, packages=PACKAGES, protocol=protocol, device="cpu", **facts)
        identity = run_hash(run_dir, config), catalog.fingerprint
        todo = [split for split in splits if not read_finished(run_dir, split.fold, *identity)]
        for fold in sorted({split.fold for split in splits} - {split.fold for split in todo}):
            remove_half_written(run_dir / f"fold-{fold}")
            say(f"{run_dir.name} {catalog.fold_label(fold)}: done already")
        if todo:
            features = _features(config, cache, todo, n_workers) if config.model.name == "mfcc" else None
            with progress(run_dir.name, len(todo), "folds") as advance:
                for split in todo:
                    remove_half_written(run_dir / f"fold-{split.fold}")
                    test, selection = _predict_parts(config, catalog, split, features)
                    fold_logits = FoldLogits(
                        test=test,
                        selection=selection,
                        shifts=np.array(config.shift_seconds, dtype=np.float32),
                        class_names=catalog.class_names,
                        fold=split.fold,
                        run=run_dir.name,
                        config_hash=identity[0],
                        dataset_fingerprint=identity[1],
                        shared_recordings=config.data.shared_recordings if catalog.shared_recordings else "",
                    )
                    write_logits(logits_path(run_dir, split.fold), fold_logits)
                    advance()
        found = [read_finished(run_dir, fold, *identity) for fold in catalog.fold_numbers]
        return write_metrics(run_dir, [fold for fold in found if fold], protocol)


def _split(config: BaselineConfig, catalog: Catalog, fold: int) -> FoldSplit:
    return split_fold(catalog, fold, config.data, config.seed)


def _features(config: BaselineConfig, cache: WaveformCache, splits: Sequence[FoldSplit], n_workers: int) -> Statistics:
    """MFCC statistics (S, N, D) of all clips that the folds need, NaN elsewhere: training takes no shifts."""
    shifts, frontend = config.shift_seconds, config.frontend
    centre = shifts.index(0.0)
    features = np.full((len(shifts), len(cache.waveforms), 2 * frontend.n_mfcc), np.nan)
    heard = _union([part for split in splits for part in (split.test, split.selection)])
    trained = np.setdiff1d(_union([split.train for split in splits]), heard)
    total = len(heard) * len(shifts) + len(trained)
    with progress("MFCCs", total, "waveforms") as advance:
        computed = cache_statistics(cache, heard, shifts, frontend, n_workers=n_workers)
        for place, found in zip(heard, computed, strict=True):
            features[:, place] = found
            advance(len(shifts))
        computed = cache_statistics(cache, trained, (0.0,), frontend, n_workers=n_workers)
        for place, found in zip(trained, computed, strict=True):
            features[centre, place] = found[0]
            advance()
    return features


def _union(parts: Sequence[Indices]) -> Indices:
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *parts]))


def _predict_parts(
    config: BaselineConfig, catalog: Catalog, split: FoldSplit, features: Statistics | None
) -> tuple[LogitsPart, LogitsPart]:
    """Fits a classifier on a split's training part, and gives its logits of the test and of the selection part."""
    labels = catalog.labels[split.train]
    index = np.concatenate([split.test, split.selection])
    if features is None:
        shares = class_log_frequencies(labels, len(catalog.class_names))
        logits = np.tile(shares, (len(config.shift_seconds), len(index), 1))  # (C,) -> (S, N, C)
    else:
        pipeline = fit_regression(features[config.shift_seconds.index(0.0), split.train], labels, config.model)
        logits = regression_logits(pipeline, features[:, index])
    n_test = len(split.test)
    return _part(catalog, split.test, logits[:, :n_test]), _part(catalog, split.selection, logits[:, n_test:])


def _part(catalog: Catalog, index: Indices, logits: npt.NDArray[np.float32]) -> LogitsPart:
    return LogitsPart(catalog.clip_ids[index], catalog.labels[index], logits, catalog.sources[index])
