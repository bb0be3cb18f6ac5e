"""What a member costs where it is used, and the file that says so: `runs/<run>/cost.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from esc_ensemble.errors import LogitsError
from esc_ensemble.files import write_json

COST_FILE = "cost.json"


@dataclass(frozen=True)
class Cost:
    """What a member costs: all its fold models together."""

    ms: float
    """Milliseconds of one CPU thread for a clip, heard once (at one shift)."""
    megabytes: float
    """Of its weights, what its fold models share counted once."""


def read_cost(run_dir: Path) -> Cost | None:
    """Gives what a run's cost.json says, or None where there is none.

    Raises:
        LogitsError: it cannot be read, or holds something else than two numbers that are not negative.
    """
    path = run_dir / COST_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cost = Cost(ms=float(content["ms"]), megabytes=float(content["megabytes"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LogitsError(
            f'{path} cannot be used ({error!r}). It must hold {{"ms": 1.5, "megabytes": 0.2}}.'
        ) from error
    if not all(math.isfinite(value) and value >= 0.0 for value in (cost.ms, cost.megabytes)):
        raise LogitsError(f"{path} must hold numbers that are not negative, found {cost.ms} ms, {cost.megabytes} MB.")
    return cost


def read_costs(run_dirs: Sequence[Path]) -> dict[Path, Cost]:
    """Gives what the runs cost, those that say so.

    Raises:
        LogitsError: a cost.json cannot be used.
    """
    costs = {run_dir: read_cost(run_dir) for run_dir in run_dirs}
    return {run_dir: cost for run_dir, cost in costs.items() if cost is not None}


def write_cost(run_dir: Path, cost: Cost) -> None:
    """Writes cost.json atomically.

    Raises:
        WorkError: it cannot be written.
    """
    write_json(run_dir / COST_FILE, {"ms": cost.ms, "megabytes": cost.megabytes})
