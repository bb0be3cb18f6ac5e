"""Figures of a data set: clips of each class and fold, durations, and a figure of each class's clips."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from esc_ensemble.report.figures import plural, short
from esc_ensemble.report.theme import ACCENT, INK, QUIET, axis, figure, note, series

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_NAMED = 80
"""Classes up to which each has a row of its own."""
N_BINS = 40


def class_counts(names: Sequence[str], folds: Sequence[str], counts: np.ndarray) -> go.Figure:
    """Clips of each class (C, K), the largest first: a bar a class, a color a fold.

    Of very many classes the bars stand side by side, without names.
    """
    order = np.argsort(-counts.sum(axis=1), kind="stable")
    places = list(range(len(order)))
    many = len(order) > MOST_NAMED
    values, room = axis("clips", rangemode="tozero", tickformat="d"), 40 if len(folds) > 1 else 0
    if many:
        rows = axis(f"{len(order)} classes, by size", showticklabels=False, showgrid=False)
        drawn = figure(380 + room, xaxis=rows, yaxis=values, barmode="stack", bargap=0.0)
    else:
        titles = [short(names[label], 24) for label in order]
        rows = axis(tickvals=places, ticktext=titles, showgrid=False, range=[len(order) - 0.4, -0.6])
        height = 90 + room + max(18, 30 - len(order) // 4) * len(order)
        drawn = figure(height, xaxis=values, yaxis=rows, barmode="stack", bargap=0.25)
    legend = {"traceorder": "normal", "y": 1.0, "yanchor": "bottom"}
    drawn.update_layout(showlegend=len(folds) > 1, legend=legend)
    for number, fold in enumerate(folds):
        sizes = counts[order, number]
        drawn.add_bar(
            x=places if many else sizes,
            y=sizes if many else places,
            orientation="v" if many else "h",
            name=escape(fold),
            marker={"color": series(number) if len(folds) > 1 else ACCENT, "line": {"width": 0}},
            hovertext=[
                f"<b>{escape(names[label])}</b><br>{escape(fold)}: {plural(int(counts[label, number]), 'clip')} of "
                f"{int(counts[label].sum())}"
                for label in order
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    return drawn


def durations(seconds: np.ndarray) -> go.Figure:
    """Histogram of the clips' lengths."""
    if np.ptp(seconds) < 0.01:
        return note(f"All clips last {seconds[0]:.3g} s.")
    sizes, edges = np.histogram(seconds, bins=min(N_BINS, max(5, len(seconds) // 5)))
    drawn = figure(
        280, xaxis=axis("seconds"), yaxis=axis("clips", type="log" if _skewed(sizes) else "linear"), bargap=0.06
    )
    drawn.add_bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=sizes,
        width=np.diff(edges) * 0.94,
        marker={"color": ACCENT},
        hovertext=[
            f"{low:.3g} to {high:.3g} s: {plural(int(size), 'clip')}"
            for low, high, size in zip(edges[:-1], edges[1:], sizes, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    return drawn


def _skewed(sizes: np.ndarray) -> bool:
    """Whether some bars could not be seen beside the highest one."""
    return bool(sizes.max() > 100 * sizes[sizes > 0].min())


def spread(names: Sequence[str], groups: Sequence[np.ndarray], title: str, unit: str) -> go.Figure:
    """A box a class: median, quartiles, and whiskers to the lowest and highest value; by median.

    Of very many classes the lowest and the highest are shown.

    Args:
        names: of the classes.
        groups: the values of the clips of each, (n,) each.
        title: of the axis.
        unit: of the values.
    """
    finite = [values[np.isfinite(values)] for values in groups]
    shown = sorted((label for label in range(len(names)) if len(finite[label])), key=lambda n: np.median(finite[n]))
    if not shown:
        return note("All clips are digital silence.")
    cut = len(shown) > MOST_NAMED
    if cut:
        shown = [*shown[: MOST_NAMED // 2], *shown[-MOST_NAMED // 2 :]]
    places = list(range(len(shown)))
    low, first, middle, third, high = (
        np.array([np.quantile(finite[label], point) for label in shown]) for point in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    pad = 0.03 * max(float(high.max() - low.min()), 1e-6)
    drawn = figure(
        100 + max(18, 34 - len(shown) // 3) * len(shown),
        xaxis=axis(
            f"{title}, {unit}" + (f" ({MOST_NAMED // 2} lowest and highest classes)" if cut else ""),
            range=[float(low.min()) - pad, float(high.max()) + pad],
        ),
        yaxis=axis(
            tickvals=places,
            ticktext=[short(names[label], 24) for label in shown],
            showgrid=False,
            range=[len(shown) - 0.4, -0.6],
        ),
    )
    whiskers = {"color": QUIET, "width": 2}
    for place in places:
        drawn.add_shape(type="line", x0=low[place], x1=high[place], y0=place, y1=place, line=whiskers, layer="below")
    drawn.add_bar(
        x=np.maximum(third - first, pad / 12),
        base=first,
        y=places,
        orientation="h",
        width=0.6,
        marker={"color": ACCENT, "opacity": 0.75},
        hovertext=[
            f"<b>{escape(names[label])}</b>, {plural(len(finite[label]), 'clip')}<br>"
            f"median {middle[place]:.4g} {unit}, "
            f"half of them {first[place]:.4g} to {third[place]:.4g}<br>all {low[place]:.4g} to {high[place]:.4g}"
            for place, label in enumerate(shown)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    drawn.add_scatter(
        x=middle,
        y=places,
        mode="markers",
        marker={"symbol": "line-ns", "size": 9, "line": {"color": INK, "width": 2}},
        hoverinfo="skip",
    )
    return drawn
