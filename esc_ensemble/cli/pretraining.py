"""Commands that pretrain. Heavy imports stand inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from esc_ensemble.cli.shared import read_options, resolve
from esc_ensemble.config import PretrainWav2Vec2Config, TrainAConfig, TrainAProConfig, TrainBConfig
from esc_ensemble.display import print_table
from esc_ensemble.flags import SETTINGS, Name, PretrainingFlags
from esc_ensemble.settings import Settings

if TYPE_CHECKING:
    from esc_ensemble.training.pretraining import PretrainingOptions


def train_a(
    *,
    how: PretrainingFlags,
    run: Name = "pretrained-a",
    settings: Annotated[TrainAConfig | None, Parameter(name="*", group=SETTINGS)] = None,
) -> None:
    """Train model A on all clips of another data set, for train-a --init.

    Args:
        how: What all pretraining can be told.
        run: Name of the run.
        settings: Settings of the training.
    """
    _pretrain(TrainAConfig, run, how, settings, "train-a --init")


def train_a_pro(
    *,
    how: PretrainingFlags,
    run: Name = "pretrained-a-pro",
    settings: Annotated[TrainAProConfig | None, Parameter(name="*", group=SETTINGS)] = None,
) -> None:
    """Train model A Pro on all clips of another data set, for train-a-pro --init.

    Args:
        how: What all pretraining can be told.
        run: Name of the run.
        settings: Settings of the training.
    """
    _pretrain(TrainAProConfig, run, how, settings, "train-a-pro --init")


def train_b(
    *,
    how: PretrainingFlags,
    run: Name = "pretrained-b",
    settings: Annotated[TrainBConfig | None, Parameter(name="*", group=SETTINGS)] = None,
) -> None:
    """Train the last blocks of a backbone on all clips of another data set, for train-b --init.

    Args:
        how: What all pretraining can be told.
        run: Name of the run.
        settings: Settings of the training.
    """
    _pretrain(TrainBConfig, run, how, settings, "train-b --init")


def wav2vec2(
    *,
    how: PretrainingFlags,
    run: Name = "wav2vec2",
    settings: Annotated[PretrainWav2Vec2Config | None, Parameter(name="*", group=SETTINGS)] = None,
) -> None:
    """Train a wav2vec2 on recordings without labels, any folder of audio, for train-b --model.source.

    Frames of each clip are hidden, and the network learns to tell them from others (Baevski 2020). The run's folder is
    then a transformers checkpoint, made without any hub.

    Args:
        how: What all pretraining can be told.
        run: Name of the run.
        settings: Settings of the training.
    """
    from esc_ensemble.data.catalog import load_recordings  # noqa: PLC0415
    from esc_ensemble.training.pretraining import pretrain_wav2vec2_run  # noqa: PLC0415

    resolved = resolve(PretrainWav2Vec2Config, how.config, settings)
    catalog = load_recordings(how.data, read_options(how))
    _show(how, run, pretrain_wav2vec2_run(how.runs / run, resolved, catalog, _options(how)), "train-b --model.source")


def _pretrain(kind: type[Any], run: str, how: PretrainingFlags, settings: Settings | None, use: str) -> None:
    from esc_ensemble.data.catalog import load_catalog  # noqa: PLC0415
    from esc_ensemble.training.pretraining import pretrain_run  # noqa: PLC0415

    resolved = resolve(kind, how.config, settings)
    catalog = load_catalog(how.data, read_options(how), whole=True)
    _show(how, run, pretrain_run(how.runs / run, resolved, catalog, _options(how)), use)


def _options(how: PretrainingFlags) -> PretrainingOptions:
    from esc_ensemble.data.catalog import load_recordings  # noqa: PLC0415
    from esc_ensemble.training.pretraining import PretrainingOptions  # noqa: PLC0415

    return PretrainingOptions(
        targets=tuple(load_recordings(target) for target in how.target),
        max_clips=how.limit,
        cache_dir=how.cache,
        n_workers=how.workers,
        skip_bad=how.skip_bad,
    )


def _show(how: PretrainingFlags, run: str, metrics: dict[str, Any], use: str) -> None:
    if not metrics:
        return  # another process of this launch reports
    folder: Path = how.runs / run
    if how.as_json:
        print(json.dumps({"run": str(folder), **metrics}, indent=2))
        return
    rows = [[name, f"{value:.4f}" if isinstance(value, float) else str(value)] for name, value in metrics.items()]
    print_table(str(folder), ["", "pretraining"], rows)
    print(f"Go on with: esc-ens {use} {folder}")
