"""The blend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from esc_ensemble.config.kinds import OnMachine, Positive
from esc_ensemble.settings import Settings

Method = Literal["optuna", "uniform", "greedy", "lbfgs", "logistic", "nelder-mead"]
Combiner = Literal["geometric", "arithmetic", "logits", "rank"]
Objective = Literal["log_loss", "error"]

SMOOTH: tuple[Method, ...] = ("lbfgs", "logistic")
"""Methods that follow the slope of the log loss; the error has none."""
TRYING: tuple[Method, ...] = ("optuna", "nelder-mead")
"""Methods that try as many sets of weights as `trials` says."""


class BlendConfig(Settings):
    """Everything that `esc-ens blend` can be told."""

    method: Method = "optuna"
    """How weights are found (docs/blending.md): a study, equal ones, greedy choice, descent, one a class, a simplex."""
    combiner: Literal["auto", "geometric", "arithmetic", "logits", "rank"] = "auto"
    """What is averaged: log-probabilities (geometric), probabilities, logits, or ranks; auto takes what fits best."""
    objective: Objective = "log_loss"
    """What the weights make small; weights tuned on the error hold less well on new clips."""
    trials: Positive = 300
    """Sets of weights that Optuna or Nelder-Mead tries."""
    l2: Annotated[float, Field(ge=0.0)] = 10.0
    """Pull of shifts' weights, and of classes' by logistic, to equal ones, beside the sum of the clips' log losses."""
    tta: bool = False
    """Average each member over its stored time shifts."""
    tta_weights: Literal["tuned", "equal"] = "tuned"
    """Whether shifts have weights of their own, found with the members', or count alike (equal)."""
    shifts: tuple[float, ...] = ()
    """Which of the stored shifts count with tta, in seconds, such as [-0.1, 0.0, 0.1]; all where empty."""
    member_shifts: dict[str, tuple[float, ...]] = Field(default={})
    """The same for single members, {a: [-0.1, 0.0, 0.1]}; as flags --member-shifts.a=-0.1,0,0.1 with the run's name."""
    max_ms: Annotated[float, Field(ge=0.0)] = 0.0
    """Milliseconds of one CPU thread that the blend may take for a clip; 0 sets no limit."""
    max_mb: Annotated[float, Field(ge=0.0)] = 0.0
    """Megabytes that the blend's weights may take; 0 sets no limit."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Start of the search's and the bootstrap's random numbers."""
    bootstrap: Positive = 1000
    """Resamples of the sources behind each interval."""
    storage: Annotated[str, OnMachine] = ""
    """Where workers share the studies: a journal file, or a database (postgresql://...); in memory where empty."""

    @field_validator("member_shifts", mode="before")
    @classmethod
    def _read_lists(cls, value: Any) -> Any:
        """A flag gives a list as one text: --member-shifts.a=-0.1,0,0.1."""
        if not isinstance(value, dict):
            return value
        return {name: shifts.split(",") if isinstance(shifts, str) else shifts for name, shifts in value.items()}

    @property
    def limited(self) -> bool:
        """Whether the blend has to keep within a cost."""
        return self.max_ms > 0.0 or self.max_mb > 0.0

    def conflicts(self) -> Iterator[str]:
        if self.objective == "error" and self.method in SMOOTH:
            yield f"method {self.method} follows the slope of the log loss: objective must be log_loss"
        if self.method == "logistic" and self.combiner not in ("auto", "geometric"):
            yield f"method logistic weighs log-probabilities: combiner must be geometric, not {self.combiner}"
        if self.storage and self.method != "optuna":
            yield f"storage is for Optuna's studies, which method {self.method} has none of"
        if not self.tta and (self.shifts or self.member_shifts):
            yield "shifts and member_shifts say which time shifts count: set tta"
        for name, shifts in {"shifts": self.shifts, **self.member_shifts}.items():
            if len(set(shifts)) != len(shifts):
                yield f"shifts of {name} hold a value twice" if name != "shifts" else "shifts hold a value twice"
