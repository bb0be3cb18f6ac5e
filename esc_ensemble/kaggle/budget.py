"""How much training fits into the seconds that are left: a clock that stops work, recipes, and the plan of a run."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from esc_ensemble.config import TrainAConfig, TrainAProConfig, TrainerConfig
from esc_ensemble.settings import build, merge

MOST_STEPS = 30_000
"""Optimiser steps of a fold beyond which a large data set gains little."""
GENTLE_STEPS = 2_400
"""Fewer steps than this cannot fit hard mixing (benchmarks/RESULTS.md: 1200 underfit, 3600 do not)."""
BLEND_SECONDS = 3.0
AGAIN_SECONDS = 10.0
"""Until a stop that was lost (inside a destructor, say) is tried again."""


class TimeIsUp(Exception):  # noqa: N818 - no error
    """The clock stopped the work."""


@dataclass(frozen=True)
class Clock:
    """Knows when all has to be done."""

    end: float
    """By `time.monotonic`."""

    @staticmethod
    def of(seconds: float) -> Clock:
        """Gives a clock that runs out in so many seconds."""
        return Clock(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds that are left; negative when there are none."""
        return self.end - time.monotonic()

    @contextmanager
    def stopping(self, reserve: float = 0.0) -> Iterator[None]:
        """Stops what is done inside when no more than `reserve` seconds are left; such blocks may be nested.

        It is stopped by a signal, which only the main thread of a Unix process gets; elsewhere nothing is stopped.

        Raises:
            TimeIsUp: from wherever the work is.
        """
        seconds = self.left - reserve
        if seconds <= 0.0:
            raise TimeIsUp
        if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGALRM, _stop)
        outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
        start = time.monotonic()
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
            if outer:
                signal.setitimer(signal.ITIMER_REAL, max(1e-3, outer - (time.monotonic() - start)), AGAIN_SECONDS)


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape of a signal handler
    raise TimeIsUp


@dataclass(frozen=True)
class Recipe:
    """A way to train a member."""

    name: str
    kind: type[TrainerConfig]
    most_epochs: int
    """As in the trainer's defaults."""
    fewest_steps: int
    """Optimiser steps of a fold; rather than fewer, folds are left out."""
    settings: dict[str, Any] = field(default_factory=dict)
    gentle: dict[str, Any] = field(default_factory=dict)
    """What changes where the training is short."""

    def again(self) -> Recipe:
        """Gives the same with another seed: a further member, where time is left."""
        return replace(self, name=f"{self.name}-1", settings=merge(self.settings, {"seed": 1}))

    def config(self, epochs: int = 1, steps: int = 0, device: str = "auto") -> TrainerConfig:
        """Gives all settings for so many epochs, in which a fold takes so many steps."""
        values = merge(self.settings, self.gentle) if steps < GENTLE_STEPS else self.settings
        built: TrainerConfig = build(
            self.kind, merge(values, {"train": {"epochs": epochs, "device": device}}), f"recipe {self.name}"
        )
        return built


# The first two are the trainers' defaults, gentler where there is less time (as configs/train-a-short.yaml); the quick
# one is the quickstart's, at less than half the cost.
A = Recipe(
    "a",
    TrainAConfig,
    most_epochs=180,
    fewest_steps=600,
    gentle={"mix": {"mixup": 1.0, "between_class": 0.0}, "train": {"ema_decay": 0.99}},
)
A_PRO = Recipe("a-pro", TrainAProConfig, most_epochs=80, fewest_steps=600, gentle={"train": {"ema_decay": 0.99}})
QUICK = Recipe(
    "quick",
    TrainAConfig,
    most_epochs=60,
    fewest_steps=200,
    settings={
        "data": {"sample_rate": 16000},
        "frontend": {"n_mels": 40, "n_fft": 512, "window": 512, "hop": 320, "f_max": 8000.0},
        "model": {"widths": [16, 32, 64, 96]},
        "train": {"learning_rate": 5e-3, "ema_decay": 0.95},
        "mix": {"mixup": 0.5, "between_class": 0.0},
        "shift_seconds": [0.0],
    },
)


@dataclass(frozen=True)
class Pace:
    """How fast a recipe is on this machine."""

    clips_per_second: float
    """Of one fold in training, with as many others beside it as train at once."""
    n_parallel: int
    """Folds at once."""
    start_seconds: float
    """Until they train."""
    hear_seconds: float
    """That one fold's model takes for all test clips."""


@dataclass(frozen=True)
class Plan:
    """What of a recipe is trained."""

    recipe: Recipe
    epochs: int
    steps: int
    """Of one fold."""
    waves: tuple[tuple[int, ...], ...]
    """Folds that are trained at once, one wave after the other."""
    wave_seconds: float
    """That the largest wave takes, its predictions included."""
    after_seconds: float
    """What of it comes after training."""

    @property
    def n_folds(self) -> int:
        """How many are trained."""
        return sum(map(len, self.waves))


def plan_run(
    recipe: Recipe, sizes: Mapping[int, int], pace: Pace, seconds: float, *, any_rate: bool = False
) -> Plan | None:
    """Gives as many folds and epochs as fit: all folds, then up to as many epochs as the trainer's default.

    Args:
        recipe: how.
        sizes: number of training clips of each fold.
        pace: how fast.
        seconds: that it may take.
        any_rate: take fewer steps than the recipe wants rather than nothing.

    Returns:
        None where the recipe does not fit.
    """
    folds = sorted(sizes)
    waves = tuple(tuple(folds[n : n + pace.n_parallel]) for n in range(0, len(folds), pace.n_parallel))
    n_clips = max(sizes.values())
    steps_an_epoch = max(1, round(n_clips / recipe.config().train.batch_size))
    most = max(1, min(recipe.most_epochs, MOST_STEPS // steps_an_epoch))
    needed = min(most, math.ceil(recipe.fewest_steps / steps_an_epoch))
    after = BLEND_SECONDS + len(waves[0]) * pace.hear_seconds
    around = pace.start_seconds + after
    for n_waves in range(len(waves), 0, -1):
        fitting = int((seconds / n_waves - around) * pace.clips_per_second / n_clips)
        epochs = min(fitting, most)
        if epochs >= needed or (n_waves == 1 and any_rate and epochs >= 1):
            wave_seconds = around + epochs * n_clips / pace.clips_per_second
            return Plan(recipe, epochs, epochs * steps_an_epoch, waves[:n_waves], wave_seconds, after)
    return None


def choose(
    recipes: Sequence[Recipe], sizes: Mapping[int, int], paces: Mapping[str, Pace], seconds: float
) -> Plan | None:
    """Gives the plan of the first recipe that fits, or of the last one as far as it goes."""
    plans = (plan_run(recipe, sizes, paces[recipe.name], seconds) for recipe in recipes)
    found = next((plan for plan in plans if plan), None)
    return found or plan_run(recipes[-1], sizes, paces[recipes[-1].name], seconds, any_rate=True)
