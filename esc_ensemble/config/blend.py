"""The blend."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from esc_ensemble.config.kinds import Positive
from esc_ensemble.settings import Settings


class BlendConfig(Settings):
    """Everything that `esc-ens blend` can be told."""

    trials: Positive = 200
    """Sets of weights that Optuna tries."""
    objective: Literal["log_loss", "error"] = "log_loss"
    """What the weights make small; weights tuned on the error hold less well on new clips."""
    combiner: Literal["geometric", "arithmetic"] = "geometric"
    """Weighted mean of calibrated log-probabilities (geometric) or of probabilities (arithmetic)."""
    tta: bool = False
    """Average each member over its stored time shifts."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Start of the search's and the bootstrap's random numbers."""
    bootstrap: Positive = 1000
    """Resamples of the sources behind each interval."""
