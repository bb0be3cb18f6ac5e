"""Ten classes of sounds, each a short rule.

A rule is called with the random stream of the source (what its clips share: pitch, tempo, timbre), the
stream of the clip (what differs: phase, moments), a number of samples and a rate in Hz, and gives (T,)
float64 of any level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float64]
Sound = Callable[[np.random.Generator, np.random.Generator, int, int], Wave]

BELL_PARTIALS = (0.5, 1.0, 1.19, 1.56, 2.0, 2.51, 2.66)


def background(rng: np.random.Generator, n_samples: int, sample_rate: int) -> Wave:
    """Gives pinkish noise of unit level, the room that every recording has."""
    return _shaped_noise(rng, n_samples, sample_rate, lambda f: (f + 50.0) ** -rng.uniform(0.3, 0.8))


def pure_tone(source: np.random.Generator, clip: np.random.Generator, n_samples: int, sample_rate: int) -> Wave:
    """A steady tone with a weak second harmonic."""
    pitch, overtone = _pitch(source, 200.0, 1800.0), source.uniform(0.0, 0.3)
    phase = 2 * np.pi * pitch * _time(n_samples, sample_rate) + clip.uniform(0, 2 * np.pi)
    return np.sin(phase) + overtone * np.sin(2 * phase)


def siren(source: np.random.Generator, clip: np.random.Generator, n_samples: int, sample_rate: int) -> Wave:
    """A tone whose pitch rises and falls slowly."""
    centre, width, rate = _pitch(source, 500.0, 1200.0), source.uniform(0.25, 0.5), source.uniform(0.3, 1.2)
    swing = np.sin(2 * np.pi * (rate * _time(n_samples, sample_rate) + clip.random()))
    phase = 2 * np.pi * np.cumsum(centre * (1.0 + width * swing)) / sample_rate
    return np.sin(phase) + 0.3 * np.sin(2 * phase)


def clock_tick(source: np.random.Generator, clip: np.random.Generator, n_samples: int, sample_rate: int) -> Wave:
    """Short clicks at even distances, every other one a little duller."""
    period, pitch = source.uniform(0.3, 0.8), _pitch(source, 1200.0, 2800.0)
    wave = np.zeros(n_samples)
    for count, start in enumerate(np.arange(clip.uniform(0, period), n_samples / sample_rate, period)):
        tick = _struck((1.0, 1.7), pitch * (0.8 if count % 2 else 1.0), 0.012, 0.06, sample_rate)
        _add(wave, tick, round(start * sample_rate))
    return wave


def noise_burst(source: np.random.Generator, clip: np.random.Generator, n_samples: int, sample_rate: int) -> Wave:
    """Bursts of broad noise at uneven moments, like something poured or swept."""
    length, per_second = source.uniform(0.12, 0.35), source.uniform(1.0, 2.0)
    wave = np.zeros(n_samples)
    n_bursts = max(1, clip.poisson(per_second * n_samples / sample_rate))
    for start in clip.uniform(0, 0.9, size=n_bursts):
        n_burst = round(length * sample_rate)
        burst = clip.standard_normal(n_burst) * np.hanning(n_burst)
        _add(wave, burst, round(start * n_samples))
    return wave


def low_rumble(source: np.random.Generator, clip: np.random.Generator, n_samples: int, sample_rate: int) -> Wave:
    """Noise below some 200 Hz that swells slowly."""
    edge, swell = source.uniform(80.0, 220.0), source.uniform(0.2, 1.0)
    wave = _shaped_noise(clip, n_samples, sample_rate, lambda f: 1.0 / (1.0 + (f / edge) ** 6))
    return wave * (1.0 + 0.6 * np.sin(2 * np.pi * (swell * _time(n_samples, sample_rate) + clip.random())))


def hiss(source: np.random.Generator, clip: np.random.Generator, n_samples: int, sample_rate: int) -> Wave:
    """Steady noise above some 2 kHz."""
    edge = source.uniform(1500.0, 2600.0)
    return _shaped_noise(clip, n_samples, sample_rate, lambda f: 1.0 / (1.0 + (edge / (f + 1.0)) ** 6))


def chirp_up(source: np.random.Generator, clip: np.random.Generator, n_samples: int, sample_rate: int) -> Wave:
    """Short rising whistles with pauses, like a bird."""
    low, ratio = _pitch(source, 900.0, 1700.0), source.uniform(1.5, 2.1)
    length, pause = source.uniform(0.12, 0.3), source.uniform(0.15, 0.5)
    n_chirp = round(length * sample_rate)
    pitch = low * ratio ** np.linspace(0.0, 1.0, n_chirp)
    chirp = np.sin(2 * np.pi * np.cumsum(pitch) / sample_rate) * np.hanning(n_chirp)
    wave = np.zeros(n_samples)
    start = clip.uniform(0.0, pause)
    while start * sample_rate < n_samples:
        _add(wave, chirp, round(start * sample_rate))
        start += length + pause * clip.uniform(0.6, 1.4)
    return wave


def alarm_beeps(source: np.random.Generator, clip: np.random.Generator, n_samples: int, sample_rate: int) -> Wave:
    """A tone switched on and off at an even pace."""
    pitch, period, duty = _pitch(source, 700.0, 2600.0), source.uniform(0.16, 0.5), source.uniform(0.35, 0.6)
    time = _time(n_samples, sample_rate) + clip.uniform(0, period)
    tone = np.sin(2 * np.pi * pitch * time) + 0.4 * np.sin(6 * np.pi * pitch * time) * (3 * pitch < sample_rate / 2)
    return tone * ((time / period) % 1.0 < duty)


def crackle(source: np.random.Generator, clip: np.random.Generator, n_samples: int, sample_rate: int) -> Wave:
    """Many tiny clicks at random moments over a soft murmur, like a fire."""
    per_second, dullness = source.uniform(12.0, 40.0), source.uniform(0.001, 0.004)
    wave = 0.02 * _shaped_noise(clip, n_samples, sample_rate, lambda f: 1.0 / (1.0 + (f / 400.0) ** 2))
    n_pop = max(8, round(6 * dullness * sample_rate))
    decay = np.exp(-np.arange(n_pop) / (dullness * sample_rate))
    for start in clip.integers(0, n_samples, size=max(1, clip.poisson(per_second * n_samples / sample_rate))):
        _add(wave, clip.exponential() * clip.standard_normal(n_pop) * decay, int(start))
    return wave


def bell(source: np.random.Generator, clip: np.random.Generator, n_samples: int, sample_rate: int) -> Wave:
    """Strokes of a bell: partials that are no harmonics, fading away."""
    pitch, period, fade = _pitch(source, 350.0, 1000.0), source.uniform(0.9, 1.8), source.uniform(0.4, 1.0)
    stroke = _struck(BELL_PARTIALS, pitch, fade, 4 * fade, sample_rate)
    wave = np.zeros(n_samples)
    start = clip.uniform(0.0, 0.3)
    while start * sample_rate < n_samples:
        _add(wave, stroke * clip.uniform(0.6, 1.0), round(start * sample_rate))
        start += period * clip.uniform(0.9, 1.1)
    return wave


SOUNDS: tuple[tuple[str, Sound], ...] = (
    ("pure_tone", pure_tone),
    ("siren", siren),
    ("clock_tick", clock_tick),
    ("noise_burst", noise_burst),
    ("low_rumble", low_rumble),
    ("hiss", hiss),
    ("chirp_up", chirp_up),
    ("alarm_beeps", alarm_beeps),
    ("crackle", crackle),
    ("bell", bell),
)
"""Name and rule of each class, in the order of the class numbers."""


def _time(n_samples: int, sample_rate: int) -> Wave:
    return np.arange(n_samples) / sample_rate


def _pitch(rng: np.random.Generator, low: float, high: float) -> float:
    """Draws a frequency in Hz, evenly over octaves as ears have it."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _shaped_noise(rng: np.random.Generator, n_samples: int, sample_rate: int, gain: Callable[[Any], Any]) -> Wave:
    """Gives Gaussian noise of unit level whose spectrum follows `gain`, a function of the frequency in Hz."""
    # The FFT of a length with a large prime factor takes many times as long.
    n_fft = -(-n_samples // 4096) * 4096
    spectrum = np.fft.rfft(rng.standard_normal(n_fft))
    shaped = np.fft.irfft(spectrum * gain(np.fft.rfftfreq(n_fft, 1.0 / sample_rate)), n_fft)[:n_samples]
    return np.asarray(shaped / np.sqrt(np.mean(shaped**2)), dtype=np.float64)


def _struck(ratios: tuple[float, ...], pitch: float, fade: float, seconds: float, sample_rate: int) -> Wave:
    """Gives fading partials at multiples of `pitch`; those above half the rate are left out."""
    time = _time(round(seconds * sample_rate), sample_rate)
    partials = [
        np.sin(2 * np.pi * ratio * pitch * time) * np.exp(-time * ratio / fade) / ratio
        for ratio in ratios
        if ratio * pitch < sample_rate / 2
    ]
    return np.asarray(np.sum(partials, axis=0), dtype=np.float64)


def _add(wave: Wave, part: Wave, start: int) -> None:
    """Adds `part` to `wave` in place; what reaches beyond the end is cut."""
    n_fit = min(part.size, wave.size - start)
    if n_fit > 0:
        wave[start : start + n_fit] += part[:n_fit]
