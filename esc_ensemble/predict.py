"""A model and waveforms to logits, for every time shift in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

INT16_SCALE = 1.0 / 32768.0


def to_waveform(samples: np.ndarray, device: torch.device) -> Tensor:
    """Moves int16 samples (B, T) to the device as float32 in [-1, 1]: half the bytes travel."""
    return torch.from_numpy(samples).to(device, non_blocking=True).float() * INT16_SCALE


def shift_waveform(waveform: Tensor, shift_seconds: Sequence[float], sample_rate: int) -> Tensor:
    """Gives every cyclic time shift of each clip: (B, T) -> (S, B, T); a positive shift is later."""
    return torch.stack([waveform.roll(round(shift * sample_rate), dims=1) for shift in shift_seconds])


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    read_batch: Callable[[np.ndarray], np.ndarray],
    index: np.ndarray,
    shift_seconds: Sequence[float],
    *,
    sample_rate: int,
    n_classes: int,
    device: torch.device,
    batch_size: int = 16,
) -> np.ndarray:
    """Computes logits (S, N, C) float32 of the clips in `index`, in full precision.

    Args:
        model: waveform (B, T) to logits (B, C); put into eval mode.
        read_batch: clip numbers (B,) to int16 waveforms (B, T), such as `WaveformCache.batch`.
        index: clip numbers (N,).
        shift_seconds: cyclic shifts (S,) in seconds.
        sample_rate: of the waveforms, in Hz.
        n_classes: C, for the shape where there is no clip.
        device: where the model is.
        batch_size: clips at a time; each makes S waveforms.
    """
    model.eval()
    logits = np.empty((len(shift_seconds), len(index), n_classes), dtype=np.float32)
    for start in range(0, len(index), batch_size):
        chosen = index[start : start + batch_size]
        shifted = shift_waveform(to_waveform(read_batch(chosen), device), shift_seconds, sample_rate)
        n_shifts, batch, n_samples = shifted.shape
        part = model(shifted.view(n_shifts * batch, n_samples))  # (S·B, T) -> (S·B, C)
        logits[:, start : start + batch] = part.float().view(n_shifts, batch, -1).cpu().numpy()
    return logits
