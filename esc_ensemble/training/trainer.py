"""What cross-validation and pretraining share: the data, the network, and training it on some of the clips."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from esc_ensemble.config import BackboneConfig, TrainBConfig, TrainerConfig
from esc_ensemble.cores import free_cores
from esc_ensemble.data.cache import WaveformCache, build_cache
from esc_ensemble.data.catalog import Catalog
from esc_ensemble.data.sources import SOURCES_FILE, read_sources
from esc_ensemble.data.splits import FoldSplit
from esc_ensemble.errors import ConfigError, ModelFileError
from esc_ensemble.home import expand_home
from esc_ensemble.manifest import is_pretraining
from esc_ensemble.models.backbones import build_backbone, load_weights
from esc_ensemble.models.base import AudioClassifier, digest_weights
from esc_ensemble.models.checkpoint import begin_with, read_spec
from esc_ensemble.models.registry import ModelSpec, build_model, build_pretrained
from esc_ensemble.models.weights import WEIGHTS_FILE, check_weights
from esc_ensemble.progress import say
from esc_ensemble.training.device import build_accelerator
from esc_ensemble.training.loop import train_model
from esc_ensemble.training.step import TrainingData
from esc_ensemble.training.trunk import Trunk, build_trunk_cache


@dataclass(frozen=True)
class Beginning:
    """What network is to be trained, and the weights that it begins with."""

    spec: ModelSpec
    init: Path | None = None
    """Folder of a pretrained model of ours."""
    pretrained: ModelSpec | None = None
    """What is in it."""
    heard: frozenset[str] = frozenset()
    """Sources that the weights have heard, where that is known."""
    heard_at: Path | None = None
    """Folder that knows it."""


@dataclass(frozen=True)
class Trainer:
    """All that stays the same from fold to fold of one run."""

    run_dir: Path
    config: TrainerConfig
    catalog: Catalog
    cache: WaveformCache
    beginning: Beginning
    accelerator: Accelerator

    @property
    def spec(self) -> ModelSpec:
        """What network it trains."""
        return self.beginning.spec


def find_beginning(run_dir: Path, config: TrainerConfig, class_names: tuple[str, ...]) -> Beginning:
    """Finds the pretrained run that `init` names, by its path or beside this run, or else the backbone's source.

    Raises:
        ModelFileError: there is no such run, it was not pretrained, or the source cannot be read.
        ConfigError: the backbone cannot follow the settings.
    """
    if not config.init:
        spec = ModelSpec.of(config, class_names)
        source = config.model.source if isinstance(config.model, BackboneConfig) else ""
        heard = heard_by(source)
        return Beginning(spec, heard=heard, heard_at=Path(source) if heard else None)
    init = _find_init(run_dir, config.init)
    heard, pretrained = read_sources(init), read_spec(init)
    check_weights(init)
    if pretrained.name != config.model_name:
        raise ModelFileError(
            f"--init {config.init}: {init} holds a {pretrained.name}, which is no beginning for a {config.model_name}. "
            "Pretrain with the trainer of the same name, and with the same model.name."
        )
    if isinstance(config.model, BackboneConfig) and isinstance(pretrained.model, BackboneConfig):
        source = pretrained.model.source
        if config.model.source not in (source, BackboneConfig().source):
            raise ConfigError(f"--init {config.init} brings the weights of a whole backbone: leave model.source out.")
        config = config.model_copy(update={"model": config.model.model_copy(update={"source": source})})
    spec = ModelSpec.of(config, class_names, backbone=pretrained.backbone)
    return Beginning(spec, init, pretrained, heard, init)


def heard_by(source: str) -> frozenset[str]:
    """Gives what a backbone has heard, as far as its folder knows; nothing of published ones.

    Raises:
        ModelFileError: it was pretrained here, and its list is gone or damaged, or it was not finished.
    """
    folder = expand_home(source)
    if not source or not folder.is_dir():
        return frozenset()
    if (folder / SOURCES_FILE).exists() or is_pretraining(folder):
        return read_sources(folder)
    return frozenset()


def _find_init(run_dir: Path, name: str) -> Path:
    places = [expand_home(name), run_dir.parent / name, run_dir.parent.parent / name]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise ModelFileError(f"--init {name}: there is no such run. Make one with `esc-ens pretrain`.")
    if not is_pretraining(folder):
        raise ModelFileError(
            f"--init {name}: {folder} is no run of `esc-ens pretrain`. Models that were trained fold by fold have "
            "heard clips of other folds."
        )
    if (folder / "preprocessor_config.json").exists():
        raise ModelFileError(f"--init {name}: this is a backbone, give it as --model.source of train-b.")
    if not (folder / "model.json").exists():
        raise ModelFileError(f"--init {name}: this pretraining is not finished. Type its command again first.")
    return folder


def open_trainer(
    run_dir: Path, config: TrainerConfig, catalog: Catalog, beginning: Beginning, threads: int, **how: Any
) -> Trainer:
    """Opens the waveforms, decoding them where need be, and the device.

    Raises:
        DataError: clips cannot be decoded.
    """
    cache, catalog = build_cache(catalog, config.data, **how)
    beginning = replace(beginning, spec=replace(beginning.spec, class_names=catalog.class_names))
    return Trainer(run_dir, config, catalog, cache, beginning, build_accelerator(config.train, threads))


def begin(trainer: Trainer) -> AudioClassifier:
    """Builds the network as training begins with it: what is not pretrained is random, from torch's generator.

    Raises:
        ModelFileError: weights cannot be read, or do not fit.
    """
    if trainer.beginning.init is None:
        return build_pretrained(trainer.spec)
    model = build_model(trainer.spec)
    begin_with(model, trainer.beginning.init)
    return model


def digest_beginning(trainer: Trainer) -> str:
    """Tells the weights that training begins with from all others; empty where they are random.

    Raises:
        ModelFileError: weights cannot be read.
    """
    if trainer.beginning.init is not None:
        with (trainer.beginning.init / WEIGHTS_FILE).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    spec = trainer.spec
    if spec.backbone is None or not isinstance(spec.model, BackboneConfig):
        return ""
    network = build_backbone(spec.backbone)
    load_weights(spec.model.source, network)
    return digest_weights(network)


def tell_differences(trainer: Trainer) -> None:
    """Says where the pretrained network heard its clips in another way."""
    other = trainer.beginning.pretrained
    if other is None:
        return
    pairs = [("data", trainer.spec.data, other.data), ("frontend", trainer.spec.frontend, other.frontend)]
    found = [
        f"{group}.{name} {theirs} there, {value} here"
        for group, mine, others in pairs
        if mine and others
        for name, value in mine.model_dump().items()
        if name != "selection_fraction" and (theirs := others.model_dump()[name]) != value
    ]
    if found:
        say(f"Note: {trainer.beginning.init} was pretrained on other features: {'; '.join(found)}.")


def train_on(trainer: Trainer, split: FoldSplit, folder: Path, *, seed: int, title: str) -> AudioClassifier:
    """Trains a network on a split's training part from its beginning, or from the state found in `folder`.

    Args:
        trainer: what all splits share.
        split: training and selection part.
        folder: where the state and the history go.
        seed: of all that is random in it.
        title: for the progress display.

    Returns:
        The model on the CPU, in eval mode.
    """
    config = trainer.config
    data = TrainingData(
        read_batch=trainer.cache.batch,
        labels=trainer.catalog.labels,
        train=split.train,
        selection=split.selection,
        n_classes=len(trainer.catalog.class_names),
        sample_rate=config.data.sample_rate,
        window_seconds=config.data.window_seconds,
        read_windows=trainer.cache.windows,
        n_samples=trainer.cache.n_samples,
    )
    torch.manual_seed(seed)
    model = begin(trainer)
    if isinstance(config, TrainBConfig) and config.frontend.views:
        features = trunk_features(trainer, model, np.concatenate([split.train, split.selection]))
        data = replace(data, read_features=features, n_views=config.frontend.views)
    return train_model(
        model,
        data,
        config.train,
        config.augment,
        config.mix,
        accelerator=trainer.accelerator,
        folder=folder,
        seed=seed,
        title=title,
    )


def prepare_trunk(trainer: Trainer, splits: list[FoldSplit]) -> None:
    """Computes what the folds share beforehand, with all threads, where a frozen trunk is to be cached."""
    config = trainer.config
    if splits and isinstance(config, TrainBConfig) and config.frontend.views and config.frontend.cache:
        clips = np.unique(np.concatenate([part for split in splits for part in (split.train, split.selection)]))
        each = torch.get_num_threads()
        torch.set_num_threads(config.train.threads or free_cores())
        trunk_features(trainer, begin(trainer), clips)
        torch.set_num_threads(each)


def trunk_features(
    trainer: Trainer, model: AudioClassifier, clips: np.ndarray
) -> Callable[[np.ndarray, np.ndarray], torch.Tensor]:
    """What gives the frozen trunk's output for views of clips: a cache on disk, or the trunk itself."""
    config = trainer.config
    assert isinstance(config, TrainBConfig)
    trunk = Trunk(
        network=model.frontend.to(trainer.accelerator.device),
        read_batch=trainer.cache.batch,
        n_clips=len(trainer.catalog.clips),
        sample_rate=config.data.sample_rate,
        augment=config.augment,
        n_views=config.frontend.views,
        seed=config.seed,
        accelerator=trainer.accelerator,
    )
    return build_trunk_cache(trunk, trainer.cache.path, clips) if config.frontend.cache else trunk
