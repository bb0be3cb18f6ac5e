"""The picture of what accuracy costs."""

from __future__ import annotations

from pathlib import Path

from esc_ensemble.blend.result import BlendResult
from esc_ensemble.files import atomic_path


def draw_front(path: Path, result: BlendResult) -> None:
    """Draws top-1 and log loss of the front's blends against their cost, and the chosen blend; writes a PNG.

    Args:
        path: where to.
        result: a blend whose front is known.

    Raises:
        WorkError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second that only this needs

    in_megabytes = result.config.max_mb > 0.0 and not result.config.max_ms
    costs = [point.cost.megabytes if in_megabytes else point.cost.ms for point in result.front]
    limit = result.config.max_mb if in_megabytes else result.config.max_ms
    chosen = next(row for row in result.scores if row.name == "chosen")
    own = result.cost
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    top1_axes, loss_axes = figure.subplots(1, 2)
    top1 = [point.metrics["top1"] for point in result.front]
    reach = [
        [value - point.interval[0] for value, point in zip(top1, result.front, strict=True)],
        [point.interval[1] - value for value, point in zip(top1, result.front, strict=True)],
    ]
    top1_axes.errorbar(costs, top1, yerr=reach, fmt="o-", capsize=3, color="C0")
    loss_axes.plot(costs, [point.metrics["log_loss"] for point in result.front], "o-", color="C0")
    for axes, name, title in ((top1_axes, "top1", "top-1 (95 % intervals)"), (loss_axes, "log_loss", "log loss")):
        if own is not None:
            place = own.megabytes if in_megabytes else own.ms
            axes.plot([place], [chosen.metrics[name]], "D", color="C3", label="chosen", zorder=3)
        if limit:
            axes.axvline(limit, color="0.5", linestyle="--", label="limit")
        axes.set_xscale("log")
        axes.set_xlabel("MB of weights" if in_megabytes else "ms a clip, one CPU thread")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        if own is not None or limit:
            axes.legend()
    crossed = result.members.selection is None and result.members.can_tune
    how = "cross-fitted" if crossed else "scored on the test"
    figure.suptitle(f"What accuracy costs: the best members at each cost, {how}")
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        figure.savefig(handle, format="png", dpi=130)
