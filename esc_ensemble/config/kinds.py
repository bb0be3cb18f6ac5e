"""Kinds of values that many settings share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from esc_ensemble.settings import MACHINE

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
OnMachine = Field(json_schema_extra={MACHINE: True})
