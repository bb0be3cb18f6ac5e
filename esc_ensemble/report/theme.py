"""The colours of every figure: a light palette, and the dark colour that stands in for each of its colours.

Figures are drawn in the light palette, which is what a notebook shows. The page swaps colours by `DARK`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

PAPER, INK, MUTED, LINE, FAINT = "#ffffff", "#1d2026", "#666b75", "#dcdedc", "#eceeec"
ACCENT, WRONG, QUIET = "#2857c4", "#c4453a", "#a9b0bb"
SERIES = ("#2b5ac6", "#d5742a", "#2a968a", "#8c50a6", "#b8921f", "#c74b50", "#5d7f3b", "#3f8fc0", "#a5677f", "#5f6b7d")
"""One for each fold or member; after the last the first comes again."""
SEQUENTIAL = ("#f6f7f8", "#d5e0f4", "#9ab5e6", "#4f7ad0", "#1d3c8a")
DIVERGING = ("#b8443b", "#e6b7b0", "#f5f5f4", "#b3c6ea", "#2a5bc7")

DARK = {
    **{PAPER: "#191c21", INK: "#e8eaee", MUTED: "#9aa1ad", LINE: "#343941", FAINT: "#262a31"},
    **{ACCENT: "#7aa5ff", WRONG: "#ff8376", QUIET: "#5d6470"},
    **dict(
        zip(
            SERIES,
            (
                *("#7ba4ff", "#f2a065", "#5fc9bb", "#c493dd", "#e0bf57"),
                *("#ff8b8b", "#a3c67c", "#7cc3ef", "#d9a0b6", "#a3afc2"),
            ),
            strict=True,
        )
    ),
    **dict(zip(SEQUENTIAL, ("#1e2228", "#233459", "#2f5099", "#5c88e6", "#c3d6ff"), strict=True)),
    **dict(zip(DIVERGING, ("#ff8074", "#7d413c", "#20242a", "#2f4678", "#79a4fd"), strict=True)),
}
"""Light colour -> its stand-in on a dark ground."""


def series(number: int) -> str:
    """Gives the colour of the fold or member at a place."""
    return SERIES[number % len(SERIES)]


def scale(colours: tuple[str, ...]) -> list[list[Any]]:
    """Gives a colour scale of even steps, as plotly wants it."""
    return [[place / (len(colours) - 1), colour] for place, colour in enumerate(colours)]


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """Gives the settings of an axis: a quiet grid, no frame."""
    return {
        "title": {"text": title, "font": {"size": 12, "color": MUTED}, "standoff": 10},
        "automargin": True,
        "gridcolor": FAINT,
        "linecolor": LINE,
        "zeroline": False,
        "tickfont": {"size": 12, "color": MUTED},
        "fixedrange": True,  # a finger that scrolls the page must not zoom a chart
        **more,
    }


def figure(height: int, **layout: Any) -> go.Figure:
    """Gives an empty figure in the page's style, `height` px tall and as wide as its place."""
    import plotly.graph_objects as go  # noqa: PLC0415 - half a second that only figures need

    defaults: dict[str, Any] = {
        "template": go.layout.Template(),
        "height": height,
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "font": {"family": FONT, "size": 13, "color": INK},
        "margin": {"l": 8, "r": 22, "t": 14, "b": 8},
        "xaxis": axis(),
        "yaxis": axis(),
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": LINE, "font": {"color": INK, "size": 13}, "align": "left"},
        "hovermode": "closest",
        "showlegend": False,
        "legend": {
            **{"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
            **{"font": {"size": 12, "color": MUTED}, "bgcolor": "rgba(0,0,0,0)"},
        },
        "bargap": 0.35,
    }
    return go.Figure(layout={**defaults, **layout})


def note(text: str, height: int = 120) -> go.Figure:
    """Gives a figure that says in words why there is nothing to draw."""
    from html import escape  # noqa: PLC0415

    hidden = {"visible": False, "fixedrange": True}
    words = {"text": escape(text), "showarrow": False, "font": {"size": 13, "color": MUTED}}
    return figure(height, xaxis=hidden, yaxis=hidden, annotations=[words])
