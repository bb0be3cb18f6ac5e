"""Random changes to training clips, and mixing of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from esc_ensemble.config.kinds import Probability
from esc_ensemble.settings import Settings


class WaveformAugmentConfig(Settings):
    """Random changes to training clips, in batches on the device."""

    roll: Probability = 1.0
    """Probability of a cyclic shift by any amount."""
    crop: Probability = 0.0
    """Probability of hearing only a part of the clip, repeated to the full length."""
    crop_min: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Shortest part kept by a crop."""
    gain: Probability = 0.5
    """Probability of a change of level."""
    gain_db: Annotated[float, Field(ge=0.0)] = 6.0
    """Largest change of level in dB, up or down."""
    noise: Probability = 0.0
    """Probability of added noise."""
    noise_snr_db: tuple[float, float] = (15.0, 40.0)
    """Range of signal-to-noise ratios in dB."""
    noise_colour: tuple[float, float] = (0.0, 2.0)
    """Range of the noise's colour c, power falling with frequency as 1/f^c: 0 is white, 1 pink, 2 brown."""
    low_pass: Probability = 0.0
    """Probability of losing all above some frequency, as old codecs and low sampling rates do."""
    low_pass_hz: Annotated[float, Field(gt=0.0)] = 6000.0
    """Lowest such frequency in Hz; the highest is half the sample rate, and octaves are equally likely."""
    polarity: Probability = 0.0
    """Probability of a change of sign; spectrograms do not hear it, save in mixes of waveforms."""
    time_scale: Probability = 0.5
    """Probability of playing faster or slower (pitch moves along)."""
    time_scale_max: Annotated[float, Field(ge=1.0, le=4.0)] = 1.25
    """Largest change of speed s; the factor is s^U(-1, 1)."""
    pitch: Probability = 0.0
    """Probability of a change of pitch at unchanged speed."""
    pitch_semitones: Annotated[float, Field(ge=0.0, le=12.0)] = 2.0
    """Largest change of pitch in semitones, up or down."""
    segment_gain: Probability = 0.0
    """Probability that a random stretch of the clip changes its level."""
    segment_gain_db: Annotated[float, Field(ge=0.0)] = 12.0
    """Largest change of level of a stretch in dB, up or down."""
    blank: Probability = 0.0
    """Probability that a random stretch of the clip is silenced."""
    blank_seconds: Annotated[float, Field(ge=0.0)] = 0.1
    """Longest silenced stretch in seconds."""

    def conflicts(self) -> Iterator[str]:
        if self.noise_snr_db[0] > self.noise_snr_db[1]:
            yield f"noise_snr_db {self.noise_snr_db} must go from low to high"
        if self.noise_colour[0] > self.noise_colour[1]:
            yield f"noise_colour {self.noise_colour} must go from low to high"


class AugmentConfig(WaveformAugmentConfig):
    """Random changes to training clips, in batches on the device; waveforms first, then spectrograms."""

    spec_probability: Probability = 0.9
    """Probability of SpecAugment for a clip."""
    time_masks: Annotated[int, Field(ge=0)] = 2
    """Number of masked stretches of time."""
    time_mask_max: Annotated[int, Field(ge=0)] = 40
    """Longest masked stretch in frames."""
    frequency_masks: Annotated[int, Field(ge=0)] = 2
    """Number of masked ranges of bands."""
    frequency_mask_max: Annotated[int, Field(ge=0)] = 8
    """Widest masked range in bands."""
    band_gain: Probability = 0.0
    """Probability of a random tilt and bend of the spectrum, as another microphone or room would make."""
    band_gain_max: Annotated[float, Field(ge=0.0)] = 0.5
    """Largest lift or cut of a band, in standard deviations of the features."""


class MixConfig(Settings):
    """Mixing of pairs of training clips. A step mixes in one way or not at all; probabilities add up to 1 at most."""

    mixup: Probability = 1.0
    """Probability that a step mixes features linearly, labels alike (Zhang 2018)."""
    mixup_alpha: Annotated[float, Field(gt=0.0)] = 0.4
    """The ratio of mixup is drawn from Beta(alpha, alpha)."""
    between_class: Probability = 0.0
    """Probability that a step mixes waveforms of two classes at a ratio of heard loudness (Tokozume 2018)."""
    cutmix: Probability = 0.0
    """Probability that a step puts a piece of another clip's spectrogram in, labels by area (Yun 2019)."""
    energy_mixup: Probability = 0.0
    """Probability that a step adds waveforms at about equal energy; both labels are then wholly true."""
    energy_mixup_db: Annotated[float, Field(ge=0.0)] = 6.0
    """Largest difference in energy of the two in dB, either way."""

    def conflicts(self) -> Iterator[str]:
        ways = ("mixup", "between_class", "cutmix", "energy_mixup")
        total = sum(getattr(self, way) for way in ways)
        if total > 1.0 + 1e-9:
            given = ", ".join(f"{way} {getattr(self, way):g}" for way in ways if getattr(self, way))
            yield f"{given} add up to {total:g}, more than 1: lower one, also where it was not you who set it"
