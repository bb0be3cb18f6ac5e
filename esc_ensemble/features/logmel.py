"""Mel power spectrogram, and its logarithm in dB."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from esc_ensemble.config import FrontendConfig
from esc_ensemble.errors import ConfigError
from esc_ensemble.features.split_dft import SplitDft

POWER_FLOOR = 1e-10


class MelPower(nn.Module):
    """Waveform (B, T) to mel power (B, F, L), equal to librosa's `melspectrogram(center=False)`.

    Where the window is shorter than the DFT, the zeros around it are left out: a delay turns phases, which
    the power does not see. ONNX graphs take the DFT by two products with small matrices (`SplitDft`), which every
    runtime knows and is quick at; elsewhere it is an FFT, equal to rounding.

    Frames: L = 1 + (T - n_fft) // hop.

    Raises:
        ConfigError: no band holds a single bin of the DFT.
    """

    hann: Tensor
    filters: Tensor
    split_filters: Tensor

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
        hann = _hann_window(config.window)
        self.split_dft = SplitDft(np.pad(hann, (self.margin_left, self.margin_right)), config.hop)
        self.register_buffer("hann", torch.from_numpy(hann.astype(np.float32)), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("split_filters", torch.from_numpy(self.split_dft.spread(filters)), persistent=False)

    @property
    def spectrum_key(self) -> tuple[int, int, int]:
        """Front ends of one sampling rate that agree in this have the same `spectrum`."""
        return self.n_fft, self.window, self.hop

    def forward(self, waveform: Tensor) -> Tensor:
        return self.bands(self.spectrum(waveform))

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Gives the power of each frame's bins, (B, T) -> (B, L, bins); in ONNX graphs in another order of bins."""
        if torch.onnx.is_in_onnx_export():
            return self.split_dft(waveform)
        inner = waveform[:, self.margin_left : waveform.shape[1] - self.margin_right]
        frames = inner.unfold(1, self.window, self.hop) * self.hann  # (B, T') -> (B, L, window)
        spectrum = torch.fft.rfft(frames, n=self.n_fft)
        return spectrum.real.square() + spectrum.imag.square()

    def bands(self, spectrum: Tensor) -> Tensor:
        """Adds up the bins of each band: (B, L, bins) @ (bins, F) -> (B, L, F) -> (B, F, L)."""
        filters = self.split_filters if torch.onnx.is_in_onnx_export() else self.filters
        return (spectrum @ filters.T).mT


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


def _hann_window(length: int) -> np.ndarray:
    """Gives the periodic Hann window (length,), float64."""
    return np.asarray(0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length))
