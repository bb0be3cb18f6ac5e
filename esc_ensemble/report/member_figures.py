"""Figures of the members: how they learned, what they weigh, what they add, where they err together, what they cost."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from esc_ensemble.report.evidence import Evidence
from esc_ensemble.report.figures import short
from esc_ensemble.report.tallies import has_selection
from esc_ensemble.report.theme import (
    ACCENT,
    DIVERGING,
    INK,
    LINE,
    MUTED,
    PAPER,
    QUIET,
    axis,
    figure,
    note,
    scale,
    series,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

STACK = {"stack": True}
"""Tells the page that two charts side by side go one above the other where it is narrow."""
MOST_POINTS = 250
"""Epochs drawn of one curve; of longer ones every second, third ... is."""


def curves(evidence: Evidence, run: str | None = None) -> go.Figure:
    """Loss and top-1 by epoch, a colour a fold: thin for training, strong for the selection split where there is one.

    Args:
        evidence: from `load`.
        run: a member; the first that has histories where None.
    """
    members = [member for member in evidence.members if member.name == run or (run is None and member.histories)]
    if not members or not members[0].histories:
        return note(f"No history.csv is left of {run or 'any member'}: there are no training curves to show.")
    member = members[0]
    selects = has_selection(member)
    drawn = figure(
        330,
        xaxis=axis("epoch", domain=[0.0, 0.46], showgrid=False, rangemode="tozero"),
        yaxis=axis("loss", rangemode="tozero"),
        xaxis2=axis("epoch", domain=[0.56, 1.0], anchor="y2", showgrid=False, rangemode="tozero"),
        yaxis2=axis("top-1, %", anchor="x2", range=[0, 102]),
        showlegend=True,
        meta=STACK,
    )
    for number, (fold, history) in enumerate(sorted(member.histories.items())):
        n_epochs = len(next(iter(history.values())))
        kept = np.arange(0, n_epochs, -(-n_epochs // MOST_POINTS))
        epochs = history.get("epoch", np.arange(1.0, n_epochs + 1))[kept]
        for part in ("train", "selection"):
            strong = part == "selection" or not selects
            for place, (name, factor) in enumerate((("loss", 1.0), ("top1", 100.0))):
                values = history.get(f"{part}_{name}")
                if values is None:
                    continue
                drawn.add_scatter(
                    x=epochs,
                    y=np.round(factor * values[kept], 4),
                    name=f"fold {fold}",
                    legendgroup=f"fold {fold}",
                    showlegend=strong and place == 0,
                    mode="lines",
                    line={"color": series(number), "width": 1.6 if strong else 1, "dash": "solid" if strong else "dot"},
                    opacity=0.9 if strong else 0.6,
                    xaxis="x2" if place else "x",
                    yaxis="y2" if place else "y",
                    hovertemplate=f"fold {fold}, {part}, epoch %{{x}}: %{{y}}<extra></extra>",
                )
    return drawn


def weights(evidence: Evidence) -> go.Figure:
    """Each member's weight as a bar; a dot for each fold: the weight that was found without it."""
    members = evidence.members
    places = list(range(len(members)))
    drawn = figure(
        100 + 34 * len(members),
        xaxis=axis("weight, %", rangemode="tozero"),
        yaxis=axis(
            tickvals=places,
            ticktext=[short(member.name) for member in members],
            showgrid=False,
            range=[len(members) - 0.4, -0.6],
        ),
        showlegend=True,
        bargap=0.5,
    )
    drawn.add_bar(
        x=[100 * float(member.entry["weight"]) for member in members],
        y=places,
        orientation="h",
        name="in the blend",
        marker={"color": ACCENT},
        hovertemplate="%{x:.1f} %<extra>in the blend</extra>",
    )
    by_fold = evidence.blend.get("fold_weights") or {}
    left_out = "part" if evidence.fitted_on_selection else "fold"
    spread = np.linspace(-0.16, 0.16, max(1, len(by_fold))) if len(by_fold) > 1 else np.zeros(1)
    if by_fold:
        drawn.add_scatter(
            x=[100 * weight for row in by_fold.values() for weight in row],
            y=[place + float(offset) for offset in spread for place in places],
            mode="markers",
            name=f"found without one {left_out}",
            marker={"color": PAPER, "size": 8, "line": {"color": series(1), "width": 2}},
            customdata=[fold for fold, row in by_fold.items() for _ in row],
            hovertemplate=f"%{{x:.1f}} % without {left_out} %{{customdata}}<extra></extra>",
        )
    tuned = evidence.blend.get("tuned_weights")
    if evidence.blend.get("fallback") and tuned:
        drawn.add_scatter(
            x=[100 * weight for weight in tuned],
            y=places,
            mode="markers",
            name="tuned, not used",
            marker={"color": INK, "size": 13, "symbol": "line-ns-open", "line": {"width": 3}},
            hovertemplate="%{x:.1f} %<extra>tuned, not used</extra>",
        )
    return drawn


