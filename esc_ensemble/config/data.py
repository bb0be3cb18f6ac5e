"""How clips become waveforms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from esc_ensemble.config.kinds import Share
from esc_ensemble.errors import NUMBERED_PARTS
from esc_ensemble.settings import Settings

LONGEST_SECONDS = 60.0


class DataConfig(Settings):
    """How clips become waveforms of one length."""

    sample_rate: Annotated[int, Field(ge=4000, le=192000)] = 32000
    """Rate in Hz that every clip is resampled to."""
    channel: Annotated[int, Field(ge=0, le=64)] = 0
    """Channel that is taken: 0 averages all, 1 is the first (left), 2 the second; of fewer the last."""
    clip_seconds: Annotated[float, Field(gt=0.0, le=7200.0)] = 5.0
    """Length in seconds that every clip is fitted to; more than 60 for recordings of which windows are trained on."""
    window_seconds: Annotated[float, Field(ge=0.0)] = 0.0
    """Training hears a random stretch this long, each of shift_seconds one crop; 0 hears the whole clip."""
    fit: Literal["tile", "pad"] = "tile"
    """Short clips are repeated (tile) or followed by zeros (pad); long ones keep their middle."""
    trim_db: Annotated[float, Field(ge=0.0)] = 60.0
    """Silence at both ends this many dB below the clip's peak is cut before fitting; 0 keeps it."""
    selection_fraction: Share = 0.0
    """Part of the other folds, split off by source, for early stopping and temperature; 0 trains on all."""

    selection_fold: Annotated[int, Field(ge=-1)] = -1
    """Fold that selects, in the place of a fraction, as in a paper's fixed split (--fold names the test); -1: none."""
    shared_recordings: Literal["leave-out", "keep"] = "leave-out"
    """Clips of other folds whose recording is in the test fold too: leave them out of training, or train on them."""

    @field_validator("selection_fold", mode="before")
    @classmethod
    def _by_number(cls, value: Any) -> Any:
        if isinstance(value, str) and value.strip().isalpha():
            raise PydanticCustomError("by_number", f"must be a whole number: {NUMBERED_PARTS}")
        return value

    @property
    def selects(self) -> bool:
        """Whether a selection part is asked for."""
        return self.selection_fraction > 0.0 or self.selection_fold >= 0

    @property
    def heard_seconds(self) -> float:
        """How much of a clip the network hears at once."""
        return self.window_seconds or self.clip_seconds

    @property
    def n_heard(self) -> int:
        """Number of samples that the network gets at once."""
        return round(self.heard_seconds * self.sample_rate)

    def length_conflict(self, least: int, purpose: str) -> str:
        """Return what is wrong where a network gets fewer samples than it can work with, else an empty text.

        Args:
            least: number of samples that it needs.
            purpose: what for.
        """
        if self.n_heard >= least:
            return ""
        name = "window_seconds" if self.window_seconds else "clip_seconds"
        shortest = -(-least * 10_000 // self.sample_rate) / 10_000  # rounded up
        return (
            f"data.{name} {self.heard_seconds:g} ({self.n_heard} samples at data.sample_rate {self.sample_rate}) is "
            f"too short for {purpose}: set it to {shortest:g} or more"
        )

    @property
    def n_samples(self) -> int:
        """Length T of a clip in samples."""
        return round(self.clip_seconds * self.sample_rate)

    def conflicts(self) -> Iterator[str]:
        if self.heard_seconds > LONGEST_SECONDS:
            name = "window_seconds" if self.window_seconds else "clip_seconds"
            yield (
                f"{name} {self.heard_seconds:g} is more than the {LONGEST_SECONDS:g} s that a network can get at once: "
                "set data.window_seconds to train on random windows of longer clips"
            )
        if self.selection_fraction and self.selection_fold >= 0:
            yield "selection_fraction and selection_fold are two ways to select: set one of them"
        if self.n_heard < 1:
            yield f"a clip or window of {self.heard_seconds:g} seconds has no sample at sample_rate {self.sample_rate}"
        if self.window_seconds > self.clip_seconds:
            yield f"window_seconds {self.window_seconds} must not be longer than clip_seconds {self.clip_seconds}"
