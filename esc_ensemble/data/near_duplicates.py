"""Clips that hold the same recording in another form: re-encoded, resampled, louder, faded or cut elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CERTAIN_SIMILARITY, MIN_SIMILARITY = 0.7, 0.4
"""From the first on, fingerprints alone decide; between the two, the waveforms do. In ESC-50, sounds that are only
alike reach 0.41 (sirens and alarms), two passages of one siren 0.65; in UrbanSound8K, looped gun shots 0.35."""
MIN_PEAK = 0.05
"""By how much the correlation of whitened waveforms peaks. In ESC-50, doubtful pairs of one recording reach 0.07 and
more, others 0.02 and less."""
PEAK_SECONDS, FADE_SECONDS = 0.005, 0.1

N_BANDS = 33
BAND_RANGE_HZ = (300.0, 7000.0)
FRAME_SECONDS, HOP_SECONDS = 0.128, 0.016
LAG = 8
"""Frames between the two that a bit compares; they do not overlap."""
WINDOW_SECONDS = 2.0
"""How much of two clips must agree."""
MIN_ACTIVE = 0.4
"""Fraction of that window in which both clips must be louder than silence."""
SILENCE_DB = 50.0
"""Below the loudest frame of a clip."""

N_NEIGHBORS = 8
"""Other clips that one hash is compared with at most; bounds the work where very many clips share it."""
HASH_ROTATIONS = (0, 8, 16, 24)
"""Each leaves out another of the four bytes of a word."""
PROBES = np.arange(-64, 65, 16)
"""Frames around a shared hash that are compared first."""
MAX_PROBE_ERROR = 0.38
BATCH_CLIPS, BLOCK_PAIRS = 16, 4096

Words = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]
_BIT_COUNTS = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)


@dataclass(frozen=True)
class NearDuplicate:
    """Two clips, by their positions, that share a recording."""

    first: int
    second: int
    similarity: float
    """Over the two seconds that agree best: 1 for equal fingerprints, about 0 for unrelated sounds."""
    offset_seconds: float
    """The sound at time t in `second` is at t + offset in `first`."""


def find_near_duplicates(
    read_batch: Callable[[Index], npt.NDArray[np.int16]],
    n_clips: int,
    sample_rate: int,
    *,
    advance: Callable[[int], None] | None = None,
) -> list[NearDuplicate]:
    """Finds pairs of clips that share about two seconds or more of one recording.

    Each frame of 128 ms becomes a word of 32 bits: whether the difference in energy of two adjacent bands rises or
    falls within 128 ms (Haitsma and Kalker, "A highly robust audio fingerprinting system", ISMIR 2002). Level,
    equalization and codecs change few of these bits; two recordings of the same kind of noise, tone or beat agree in
    about half of them. Clips with 24 equal bits in one frame are candidates, and their words are compared at the
    offset of these frames. The waveforms of doubtful pairs must also correlate at one lag, with all frequencies
    weighted equally (Knapp and Carter, "The generalized correlation method for estimation of time delay", 1976).

    Clips shorter than about 2.3 seconds are not compared. Time and memory grow linearly with the number of clips,
    apart from candidates that agree by chance. Of more than nine copies of one clip, each is paired with those next
    to it, not with all.

    Args:
        read_batch: returns the waveforms (B, T) at positions (B,).
        n_clips: number of clips, N.
        sample_rate: in Hz.
        advance: called with the number of clips after each batch.

    Returns:
        Each pair once, with `first` < `second`; the most similar first. The same input gives the same pairs.
    """
    words, active = _fingerprints(read_batch, n_clips, sample_rate, advance)
    n_window = round(WINDOW_SECONDS / HOP_SECONDS)
    if words.shape[1] < n_window:
        return []
    best: dict[tuple[int, int], tuple[float, int]] = {}
    candidates = _candidates(words, active)
    for start in range(0, len(candidates), BLOCK_PAIRS):
        block = candidates[start : start + BLOCK_PAIRS]
        similarities = _similarity(words, active, block, n_window)
        for row in np.flatnonzero(similarities >= MIN_SIMILARITY):
            first, second, offset = block[row].tolist()
            score = float(similarities[row]), offset
            best[first, second] = max(score, best.get((first, second), score))
    found = [
        NearDuplicate(*pair, similarity, offset * HOP_SECONDS)
        for pair, (similarity, offset) in best.items()
        if similarity >= CERTAIN_SIMILARITY
        or _peak(read_batch(np.array(pair)), sample_rate, offset * HOP_SECONDS) >= MIN_PEAK
    ]
    return sorted(found, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _fingerprints(
    read_batch: Callable[[Index], npt.NDArray[np.int16]],
    n_clips: int,
    sample_rate: int,
    advance: Callable[[int], None] | None,
) -> tuple[Words, Mask]:
    """Computes the words (N, L) of all clips, and which of them (N, L) describe more than silence."""
    words, active = [np.zeros((0, 0), dtype=np.uint32)], [np.zeros((0, 0), dtype=np.bool_)]
    for start in range(0, n_clips, BATCH_CLIPS):
        index = np.arange(start, min(start + BATCH_CLIPS, n_clips))
        energy, floor = _band_energies(read_batch(index), sample_rate)
        if energy.shape[1] <= LAG:
            return words[0], active[0]
        shape = np.diff(np.log(energy + floor), axis=2)  # (B, L, F) -> (B, L, F - 1)
        bits = shape[:, LAG:] > shape[:, :-LAG]
        level = energy.sum(axis=2)  # (B, L, F) -> (B, L)
        threshold = level.max(axis=1, keepdims=True) * 10.0 ** (-SILENCE_DB / 10.0)
        loud = level > np.maximum(threshold, 4.0 * N_BANDS * floor)
        words.append(np.packbits(bits, axis=2).view(np.uint32)[..., 0])  # (B, L, 32) -> (B, L)
        active.append(loud[:, LAG:] & loud[:, :-LAG])
        if advance is not None:
            advance(len(index))
    return np.concatenate(words[1:] or words), np.concatenate(active[1:] or active)


def _band_energies(waveforms: npt.NDArray[np.int16], sample_rate: int) -> tuple[npt.NDArray[np.float32], float]:
    """Computes band energies (B, L, F) of waveforms (B, T), and the energy of rounding to 16 bits in one band."""
    sums, rate = _decimated(waveforms, sample_rate)
    n_fft, hop = 2 ** round(np.log2(FRAME_SECONDS * rate)), round(HOP_SECONDS * rate)
    if sums.shape[1] < n_fft:
        return np.zeros((len(sums), 0, N_BANDS), dtype=np.float32), 0.0
    frames = np.lib.stride_tricks.sliding_window_view(sums, n_fft, axis=1)[:, ::hop]  # (B, T) -> (B, L, n_fft)
    spectrum = np.fft.rfft(frames * np.hanning(n_fft).astype(np.float32))
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)
    high = min(BAND_RANGE_HZ[1], 0.45 * rate)
    edges = np.geomspace(min(BAND_RANGE_HZ[0], high / 12.0), high, N_BANDS + 1) * n_fft / rate
    steps = np.arange(N_BANDS + 1)
    edges = np.maximum.accumulate(np.rint(edges).astype(np.int64) - steps) + steps  # at least one bin each
    return np.add.reduceat(power[..., : edges[-1]], edges[:-1], axis=2), n_fft * sample_rate / rate


def _decimated(waveforms: npt.NDArray[np.int16], sample_rate: int) -> tuple[npt.NDArray[np.float32], float]:
    """Sums neighboring samples of waveforms (B, T), down to 16 kHz or a little more, and returns that rate, too."""
    factor = max(1, sample_rate // 16_000)
    n_samples = waveforms.shape[1] // factor
    sums = np.zeros((len(waveforms), n_samples), dtype=np.float32)
    for phase in range(factor):
        sums += waveforms[:, phase : n_samples * factor : factor]
    return sums, sample_rate / factor


def _candidates(words: Words, active: Mask) -> Index:
    """Returns (pairs, 3) of first clip, second clip and offset in frames, for clips that share a hash."""
    found = [np.zeros(0, dtype=np.int64)]
    clip, frame = np.nonzero(active)
    position = clip.astype(np.uint64) << np.uint64(20) | frame.astype(np.uint64)
    twice = words[clip, frame] * np.uint64(2**32 + 1)
    for rotation in HASH_ROTATIONS:
        # 24 bits of hash, 20 of clip, 20 of frame: one sort groups equal hashes.
        keys = np.sort((twice >> np.uint64(rotation) & np.uint64(0xFFFFFF)) << np.uint64(40) | position)
        # A clip counts once for each hash, else a steady sound would fill the neighborhood with itself.
        keys = keys[np.diff(keys >> np.uint64(20), prepend=np.uint64(2**64 - 1)) != 0]
        for shift in range(1, N_NEIGHBORS + 1):
            same = np.flatnonzero(keys[shift:] >> np.uint64(40) == keys[:-shift] >> np.uint64(40))
            blocks = (same[start : start + BLOCK_PAIRS] for start in range(0, len(same), BLOCK_PAIRS))
            likely = [_probed(words, active, keys[rows], keys[rows + shift]) for rows in blocks]
            found.append(np.unique(np.concatenate([found[0], *likely])))
    packed = np.unique(np.concatenate(found))
    return np.stack([packed >> 42, packed >> 22 & 0xFFFFF, (packed & 0x3FFFFF) - (1 << 21)], axis=1)


def _probed(words: Words, active: Mask, key: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> Index:
    """Returns those pairs with equal hashes that also agree in frames around it, each packed into one number."""
    first, second = ((keys >> np.uint64(20) & np.uint64(0xFFFFF)).astype(np.int64) for keys in (key, other))
    frame, partner = ((keys & np.uint64(0xFFFFF)).astype(np.int64) for keys in (key, other))
    pairs = np.stack([first, second, frame - partner], axis=1)
    n_errors, valid = _compared(words, active, pairs, frame[:, None] + PROBES)  # (pairs, probes)
    likely = n_errors.sum(axis=1) <= MAX_PROBE_ERROR * 32.0 * valid.sum(axis=1)
    packed: Index = first << 42 | second << 22 | frame - partner + (1 << 21)
    return packed[likely]


def _similarity(words: Words, active: Mask, pairs: Index, n_window: int) -> npt.NDArray[np.float64]:
    """Returns the similarity of pairs (pairs, 3) over the window of `n_window` frames that agrees best."""
    frames = np.broadcast_to(np.arange(words.shape[1]), (len(pairs), words.shape[1]))
    n_errors, n_valid = (
        np.pad(np.cumsum(counts, axis=1, dtype=np.int64), ((0, 0), (1, 0)))  # (pairs, L) -> (pairs, L + 1)
        for counts in _compared(words, active, pairs, frames)
    )
    n_errors = n_errors[:, n_window:] - n_errors[:, :-n_window]
    n_valid = n_valid[:, n_window:] - n_valid[:, :-n_window]
    similarity = 1.0 - n_errors / (16.0 * np.maximum(n_valid, 1))
    best: npt.NDArray[np.float64] = np.where(n_valid >= MIN_ACTIVE * n_window, similarity, -1.0).max(axis=1)
    return best


def _compared(words: Words, active: Mask, pairs: Index, frames: Index) -> tuple[npt.NDArray[np.uint8], Mask]:
    """Returns how many bits differ in frames (pairs, n) of the first clips, and where both clips are active."""
    first, second, offset = pairs.T[..., None]  # (pairs, 3) -> three times (pairs, 1)
    partners, last = frames - offset, words.shape[1] - 1
    inside = (frames >= 0) & (frames <= last) & (partners >= 0) & (partners <= last)
    left, right = (first, frames.clip(0, last)), (second, partners.clip(0, last))
    valid = inside & active[left] & active[right]
    differing = words[left] ^ words[right]
    return (_BIT_COUNTS[differing & np.uint32(0xFFFF)] + _BIT_COUNTS[differing >> np.uint32(16)]) * valid, valid


def _peak(waveforms: npt.NDArray[np.int16], sample_rate: int, offset_seconds: float) -> float:
    """Returns by how much the correlation of two waveforms (2, T), whitened, peaks at one lag near an offset.

    Tones correlate at many lags, a recording with its copy at one.
    """
    sums, rate = _decimated(waveforms, sample_rate)
    n_fft = 2 ** int(np.ceil(np.log2(2 * sums.shape[1])))
    # A tone that starts abruptly clicks, and the clicks of two clips would correlate.
    fade = np.sin(np.minimum(np.arange(sums.shape[1]) / (FADE_SECONDS * rate), 1.0) * np.pi / 2.0) ** 2
    spectra = np.fft.rfft(sums * (fade * fade[::-1]).astype(np.float32), n_fft)
    frequency = np.fft.rfftfreq(n_fft, 1.0 / rate)
    size = np.abs(spectra)
    # Codecs leave noise of their own where there is next to no energy.
    spectra *= (frequency >= BAND_RANGE_HZ[0]).astype(np.float32) / (
        size + 1e-3 * size.max(axis=1, keepdims=True) + 1e-9
    )
    left, right = spectra
    lags = np.fft.irfft(left * right.conj(), n_fft) / np.sqrt(
        np.square(np.fft.irfft(left, n_fft)).sum() * np.square(np.fft.irfft(right, n_fft)).sum() + 1e-30
    )
    reach = round(LAG * HOP_SECONDS * rate)
    near = np.abs(lags[(round(offset_seconds * rate) + np.arange(-reach, reach + 1)) % n_fft])
    peak = int(near.argmax())
    beside = np.abs(np.arange(len(near)) - peak) > PEAK_SECONDS * rate
    return float(near[peak] - near[beside].max())
