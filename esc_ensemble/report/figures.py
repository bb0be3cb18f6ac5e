"""Figures of the answers: scores, confusion, classes, calibration. Each is made from the evidence alone."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from esc_ensemble.report.evidence import Evidence
from esc_ensemble.report.tallies import (
    class_scores,
    confusion_counts,
    rank_confused,
    reliability,
    uncalibrated,
)
from esc_ensemble.report.theme import (
    ACCENT,
    FAINT,
    LINE,
    MUTED,
    QUIET,
    SEQUENTIAL,
    WRONG,
    axis,
    figure,
    note,
    scale,
    series,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

SOLID: dict[str, Any] = {"opacity": 1.0, "line": {"width": 0}}
"""For dots of several sizes, which plotly would make translucent."""
MOST_LABELLED = 30
"""Classes up to which each has a name at the confusion matrix and a number in its cells."""
MOST_ROWS = 40
"""Classes or pairs that a bar chart shows."""


def scores(evidence: Evidence) -> go.Figure:
    """Top-1 of each row of the table of scores with its 95 % interval; the chosen one stands out."""
    rows = evidence.scores[::-1]
    places = list(range(len(rows)))
    values = [100.0 * row["metrics"]["top1"] for row in rows]
    intervals = [row.get("top1_interval") or (row["metrics"]["top1"],) * 2 for row in rows]
    colours = [ACCENT if row["name"] == "chosen" else MUTED if row.get("cross_fitted", True) else WRONG for row in rows]
    low = min(100.0 * interval[0] for interval in intervals)
    high = max(100.0 * interval[1] for interval in intervals)
    pad = 0.04 * max(high - low, 1.0)
    drawn = figure(
        84 + 34 * len(rows),
        xaxis=axis("top-1, %", range=[low - pad, high + pad]),
        yaxis=axis(
            tickvals=places, ticktext=[short(row["title"]) for row in rows], showgrid=False, range=_around(rows)
        ),
    )
    for place, value, (low, high), colour, row in zip(places, values, intervals, colours, rows, strict=True):
        chosen = row["name"] == "chosen"
        drawn.add_scatter(
            x=[100.0 * low, 100.0 * high],
            y=[place, place],
            mode="lines",
            line={"color": colour, "width": 4 if chosen else 2},
            opacity=1.0 if chosen else 0.6,
            hoverinfo="skip",
        )
        drawn.add_scatter(
            x=[value],
            y=[place],
            mode="markers",
            marker={"color": colour, "size": 13 if chosen else 9},
            hovertemplate=f"{escape(row['title'])}<br>{value:.2f} %, 95 %: {100 * low:.2f} to {100 * high:.2f} %"
            "<extra></extra>",
        )
    return drawn


def _around(rows: list[Any]) -> list[float]:
    return [-0.6, len(rows) - 0.4]


def confusion(evidence: Evidence) -> go.Figure:
    """Rows: the true class; columns: the blend's answer; colour: share of the true class's clips.

    `customdata` of a cell is its number of clips.
    """
    counts = confusion_counts(evidence)
    sizes = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(sizes, 1)
    names = [short(name, 22) for name in evidence.class_names]
    n_classes = len(names)
    labelled = n_classes <= MOST_LABELLED
    places = list(range(n_classes))
    every = 1 if n_classes <= 2 * MOST_LABELLED else -(-n_classes // (2 * MOST_LABELLED))
    ticks = {"tickvals": places[::every], "ticktext": names[::every], "showgrid": False}
    small = {"size": 12 if labelled else 9, "color": MUTED}
    drawn = figure(
        int(np.clip(150 + 42 * n_classes, 340, 760)),
        xaxis=axis(f"{evidence.kind}'s answer", **ticks, tickangle=-45, tickfont=small, range=[-0.5, n_classes - 0.5]),
        yaxis=axis("true class", **ticks, tickfont=small, range=[n_classes - 0.5, -0.5]),
    )
    full = [escape(name) for name in evidence.class_names]
    hover = [
        [
            ""
            if not (labelled or counts[i, j])
            else f"<b>{full[i]}</b> heard as <b>{full[j]}</b><br>{plural(int(counts[i, j]), 'clip')}, "
            f"{100 * shares[i, j]:.1f} % of the class"
            for j in places
        ]
        for i in places
    ]
    drawn.add_heatmap(
        # Of very many classes empty cells are left out: they would be most of the file.
        z=np.round(shares if labelled else np.where(counts > 0, shares, np.nan), 4),
        hoverongaps=False,
        x=places,
        y=places,
        zmin=0.0,
        zmax=1.0,
        colorscale=scale(SEQUENTIAL),
        showscale=False,
        xgap=2 if labelled else 0.5,
        ygap=2 if labelled else 0.5,
        customdata=counts,
        text=[[str(count) if count else "" for count in row] for row in counts] if labelled else None,
        texttemplate="%{text}" if labelled else None,
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
    )
    return drawn


def confused_pairs(evidence: Evidence, n_pairs: int = 15) -> go.Figure:
    """The pairs of classes confused most, by number of clips."""
    pairs = rank_confused(evidence)[:n_pairs]
    if not pairs:
        return note("No clip was taken for another class.")
    names = evidence.class_names
    titles = [f"{short(names[pair.true], 18)} → {short(names[pair.predicted], 18)}" for pair in pairs]
    places = list(range(len(pairs)))
    drawn = figure(
        60 + 28 * len(pairs),
        xaxis=axis("clips", rangemode="tozero", tickformat="d", dtick=_whole_step(max(p.n_clips for p in pairs))),
        yaxis=axis(tickvals=places, ticktext=titles, showgrid=False, range=[len(pairs) - 0.4, -0.6]),
    )
    drawn.add_bar(
        x=[pair.n_clips for pair in pairs],
        y=places,
        orientation="h",
        marker={"color": WRONG},
        customdata=[[100 * pair.share, pair.n_reverse] for pair in pairs],
        hovertext=[f"{escape(names[p.true])} heard as {escape(names[p.predicted])}" for p in pairs],
        hovertemplate="%{hovertext}<br>%{x} clips, %{customdata[0]:.1f} % of the class"
        "<br>%{customdata[1]} the other way round<extra></extra>",
    )
    return drawn


def per_class(evidence: Evidence, metric: Literal["recall", "precision", "f1"] = "f1") -> go.Figure:
    """A metric of each class, the lowest first: a bar for the blend, a dot for each member."""
    known = evidence.known
    labels, n_classes = evidence.labels[known], len(evidence.class_names)
    of_blend = class_scores(labels, evidence.predicted[known], n_classes)
    order = np.lexsort((np.arange(n_classes), of_blend[metric]))
    order = order[of_blend["n_clips"][order] > 0][:MOST_ROWS]
    places = list(range(len(order)))
    drawn = figure(
        90 + 26 * len(order),
        xaxis=axis(f"{'F1' if metric == 'f1' else metric}, %", range=[0, 102]),
        yaxis=axis(
            tickvals=places,
            ticktext=[short(evidence.class_names[place], 22) for place in order],
            showgrid=False,
            range=[len(order) - 0.4, -0.6],
        ),
        showlegend=len(evidence.members) > 1,
    )
    details = np.stack([100 * of_blend[name][order] for name in ("recall", "precision", "f1")], axis=1)
    drawn.add_bar(
        x=100 * of_blend[metric][order],
        y=places,
        orientation="h",
        name=evidence.kind,
        marker={"color": ACCENT, "opacity": 0.85},
        customdata=np.column_stack([details, of_blend["n_clips"][order]]),
        hovertext=[escape(evidence.class_names[place]) for place in order],
        hovertemplate="<b>%{hovertext}</b>, %{customdata[3]:d} clips<br>recall %{customdata[0]:.1f} %"
        "<br>precision %{customdata[1]:.1f} %<br>F1 %{customdata[2]:.1f} %<extra></extra>",
    )
    if len(evidence.members) > 1:
        for number, member in enumerate(evidence.members):
            answers = evidence.member_probabilities[number, known].argmax(axis=1)
            drawn.add_scatter(
                x=100 * class_scores(labels, answers, n_classes)[metric][order],
                y=places,
                mode="markers",
                name=short(member.name),
                marker={"color": series(number + 1), "size": 9, "line": {"color": FAINT, "width": 1.5}},
                hovertemplate=f"{escape(member.name)}: %{{x:.1f}} %<extra></extra>",
            )
    return drawn


def calibration(evidence: Evidence, run: str | None = None) -> go.Figure:
    """How often the first answer was right, by how sure it was; below, how many clips that was.

    Args:
        evidence: from `load`.
        run: a member, shown before and after its temperature where its logits are there; None shows the blend.
    """
    curves: list[tuple[str, np.ndarray, str, str]] = []
    if run is None and len(evidence.members) > 1:
        curves.append((evidence.kind, evidence.probabilities, ACCENT, "solid"))
    else:
        place = 0 if run is None else evidence.member_names.index(run)
        before = uncalibrated(evidence, evidence.members[place])
        if before is not None:
            curves.append(("before calibration", before, QUIET, "dot"))
        curves.append(("calibrated", evidence.member_probabilities[place], ACCENT, "solid"))
    drawn = figure(
        400,
        xaxis=axis("how sure the first answer was, %", range=[0, 102], anchor="y2"),
        yaxis=axis("right, %", range=[-4, 104], domain=[0.3, 1.0]),
        yaxis2=axis("clips", domain=[0.0, 0.2], nticks=3),
        showlegend=len(curves) > 1,
        bargap=0.05,
        barmode="overlay",
    )
    drawn.add_scatter(
        x=[0, 100], y=[0, 100], mode="lines", line={"color": LINE, "width": 1.5}, hoverinfo="skip", showlegend=False
    )
    for name, probabilities, colour, dash in curves:
        bins = reliability(probabilities, evidence.labels)
        accuracy = 100 * bins["accuracy"]
        drawn.add_scatter(
            x=100 * bins["confidence"],
            y=accuracy,
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 1.5, "dash": dash},
            marker={"color": colour, "size": np.clip(2 * np.sqrt(bins["n_clips"]), 5, 13).round(1), **SOLID},
            error_y={
                **{"type": "data", "symmetric": False, "thickness": 1, "width": 0, "color": colour},
                **{"array": 100 * bins["high"] - accuracy, "arrayminus": accuracy - 100 * bins["low"]},
                "visible": dash == "solid",
            },
            customdata=bins["n_clips"],
            hovertemplate="%{customdata} clips, on average %{x:.1f} % sure<br>%{y:.1f} % right<extra></extra>",
        )
        if dash == "solid":
            drawn.add_bar(
                x=100 * bins["confidence"],
                y=bins["n_clips"],
                width=4,
                yaxis="y2",
                marker={"color": QUIET},
                showlegend=False,
                hovertemplate="%{y} clips<extra></extra>",
            )
    return drawn


def short(name: str, longest: int = 44) -> str:
    """Gives a name for an axis: cut where it is long, with what plotly would take for markup made harmless."""
    return escape(name if len(name) <= longest else f"{name[: longest - 1]}…")


def plural(n: int, noun: str) -> str:
    """Gives `1 clip` or `2 clips`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _whole_step(largest: int) -> int:
    """A step between ticks that shows whole numbers only, about six of them."""
    return max(1, round(largest / 6))
