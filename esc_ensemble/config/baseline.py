"""Everything that the baselines can be told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from esc_ensemble.config.data import DataConfig
from esc_ensemble.config.kinds import Positive, shift_conflicts
from esc_ensemble.settings import Settings


class BaselineDataConfig(DataConfig):
    """Clips for the baselines, at the rate that librosa loads them by default."""

    sample_rate: Annotated[int, Field(ge=4000, le=192000)] = 22050


class MfccConfig(Settings):
    """Waveforms to MFCC statistics, as librosa computes them."""

    n_mfcc: Annotated[int, Field(ge=1, le=512)] = 20
    """Mel-frequency cepstral coefficients; of each the mean and the standard deviation over time are features."""
    n_mels: Annotated[int, Field(ge=1, le=512)] = 128
    """Mel bands that the coefficients are made of."""
    n_fft: Annotated[int, Field(ge=16, le=65536)] = 2048
    """Samples of a frame."""
    hop: Positive = 512
    """Samples from one frame to the next."""

    def conflicts(self) -> Iterator[str]:
        if self.n_mfcc > self.n_mels:
            yield f"n_mfcc {self.n_mfcc} must not be more than n_mels {self.n_mels}"


class BaselineModelConfig(Settings):
    """A classifier that takes seconds, for others to be held against."""

    name: Literal["mfcc", "majority"] = "mfcc"
    """Logistic regression on standardised MFCC statistics (mfcc), or how often each class occurs (majority)."""
    c: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0
    """Inverse strength of the regression's L2 penalty."""
    max_iter: Positive = 1000
    """Steps of the regression's solver at most."""


class BaselineConfig(Settings):
    """Everything that `esc-ens baseline` can be told."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Start of the selection split's random order; nothing else is random."""
    shift_seconds: tuple[float, ...] = (-0.25, -0.1, 0.0, 0.1, 0.25)
    """Cyclic time shifts stored for test-time augmentation, 0 among them."""
    data: BaselineDataConfig = BaselineDataConfig()
    """Clips to waveforms."""
    frontend: MfccConfig = MfccConfig()
    """Waveforms to features."""
    model: BaselineModelConfig = BaselineModelConfig()
    """The classifier."""

    def conflicts(self) -> Iterator[str]:
        yield from shift_conflicts(self.shift_seconds)
        if self.data.window_seconds:
            yield "data.window_seconds is for networks, a baseline hears whole clips: set it to 0"
        conflict = self.data.length_conflict(self.frontend.n_fft, f"one frame of frontend.n_fft {self.frontend.n_fft}")
        if self.model.name == "mfcc" and conflict:
            yield conflict
