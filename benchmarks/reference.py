"""The reference notebook's way of training, written plainly: every clip decoded and analysed in every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from torch import Tensor, nn
from torch.nn import functional as F

RATE, N_SAMPLES, HOP = 16000, 80000, 160
BATCH_SIZE = 64
WIDTHS = (32, 64, 96, 128)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 8)
        self.down = nn.Linear(channels, hidden)
        self.up = nn.Linear(hidden, channels)

    def forward(self, maps: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(F.relu(self.down(maps.mean(dim=(2, 3))))))
        return maps * gate[:, :, None, None]


def spec_cnn(n_classes: int) -> nn.Module:
    """Gives the reference's Spec-CNN: features (B, 2, F, L) -> logits (B, C)."""
    layers: list[nn.Module] = [nn.Conv2d(2, WIDTHS[0], 5, padding=2, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
    channels = WIDTHS[0]
    for width in WIDTHS:
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [SqueezeExcitation(width), nn.AvgPool2d(2)]
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.35), nn.Linear(channels, n_classes)
    )


def load_features(path: Path, rng: np.random.Generator) -> np.ndarray:
    """Decodes, resamples, augments and analyses one clip: (2, F, L) float32."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    waveform = librosa.resample(samples.mean(axis=1), orig_sr=rate, target_sr=RATE)
    waveform = _augment(_centre(waveform), rng)
    mel = librosa.feature.melspectrogram(
        y=waveform, sr=RATE, n_fft=1024, win_length=400, hop_length=HOP, n_mels=64, fmin=20, fmax=8000, center=False
    )
    log_mel = librosa.power_to_db(mel, top_db=80.0)
    pcen = librosa.pcen(mel, sr=RATE, hop_length=HOP, gain=0.98, bias=2.0, power=0.5, time_constant=0.4, eps=1e-6)
    channels = [(channel - channel.mean()) / (channel.std() + 1e-5) for channel in (log_mel, pcen)]
    return _spec_augment(np.stack(channels).astype(np.float32), rng)


def _centre(waveform: np.ndarray) -> np.ndarray:
    extra = len(waveform) - N_SAMPLES
    if extra >= 0:
        return waveform[extra // 2 : extra // 2 + N_SAMPLES]
    return np.pad(waveform, (-extra // 2, -extra - -extra // 2))


def _augment(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.3:
        waveform = waveform * np.float32(rng.uniform(0.8, 1.2))
    if rng.random() < 0.3:
        waveform = waveform + 0.005 * rng.standard_normal(len(waveform)).astype(np.float32)
    return waveform


def _spec_augment(features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.9:
        for axis, largest in ((2, 40), (2, 40), (1, 8), (1, 8)):
            width = int(rng.integers(largest + 1))
            start = int(rng.integers(features.shape[axis] - width + 1))
            place = [slice(None)] * 3
            place[axis] = slice(start, start + width)
            features[tuple(place)] = 0.0
    return features


@dataclass
class Reference:
    """A training in progress."""

    paths: list[Path]
    labels: np.ndarray
    model: nn.Module
    device: torch.device

    def __post_init__(self) -> None:
        self.model.to(self.device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-3, weight_decay=1e-4)
        self.rng = np.random.default_rng(0)

    def run_epoch(self) -> None:
        """One pass over the clips, in the default memory format and float32."""
        for features, targets in self._batches():
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(features), targets, label_smoothing=0.05)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimizer.step()
            loss.item()  # the notebook logs it; on a GPU this waits for the step

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.rng.permutation(len(self.paths))
        for start in range(0, len(order), BATCH_SIZE):
            chosen = order[start : start + BATCH_SIZE]
            features = np.stack([load_features(self.paths[index], self.rng) for index in chosen])
            targets = torch.from_numpy(self.labels[chosen])
            yield torch.from_numpy(features).to(self.device), targets.to(self.device)