def contributions(evidence: Evidence) -> go.Figure:
    """What is lost where one member is left out, with 95 % intervals: log loss, and top-1 in points."""
    rows = evidence.blend.get("contributions") or []
    if not rows:
        return note(
            "One member: there is nothing to leave out."
            if len(evidence.members) == 1
            else "blend.json tells no contributions of members."
        )
    places = list(range(len(rows)))
    names: dict[str, Any] = {
        "tickvals": places,
        "ticktext": [short(row["run"]) for row in rows],
        "showgrid": False,
        "range": [len(rows) - 0.4, -0.6],
    }
    drawn = figure(
        90 + 34 * len(rows),
        xaxis=axis("log loss without it, change", domain=[0.0, 0.47], zeroline=True, zerolinecolor=MUTED),
        xaxis2=axis(
            "top-1 lost without it, points", domain=[0.53, 1.0], anchor="y2", zeroline=True, zerolinecolor=MUTED
        ),
        yaxis=axis(**names),
        yaxis2=axis(**names, anchor="x2", showticklabels=False),
        meta=STACK,
    )
    for name, factor, side, unit in (("log_loss", 1.0, "", ""), ("top1", 100.0, "2", " points")):
        values = [factor * row[name] for row in rows]
        intervals = [[factor * end for end in row.get(f"{name}_interval") or (row[name],) * 2] for row in rows]
        drawn.add_scatter(
            x=values,
            y=places,
            xaxis=f"x{side}",
            yaxis=f"y{side}",
            mode="markers",
            marker={"color": ACCENT, "size": 10},
            error_x={
                **{"type": "data", "symmetric": False, "thickness": 2, "width": 0, "color": ACCENT},
                "array": [high - value for value, (_, high) in zip(values, intervals, strict=True)],
                "arrayminus": [value - low for value, (low, _) in zip(values, intervals, strict=True)],
            },
            hovertext=[
                f"without {escape(row['run'])}: {value:+.4g}{unit}<br>95 %: {low:+.4g} to {high:+.4g}"
                for row, value, (low, high) in zip(rows, values, intervals, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    return drawn


def error_correlation(evidence: Evidence) -> go.Figure:
    """How much members err on the same clips: 1 always together, 0 by chance, below 0 where one mends the other."""
    table = evidence.blend.get("error_correlation")
    if not table or len(evidence.members) < 2:
        return note("One member: there is no other to compare its errors with.")
    values = np.array([[np.nan if cell is None else float(cell) for cell in row] for row in table])
    names = [short(member.name, 20) for member in evidence.members]
    places = list(range(len(names)))
    ticks: dict[str, Any] = {"tickvals": places, "ticktext": names, "showgrid": False}
    drawn = figure(
        int(np.clip(110 + 54 * len(names), 220, 640)),
        xaxis=axis(**ticks, tickangle=-35 if len(names) > 3 else 0),
        yaxis=axis(**ticks, range=[len(names) - 0.5, -0.5]),
    )
    drawn.add_heatmap(
        z=np.round(values, 4),
        x=places,
        y=places,
        zmin=-1.0,
        zmax=1.0,
        colorscale=scale(DIVERGING),
        showscale=False,
        xgap=2,
        ygap=2,
        text=[["–" if np.isnan(cell) else f"{cell:.2f}" for cell in row] for row in values],
        texttemplate="%{text}",
        hovertext=[[f"{a} and {b}: {values[i, j]:.3f}" for j, b in enumerate(names)] for i, a in enumerate(names)],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    return drawn


def front(evidence: Evidence) -> go.Figure:
    """Blends of fewer members or shifts: what each costs a clip, and how good it is; the chosen one stands out."""
    entries: list[dict[str, Any]] = [
        entry for entry in evidence.blend.get("front") or [] if entry.get("ms") is not None
    ]
    if not entries:
        return note("blend.json tells no costs: blend with them to see accuracy against time.")
    entries = sorted(entries, key=lambda entry: entry["ms"])
    texts = [
        "<br>".join(
            [
                *(f"{escape(m['run'])} × {len(m.get('shifts') or [0])} shifts" for m in entry["members"]),
                f"{entry['ms']:.1f} ms, {entry.get('megabytes') or float('nan'):.1f} MB a clip",
                f"top-1 {100 * entry['top1']:.2f} %, log loss {entry['log_loss']:.4f}",
            ]
        )
        for entry in entries
    ]
    drawn = figure(320, xaxis=axis("time a clip, ms (one CPU thread)", type="log"), yaxis=axis("top-1, %"))
    drawn.add_scatter(
        x=[entry["ms"] for entry in entries],
        y=[100 * entry["top1"] for entry in entries],
        mode="lines+markers",
        line={"color": LINE, "width": 2, "shape": "hv"},
        marker={"color": QUIET, "size": 9, "opacity": 1.0},
        error_y=_whiskers(entries),
        hovertext=texts,
        hovertemplate="%{hovertext}<extra></extra>",
    )
    own = evidence.blend.get("cost")
    if own:
        drawn.add_scatter(
            x=[own["ms"]],
            y=[100 * evidence.chosen["metrics"]["top1"]],
            mode="markers",
            marker={"color": ACCENT, "size": 14, "opacity": 1.0},
            hovertext=[f"this blend<br>{own['ms']:.1f} ms, {own['megabytes']:.1f} MB a clip"],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    return drawn


def _whiskers(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """95 % intervals of top-1, as plotly wants them; none where blend.json tells none."""
    ends = [entry.get("top1_interval") or (entry["top1"], entry["top1"]) for entry in entries]
    return {
        **{"type": "data", "symmetric": False, "thickness": 1.2, "width": 0, "color": QUIET},
        "array": [100 * (high - entry["top1"]) for entry, (_, high) in zip(entries, ends, strict=True)],
        "arrayminus": [100 * (entry["top1"] - low) for entry, (low, _) in zip(entries, ends, strict=True)],
    }
