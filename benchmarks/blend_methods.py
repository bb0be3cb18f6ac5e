"""Which method and combiner blends best: cross-fitted scores of every one on the same runs, as Markdown tables.

Nothing is trained: runs are given by their logits, such as those of ESC-10 in `benchmarks/esc10-logits`. Each row fits
weights, shifts and temperatures anew in each fold, without it. Gains are paired with the best member, clip by clip,
with 95 % bootstrap intervals over recordings. Which row is best was not known beforehand, so the best one's score is a
little too good: rows within each other's intervals are as good as each other.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from esc_ensemble.blend.combine import COMBINERS
from esc_ensemble.blend.crossfit import OofLogits, cross_fit, cross_fit_members, oof_logits
from esc_ensemble.blend.members import MemberLogits, align_members
from esc_ensemble.config import BlendConfig
from esc_ensemble.logits import read_run
from esc_ensemble.metrics import clip_losses, score, top1_interval
from esc_ensemble.significance import compare_predictions

N_DRAWS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--trials", type=int, default=300)
    arguments = parser.parse_args()
    members = align_members([read_run(run) for run in arguments.runs])
    print(table(members, arguments.trials))


def table(members: MemberLogits, trials: int) -> str:
    """Scores members, every method with the combiner it chooses, and every combiner with L-BFGS and equal weights."""
    oof = oof_logits(members, BlendConfig(tta=True))
    alone = np.exp(cross_fit_members(oof))
    losses = [clip_losses(own, members.labels).mean() for own in alone]
    best = alone[int(np.argmin(losses))]
    lines = [
        "| blend | top-1 | interval | log loss | ECE | points over the best | log loss over it | McNemar p | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, own in zip(members.names, alone, strict=True):
        lines.append(row(f"{name} alone", own, best, members, None))
    for name, config in settings(trials):
        start = time.perf_counter()
        blended = cross_fit(own_shifts(members, config, oof), config).probabilities
        lines.append(row(name, blended, best, members, time.perf_counter() - start))
    return "\n".join(lines)


def settings(trials: int) -> Iterator[tuple[str, BlendConfig]]:
    """Gives the rows: each method with all that it may choose, each combiner, and shifts alike or not at all."""
    base = BlendConfig(tta=True, trials=trials)
    for method in ("optuna", "uniform", "greedy", "lbfgs", "logistic", "nelder-mead"):
        yield f"{method}", base.model_copy(update={"method": method})
    yield "optuna on the error", base.model_copy(update={"objective": "error"})
    for combiner in COMBINERS:
        for method in ("lbfgs", "uniform"):
            yield f"{method}, {combiner}", base.model_copy(update={"method": method, "combiner": combiner})
    yield "lbfgs, equal shifts", base.model_copy(update={"method": "lbfgs", "tta_weights": "equal"})
    yield "lbfgs, no shifts", base.model_copy(update={"method": "lbfgs", "tta": False})


def own_shifts(members: MemberLogits, config: BlendConfig, with_shifts: OofLogits) -> OofLogits:
    """Gives the logits that a row sees."""
    return with_shifts if config.tta else oof_logits(members, config)


def row(name: str, found: np.ndarray, best: np.ndarray, members: MemberLogits, seconds: float | None) -> str:
    """Gives one line of the table."""
    metrics = score(found, members.labels)
    low, high = top1_interval(found, members.labels, members.sources, N_DRAWS)
    against = compare_predictions(found, best, members.labels, members.sources, n_draws=N_DRAWS)
    gain, change = (100 * np.array(against.top1_interval), against.log_loss_interval)
    cells = [
        name,
        f"{metrics['top1']:.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{metrics['log_loss']:.4f}",
        f"{metrics['ece']:.4f}",
        *(
            [""] * 3
            if name.endswith(" alone") and not against.only_first_right + against.only_second_right
            else [
                f"{100 * against.top1:+.2f} ({gain[0]:+.2f} to {gain[1]:+.2f})",
                f"{against.log_loss:+.4f} ({change[0]:+.4f} to {change[1]:+.4f})",
                f"{against.mcnemar_p:.3f}",
            ]
        ),
        "" if seconds is None else f"{seconds:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
