"""The front end that stands inside every spectrogram model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from esc_ensemble.config import FrontendConfig
from esc_ensemble.features.logmel import MelPower, power_to_db
from esc_ensemble.features.pcen import Pcen

STD_FLOOR = 1e-5


class SpectrogramFrontend(nn.Module):
    """Waveform (B, T) to standardised features (B, channels, F, L), channels as the settings name them.

    Each channel of each clip gets mean 0 and standard deviation 1, counted over the frames between the
    first and the last that hold any sound at all. Frames of padding do not count and come out as 0; only those
    that straddle the clip's edge see some of it.
    Always computed in float32, whatever autocast is on: the DFT needs the digits.
    """

    def __init__(self, config: FrontendConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.n_channels = len(config.channels)
        self.mel = MelPower(config, sample_rate)
        self.pcen = Pcen(config.pcen, config.n_mels, sample_rate / config.hop) if "pcen" in config.channels else None

    def forward(self, waveform: Tensor) -> Tensor:
        with torch.autocast(device_type=waveform.device.type, enabled=False):
            return self.from_spectrum(self.mel.spectrum(waveform.float()))

    def from_spectrum(self, spectrum: Tensor) -> Tensor:
        """Goes on from what `MelPower.spectrum` gave: (B, L, bins) -> (B, channels, F, L)."""
        with torch.autocast(device_type=spectrum.device.type, enabled=False):
            mel_power = self.mel.bands(spectrum)
            channels = [self._channel(name, mel_power) for name in self.config.channels]
            features = torch.stack(channels, dim=1)  # (B, F, L) each -> (B, channels, F, L)
            return standardise(features, sounding_frames(mel_power))

    def _channel(self, name: str, mel_power: Tensor) -> Tensor:
        if name == "logmel":
            return power_to_db(mel_power, self.config.top_db)
        assert self.pcen is not None
        return self.pcen(mel_power)


def sounding_frames(mel_power: Tensor) -> Tensor:
    """Gives 1.0 for each frame from the first to the last that is not exactly silent, else 0.0: (B, F, L) -> (B, L)."""
    loud = (mel_power.amax(dim=1) > 0).to(mel_power.dtype)
    before = loud.cumsum(dim=1)
    after = loud.sum(dim=1, keepdim=True) - before + loud
    return ((before > 0) & (after > 0)).to(mel_power.dtype)


def standardise(features: Tensor, sounding: Tensor) -> Tensor:
    """Standardises (B, channels, F, L) for each clip and channel over the frames marked in `sounding` (B, L).

    Frames that are not marked come out as 0, as does a clip without any.
    """
    mask = sounding[:, None, None, :]
    count = (mask.sum(dim=-1, keepdim=True) * features.shape[2]).clamp(min=1.0)
    mean = (features * mask).sum(dim=(2, 3), keepdim=True) / count
    centred = (features - mean) * mask
    std = (centred.square().sum(dim=(2, 3), keepdim=True) / count).sqrt()
    return centred / (std + STD_FLOOR)
