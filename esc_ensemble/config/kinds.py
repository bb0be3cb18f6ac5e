"""Kinds of values that many settings share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from esc_ensemble.settings import MACHINE

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
OnMachine = Field(json_schema_extra={MACHINE: True})
ShiftMode = Literal["cyclic", "zero"]
"""What a time shift does with what it moves over the clip's end: bring it in again at the other, or leave silence."""


def shift_conflicts(shift_seconds: Sequence[float]) -> Iterator[str]:
    """Gives what is wrong with time shifts: 0.0 must be among them, and none twice."""
    if 0.0 not in shift_seconds or len(set(shift_seconds)) != len(shift_seconds):
        yield f"shift_seconds {shift_seconds} must hold 0.0 and no shift twice"
