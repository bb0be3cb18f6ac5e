"""The shell of every page: style, script and charts put around a template, in one HTML file that needs nothing else."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esc_ensemble import __version__
from esc_ensemble.files import write_text
from esc_ensemble.progress import say
from esc_ensemble.report.theme import DARK

if TYPE_CHECKING:
    import plotly.graph_objects as go

LARGE_BYTES = 15_000_000


@dataclass(frozen=True)
class Written:
    """What was written, and what a reader will miss in it."""

    path: Path
    n_bytes: int
    n_clips: int
    """Clips with a player."""
    seconds: float
    """How long it took to make."""
    missing: tuple[str, ...] = ()
    """What the page says is not there."""

    def to_json(self) -> dict[str, Any]:
        """Returns the same as plain values."""
        return {**vars(self), "path": str(self.path), "missing": list(self.missing)}


@dataclass
class Charts:
    """Figures by name, as JSON, and what could not be drawn."""

    figures: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, figure: go.Figure) -> str:
        """Stores a figure and returns its name."""
        self.figures[name] = safe_json(str(figure.to_json()))
        return name


def safe_json(text: str) -> str:
    """Returns equal JSON that is safe inside a script element: without tags and line separators."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def write_page(path: Path, kind: str, context: dict[str, Any], charts: Charts, payload: dict[str, Any]) -> int:
    """Writes a page atomically and returns its size in bytes.

    Args:
        path: the file.
        kind: name of its template and script.
        context: what the template shows.
        charts: figures that the template names.
        payload: what the script works with, as JSON.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - only pages need it
    from markupsafe import Markup  # noqa: PLC0415
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    folder = files("esc_ensemble.report") / "templates"
    loader = PackageLoader("esc_ensemble.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in ("shell.js", f"{kind}.js"))
    # Only what cannot hold a tag is marked as safe: our own files, plotly's, and JSON after `safe_json`.
    trusted = {
        "css": (folder / "page.css").read_text(encoding="utf-8"),
        "script": script,
        "plotly": get_plotlyjs(),
        "payload": safe_json(json.dumps({"dark": DARK, **payload}, ensure_ascii=False, allow_nan=False)),
    }
    context |= {name: Markup(text) for name, text in trusted.items()}
    context |= {"charts": {name: Markup(text) for name, text in charts.figures.items()}}
    context |= {"version": __version__, "made": time.strftime("%Y-%m-%d %H:%M")}
    write_text(path, environment.get_template(f"{kind}.html").render(context))
    n_bytes = path.stat().st_size
    if n_bytes > LARGE_BYTES and payload["media"]:
        flag = context["fewer"]
        say(f"{path} has {n_bytes / 1e6:.0f} MB, which is much to send; fewer clips make it smaller ({flag}).")
    return n_bytes
