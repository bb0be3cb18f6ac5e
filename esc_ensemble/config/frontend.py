"""How waveforms become features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from esc_ensemble.config.kinds import Positive
from esc_ensemble.settings import Settings


class PcenConfig(Settings):
    """Per-channel energy normalisation (Wang 2017)."""

    gain: Annotated[float, Field(ge=0.0)] = 0.98
    """Exponent of the smoothed energy that divides each band."""
    bias: Annotated[float, Field(ge=0.0)] = 2.0
    """Offset before the root compression."""
    power: Annotated[float, Field(gt=0.0)] = 0.5
    """Exponent of the root compression."""
    time_constant: Annotated[float, Field(ge=1e-3)] = 0.4
    """Time constant in seconds of the energy smoother."""
    eps: Annotated[float, Field(gt=0.0)] = 1e-6
    """Floor of the smoothed energy."""
    initial_state: Literal["first_frame", "one"] = "first_frame"
    """Smoother's state before the first frame: that frame itself, or 1 (librosa's default)."""
    learnable: bool = False
    """Learn gain, bias, power and smoothing for each band along with the network."""


class FrontendConfig(Settings):
    """Waveform to features: mel power, then log and PCEN channels."""

    n_fft: Positive = 1024
    """Length of the DFT in samples."""
    window: Positive = 1024
    """Length of the Hann window in samples, centred in the DFT."""
    hop: Positive = 640
    """Samples from one frame to the next."""
    n_mels: Positive = 64
    """Number of mel bands F."""
    f_min: Annotated[float, Field(ge=0.0)] = 20.0
    """Lower edge of the lowest band in Hz."""
    f_max: Annotated[float, Field(gt=0.0)] = 16000.0
    """Upper edge of the highest band in Hz."""
    mel_scale: Literal["slaney", "htk"] = "slaney"
    """Formula of the mel scale."""
    mel_norm: Literal["slaney", "none"] = "slaney"
    """Whether each band's filter has unit area (slaney) or unit peak (none)."""
    top_db: Annotated[float, Field(gt=0.0)] = 80.0
    """Log-mel is cut this many dB below the clip's loudest value."""
    channels: tuple[Literal["logmel", "pcen"], ...] = ("logmel", "pcen")
    """Which channels the network sees, in order."""
    pcen: PcenConfig = PcenConfig()
    """The PCEN channel."""

    def conflicts(self) -> Iterator[str]:
        if self.window > self.n_fft:
            yield f"window {self.window} must not be longer than n_fft {self.n_fft}"
        if self.f_min >= self.f_max:
            yield f"f_min {self.f_min} must be below f_max {self.f_max}"
        if not self.channels or len(set(self.channels)) != len(self.channels):
            yield "channels must name logmel, pcen or both, each once"
