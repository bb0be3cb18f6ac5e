"""Mel power spectrogram, and its logarithm in dB."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esc_ensemble.config import FrontendConfig
from esc_ensemble.errors import ConfigError

POWER_FLOOR = 1e-10


class MelPower(nn.Module):
    """Waveform (B, T) to mel power (B, F, L), equal to librosa's `melspectrogram(center=False)`.

    Where the window is shorter than the DFT, the zeros around it are left out: a delay turns phases, which
    the power does not see. In an exported graph the windowed DFT is a convolution with fixed cosines and sines,
    which every exporter and runtime knows; elsewhere it is an FFT, equal to rounding and three times as fast.

    Frames: L = 1 + (T - n_fft) // hop.

    Raises:
        ConfigError: no band holds a single bin of the DFT.
    """

    hann: Tensor
    dft: Tensor
    filters: Tensor

    def __init__(self, config: FrontendConfig, sample_rate: int) -> None:
        super().__init__()
        self.n_fft, self.window, self.hop = config.n_fft, config.window, config.hop
        self.margin_left = (config.n_fft - config.window) // 2
        self.margin_right = config.n_fft - config.window - self.margin_left
        filters = mel_filters(config, sample_rate)
        if not filters.any():
            raise ConfigError(
                f"No bin of frontend.n_fft {config.n_fft} lies between f_min {config.f_min} and "
                f"f_max {config.f_max} Hz. Use a longer n_fft or a wider range."
            )
        used = int(np.flatnonzero(filters.any(axis=0)).max()) + 1  # bins above the highest band are not computed
        hann = _hann_window(config.window).astype(np.float32)
        self.register_buffer("hann", torch.from_numpy(hann), persistent=False)
        self.register_buffer("dft", torch.from_numpy(_dft_kernel(config, used)), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters[:, :used]), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        # A negative pad and no slice: with a dynamic T the exporter cannot tell how long a slice is.
        inner = F.pad(waveform, (-self.margin_left, -self.margin_right))  # (B, T) -> (B, T')
        exporting = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore
        power = self._power_by_convolution(inner) if exporting else self._power_by_fft(inner)
        return (power @ self.filters.T).mT  # (B, L, bins) @ (bins, F) -> (B, L, F) -> (B, F, L)

    def _power_by_convolution(self, inner: Tensor) -> Tensor:
        """(B, T') -> (B, L, bins)."""
        real, imaginary = F.conv1d(inner[:, None], self.dft, stride=self.hop).chunk(2, dim=1)  # (B, bins, L) each
        return (real.square() + imaginary.square()).mT

    def _power_by_fft(self, inner: Tensor) -> Tensor:
        """(B, T') -> (B, L, bins)."""
        frames = inner.unfold(1, self.window, self.hop) * self.hann  # (B, T') -> (B, L, window)
        spectrum = torch.fft.rfft(frames, n=self.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()
        return power[:, :, : self.filters.shape[1]]


def power_to_db(power: Tensor, top_db: float) -> Tensor:
    """Gives 10·log10 of mel power (B, F, L), cut `top_db` below each clip's loudest value (librosa's `power_to_db`)."""
    decibel = 10.0 * torch.log10(power.clamp(min=POWER_FLOOR))
    return torch.maximum(decibel, decibel.amax(dim=(1, 2), keepdim=True) - top_db)


def mel_filters(config: FrontendConfig, sample_rate: int) -> np.ndarray:
    """Gives the triangular mel filters (F, n_fft // 2 + 1), float32, as librosa's `filters.mel` does.

    Written here, since importing librosa costs seconds that inference and the kernel do not have.
    """
    bins = np.linspace(0.0, sample_rate / 2, config.n_fft // 2 + 1)
    low, high = (_hz_to_mel(np.array(edge), config.mel_scale) for edge in (config.f_min, config.f_max))
    edges = _mel_to_hz(np.linspace(low, high, config.n_mels + 2), config.mel_scale)  # (F + 2,)
    widths = np.diff(edges)
    slopes = edges[:, None] - bins[None, :]  # (F + 2, bins)
    filters = np.maximum(0.0, np.minimum(-slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]))
    if config.mel_norm == "slaney":
        filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return filters.astype(np.float32)


# Slaney's scale is linear up to 1 kHz (3 mels for 200 Hz), then logarithmic (27 mels for a factor of 6.4).
_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def _hz_to_mel(hertz: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return np.asarray(2595.0 * np.log10(1.0 + hertz / 700.0))
    above = _BREAK_MEL + np.log(np.maximum(hertz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hertz < _BREAK_HZ, hertz / _LINEAR_HZ_PER_MEL, above)


def _mel_to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ_PER_MEL, _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL)))


def _dft_kernel(config: FrontendConfig, n_bins: int) -> np.ndarray:
    """Windowed cosines, then sines: (2 n_bins, 1, window) float32; computed in float64."""
    hann = _hann_window(config.window)
    angle = 2.0 * np.pi / config.n_fft * np.arange(n_bins)[:, None] * np.arange(config.window)[None, :]
    return np.concatenate([hann * np.cos(angle), hann * np.sin(angle)])[:, None, :].astype(np.float32)


def _hann_window(length: int) -> np.ndarray:
    """Gives the periodic Hann window (length,), float64."""
    return np.asarray(0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length))
