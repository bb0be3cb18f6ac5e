"""One step of training: the clips of a fold, and waveforms or features to a loss by way of all augmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from esc_ensemble.augment.mixing import draw_mix, mix_features, mix_waveforms, mixed_loss
from esc_ensemble.augment.waveform import augment_waveform, random_window
from esc_ensemble.config import AugmentConfig, MixConfig, TrainConfig
from esc_ensemble.features.specaugment import bend_bands, spec_augment
from esc_ensemble.models.base import AudioClassifier, Trainable


@dataclass(frozen=True)
class TrainingData:
    """The clips of one fold's training.

    `read_batch` takes clip numbers (B,) and gives int16 waveforms (B, T); `labels` (all clips,) int64. Where there is
    `read_features`, training starts from what it gives instead: features (B, ...) on the device of `n_views` views
    (B,) of clips (B,), view 0 being the clip as it is.
    """

    read_batch: Callable[[np.ndarray], np.ndarray]
    labels: np.ndarray
    train: np.ndarray
    selection: np.ndarray
    n_classes: int
    sample_rate: int
    window_seconds: float = 0.0
    read_features: Callable[[np.ndarray, np.ndarray], Tensor] | None = None
    n_views: int = 1
    read_windows: Callable[[np.ndarray, np.ndarray, int], np.ndarray] | None = None
    """Clip numbers (B,), starts (B,) and a length to int16 waveforms."""
    n_samples: int = 0
    """Length T of the clips, for `read_windows`."""

    def read(self, clips: np.ndarray) -> np.ndarray:
        """Reads clips (B,) as int16 waveforms (B, T), or of clips that are far longer than windows a random part.

        The part is of two windows, so that augmentation and the random window have room. Draws from torch's default
        generator.
        """
        n_part = 2 * round(self.window_seconds * self.sample_rate)
        if self.read_windows is None or not 0 < n_part < self.n_samples:
            return self.read_batch(clips)
        starts = torch.randint(self.n_samples - n_part + 1, (len(clips),)).numpy()
        return self.read_windows(clips, starts, n_part)


class Step(nn.Module):
    """A batch of waveforms (B, T), or of features, to the loss that training makes small.

    A module of its own, so that autocast and data-parallel wrappers see one forward pass.
    """

    model: Trainable

    def start_epoch(self, epoch: int, n_epochs: int) -> None:
        """Is told before each epoch, counted from 0."""

    def draw_mix(self) -> str:
        """Draws how the clips of one optimiser step are mixed, from torch's default generator on the CPU."""
        return ""

    def forward(self, inputs: Tensor, targets: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """Gives the mean loss of a batch, and for how many clips the first choice is right, as scalars.

        Args:
            inputs: (B, T), or features (B, ...).
            targets: class probabilities (B, C).
            kind: what `draw_mix` gave.
        """
        raise NotImplementedError


class TrainingStep(Step):
    """Waveforms and class probabilities to the loss of a classifier, by way of all augmentation.

    With `from_features` the step begins behind the front end, with its features (B, ...) in the place of waveforms.
    """

    model: AudioClassifier

    def __init__(
        self,
        model: AudioClassifier,
        augment: AugmentConfig,
        mix: MixConfig,
        train: TrainConfig,
        *,
        n_window: int = 0,
        from_features: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.augment = augment
        self.mix = mix
        self.n_window = n_window
        self.from_features = from_features
        self.label_smoothing = train.label_smoothing
        self.kl = train.loss == "kl"
        self.channels_last = train.channels_last

    def draw_mix(self) -> str:
        return draw_mix(self.mix)

    def forward(self, inputs: Tensor, targets: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        model, mix = self.model, self.mix
        features = inputs
        if not self.from_features:
            waveform = random_window(augment_waveform(inputs, self.augment, model.sample_rate), self.n_window)
            waveform, targets = mix_waveforms(waveform, targets, kind, mix, model.sample_rate)
            features = model.frontend(waveform)
        features = spec_augment(bend_bands(features, self.augment), self.augment)
        features, targets = mix_features(features, targets, kind, mix)
        if self.channels_last and features.ndim == 4:
            features = features.contiguous(memory_format=torch.channels_last)
        logits = model.forward_head(model.forward_features(features)).float()
        loss = mixed_loss(logits, targets, kind, smoothing=self.label_smoothing, kl=self.kl)
        top = targets.gather(1, logits.argmax(dim=1, keepdim=True))  # (B, 1)
        n_right = (top == targets.amax(dim=1, keepdim=True)).sum()  # of a union any class is right
        return loss, n_right
