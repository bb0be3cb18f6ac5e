"""Waveforms to MFCC statistics: each coefficient's mean and standard deviation over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import librosa
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from esc_ensemble.config import MfccConfig
from esc_ensemble.cores import free_cores
from esc_ensemble.data.audio import Waveform
from esc_ensemble.data.cache import WaveformCache
from esc_ensemble.data.decoding import INT16_SCALE
from esc_ensemble.processes import can_spawn, map_chunks

CHUNK = 16
# Below this, processes of their own take longer to start than they save.
FEW_WAVEFORMS = 1000

Statistics = npt.NDArray[np.float64]


def mfcc_statistics(waveform: Waveform, sample_rate: int, frontend: MfccConfig) -> Statistics:
    """Summarises a clip by its MFCCs as librosa computes them.

    Args:
        waveform: (T,) in [-1, 1].
        sample_rate: in Hz.
        frontend: what kind of MFCCs.

    Returns:
        (2 · n_mfcc,): the means over time, then the standard deviations. Finite for silence too.
    """
    coefficients = librosa.feature.mfcc(  # (n_mfcc, L)
        y=waveform,
        sr=sample_rate,
        n_mfcc=frontend.n_mfcc,
        n_mels=frontend.n_mels,
        n_fft=frontend.n_fft,
        hop_length=frontend.hop,
    ).astype(np.float64)
    return np.concatenate([coefficients.mean(axis=1), coefficients.std(axis=1)])


def cache_statistics(
    cache: WaveformCache,
    index: npt.NDArray[np.int64],
    shift_seconds: Sequence[float],
    frontend: MfccConfig,
    *,
    n_workers: int = 0,
) -> Iterator[Statistics]:
    """Summarises clips at every cyclic time shift, in worker processes where there are many.

    Args:
        cache: the waveforms.
        index: (N,) which of them.
        shift_seconds: S shifts; a positive one is later.
        frontend: what kind of MFCCs.
        n_workers: processes; 0 takes the free cores.

    Yields:
        (S, 2 · n_mfcc), for one clip after the other.

    Raises:
        WorkError: a worker process died.
    """
    shifts = [round(seconds * cache.sample_rate) for seconds in shift_seconds]
    work = partial(chunk_statistics, shifts=shifts, sample_rate=cache.sample_rate, frontend=frontend)
    chunks = (cache.batch(index[start : start + CHUNK]) for start in range(0, len(index), CHUNK))
    n_workers = min(n_workers or free_cores(), -(-len(index) // CHUNK))
    if n_workers <= 1 or len(index) * len(shifts) < FEW_WAVEFORMS or not can_spawn():
        for chunk in chunks:
            yield from work(chunk)
    else:
        yield from map_chunks(work, chunks, n_workers, "computing MFCCs")


def chunk_statistics(
    samples: npt.NDArray[np.int16], shifts: Sequence[int], sample_rate: int, frontend: MfccConfig
) -> list[Statistics]:
    """Summarises some clips. Stands at the top of the module so that a spawned process can import it.

    Args:
        samples: (B, T) int16.
        shifts: S cyclic shifts in samples.
        sample_rate: in Hz.
        frontend: what kind of MFCCs.

    Returns:
        B arrays (S, 2 · n_mfcc).
    """
    # One thread: sums then come out the same however many there are, and workers do not crowd each other.
    with threadpool_limits(1):
        waveforms: Waveform = samples.astype(np.float32) / np.float32(INT16_SCALE)
        return [
            np.stack([mfcc_statistics(np.roll(waveform, shift), sample_rate, frontend) for shift in shifts])
            for waveform in waveforms
        ]
