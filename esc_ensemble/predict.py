"""A model and waveforms to logits, for every time shift in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from esc_ensemble.config.kinds import ShiftMode
from esc_ensemble.memory import free_unused, is_out_of_memory
from esc_ensemble.progress import progress, stay_silent

INT16_SCALE = 1.0 / 32768.0


def to_waveform(samples: np.ndarray, device: torch.device) -> Tensor:
    """Moves int16 samples (B, T) to the device as float32 in [-1, 1]: half the bytes travel."""
    return torch.from_numpy(samples).to(device, non_blocking=True).float() * INT16_SCALE


def shift_samples(waveform: Tensor, shift: int, mode: ShiftMode = "cyclic") -> Tensor:
    """Moves waveforms (B, T) later by `shift` samples: in a circle, or with silence where nothing comes in."""
    if mode == "cyclic":
        return waveform.roll(shift, dims=1)
    moved = torch.nn.functional.pad(waveform, (max(shift, 0), max(-shift, 0)))
    return moved[:, : waveform.shape[1]] if shift > 0 else moved[:, -shift:]


def shift_waveform(
    waveform: Tensor,
    shift_seconds: Sequence[float],
    sample_rate: int,
    window_seconds: float = 0.0,
    mode: ShiftMode = "cyclic",
) -> Tensor:
    """Gives what is heard of each clip at every time shift; a positive shift is later.

    Args:
        waveform: (B, T).
        shift_seconds: S shifts.
        sample_rate: in Hz.
        window_seconds: length W of the stretch in the middle that is heard; 0 hears all.
        mode: what a shift does with what it moves over the clip's end.

    Returns:
        (S, B, W), or (S, B, T) without a window.
    """
    n_window = round(window_seconds * sample_rate)
    shifted = [shift_samples(waveform, round(shift * sample_rate), mode) for shift in shift_seconds]
    return torch.stack([middle(each, n_window) for each in shifted])


def window_starts(n_samples: int, n_window: int, shift_seconds: Sequence[float], sample_rate: int) -> list[int] | None:
    """Returns where each shift's window begins in a clip, or None where one of them goes over its end."""
    starts = [(n_samples - n_window) // 2 - round(shift * sample_rate) for shift in shift_seconds]
    return starts if n_window and all(0 <= start <= n_samples - n_window for start in starts) else None


def middle(waveform: Tensor, n_window: int) -> Tensor:
    """Gives the middle W samples of (B, T), which has no fewer; 0 gives all."""
    start = (waveform.shape[1] - n_window) // 2
    return waveform[:, start : start + n_window] if n_window else waveform


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
    window_seconds: float = 0.0,
    shift_mode: ShiftMode = "cyclic",
    batch_size: int = 16,
    title: str = "",
    read_windows: Callable[[np.ndarray, np.ndarray, int], np.ndarray] | None = None,
    n_samples: int = 0,
) -> np.ndarray:
    """Computes logits (S, N, C) float32 of the clips in `index`, in full precision.

    Args:
        model: waveform (B, T) to logits (B, C); put into eval mode.
        read_batch: clip numbers (B,) to int16 waveforms (B, T), such as `WaveformCache.batch`.
        index: clip numbers (N,).
        shift_seconds: shifts (S,) in seconds.
        sample_rate: of the waveforms, in Hz.
        n_classes: C, for the shape where there is no clip.
        device: where the model is.
        window_seconds: length of the stretch in the middle that each shift hears; 0 hears all.
        shift_mode: what a shift does with what it moves over the clip's end.
        batch_size: clips at a time; each makes S waveforms. Halved where the memory runs out.
        title: for the progress display, which only shows where it takes long; none where empty.
        read_windows: clip numbers (B,), starts (B,) and a length to int16 waveforms, such as `WaveformCache.windows`:
            of long clips only the windows are then read.
        n_samples: length T of the clips, for `read_windows`.
    """
    model.eval()
    logits = np.empty((len(shift_seconds), len(index), n_classes), dtype=np.float32)
    start = 0
    n_window = round(window_seconds * sample_rate)
    starts = window_starts(n_samples, n_window, shift_seconds, sample_rate) if read_windows else None
    display = progress(title, len(index), in_passing=True) if title else nullcontext(stay_silent)
    with display as advance:
        while start < len(index):
            clips = index[start : start + batch_size]
            if starts is not None and read_windows is not None:
                samples = np.stack([read_windows(clips, np.full(len(clips), each), n_window) for each in starts])
            else:
                samples = read_batch(clips)
            try:
                part = _all_shifts(model, samples, device, shift_seconds, sample_rate, window_seconds, shift_mode)
            except RuntimeError as error:
                if batch_size == 1 or not is_out_of_memory(error):
                    raise
                batch_size = max(1, len(clips) // 2)
                part = None
            if part is None:
                free_unused(device)
                continue
            logits[:, start : start + len(clips)] = part
            start += len(clips)
            advance(len(clips))
    return logits


def _all_shifts(model: nn.Module, samples: np.ndarray, device: torch.device, *how: Any) -> np.ndarray:
    """Logits (S, B, C) of one batch (B, T), or of its windows (S, B, W); the device is free again when it is done."""
    waveform = to_waveform(samples, device)
    shifted = waveform if waveform.ndim == 3 else shift_waveform(waveform, *how)
    n_shifts, batch, n_samples = shifted.shape
    logits = model(shifted.view(n_shifts * batch, n_samples))  # (S·B, T) -> (S·B, C)
    return np.asarray(logits.float().view(n_shifts, batch, -1).cpu().numpy())
