"""The page: figures, tables, clips and their data, put into one HTML file that needs nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from esc_ensemble import __version__
from esc_ensemble.errors import EscError
from esc_ensemble.files import write_text
from esc_ensemble.progress import progress, say
from esc_ensemble.report import figures, member_figures, texts
from esc_ensemble.report.evidence import Evidence
from esc_ensemble.report.points import draw_points, fold_points, probability_points
from esc_ensemble.report.ranking import choose_clips, ranked_unsure, ranked_wrong
from esc_ensemble.report.recordings import Recordings, find_recordings, read_facts
from esc_ensemble.report.theme import DARK

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from esc_ensemble.report.clips import Hearing, Media

FILE_NAME = "report.html"
DEFAULT_CLIPS = 80
N_LISTED = 12
LARGE_BYTES = 15_000_000
TOP = 3


@dataclass(frozen=True)
class Written:
    """What was written, and what a reader will miss in it."""

    path: Path
    n_bytes: int
    n_clips: int
    """Clips that can be heard."""
    seconds: float
    """How long it took to make."""
    missing: tuple[str, ...] = ()
    """What the page says is not there."""

    def to_json(self) -> dict[str, Any]:
        """Gives the same as plain values."""
        return {**vars(self), "path": str(self.path), "missing": list(self.missing)}


@dataclass
class Charts:
    """Figures by name, as JSON, and what could not be drawn."""

    figures: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, figure: go.Figure) -> str:
        """Keeps a figure and gives its name."""
        self.figures[name] = safe_json(str(figure.to_json()))
        return name


def write_report(
    evidence: Evidence,
    out: Path | None = None,
    *,
    n_clips: int = DEFAULT_CLIPS,
    data: Path | None = None,
    audio: bool = True,
) -> Written:
    """Writes the report of a blend or a run, atomically.

    Args:
        evidence: from `load`.
        out: the file; report.html in the evidence's folder where None.
        n_clips: clips to embed, with picture and sound: the surest wrong and the least sure right ones first.
        data: folder with the clips; where the members' manifests say where None.
        audio: whether to look for the clips at all.

    Raises:
        DataError: `data` holds none of the clips.
        ModelFileError: a fold's model is damaged.
        DiskError: the file cannot be written.
    """
    start = time.monotonic()
    path = out or evidence.folder / FILE_NAME
    recordings = (
        find_recordings(evidence, data) if audio else Recordings({}, "", "The report was made with --no-audio.")
    )
    media, hearing = _media(evidence, recordings, n_clips)
    charts = Charts()
    _add_charts(evidence, charts)
    maps = _add_maps(evidence, recordings, charts)
    facts = read_facts(recordings)
    missing = [*texts.what_is_missing(evidence), *([recordings.problem] if recordings.problem else [])]
    context = {
        **texts.page_texts(evidence, recordings, facts),
        "maps": maps,
        "calibration_options": [
            {"title": name, "chart": f"calibration-{place}"} for place, name in enumerate(evidence.member_names)
        ],
        "hearing": hearing.caption if hearing and media and media.clips else "",
        "media_problems": list(media.problems) if media else [],
        "n_embedded": len(media.clips) if media else 0,
        "missing": missing,
        "version": __version__,
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "charts": charts.figures,
        "payload": safe_json(json.dumps(_payload(evidence, media), ensure_ascii=False, allow_nan=False)),
    }
    write_text(path, _render(context))
    n_embedded, n_bytes = context["n_embedded"], path.stat().st_size
    if n_bytes > LARGE_BYTES and n_embedded:
        say(f"{path} has {n_bytes / 1e6:.0f} MB, which is much to send; fewer clips make it smaller (--clips).")
    return Written(path, n_bytes, n_embedded, round(time.monotonic() - start, 1), tuple(missing))


def safe_json(text: str) -> str:
    """Gives JSON that can stand inside a script element: no tag and no line separator in it. It parses to the same."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _render(context: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - only pages need it
    from markupsafe import Markup  # noqa: PLC0415
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    folder = files("esc_ensemble.report") / "templates"
    loader = PackageLoader("esc_ensemble.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    trusted = {
        "css": (folder / "page.css").read_text(encoding="utf-8"),
        "script": (folder / "page.js").read_text(encoding="utf-8"),
        "plotly": get_plotlyjs(),
        "payload": context["payload"],
    }
    # Only what cannot hold a tag is marked as safe: our own files, plotly's, and JSON after `safe_json`.
    charts = {name: Markup(text) for name, text in context["charts"].items()}
    return environment.get_template("report.html").render(
        context | {name: Markup(text) for name, text in trusted.items()} | {"charts": charts}
    )


def _media(evidence: Evidence, recordings: Recordings, n_clips: int) -> tuple[Media | None, Hearing | None]:
    if not recordings.paths or n_clips < 1:
        return None, None
    from esc_ensemble.report.clips import find_hearing, make_media  # noqa: PLC0415 - loads torch

    hearing = find_hearing(evidence)
    return make_media(evidence, recordings, hearing, choose_clips(evidence, n_clips, N_LISTED)), hearing


def _add_charts(evidence: Evidence, charts: Charts) -> None:
    simple: dict[str, Callable[[Evidence], go.Figure]] = {
        "scores": figures.scores,
        "confusion": figures.confusion,
        "confused_pairs": figures.confused_pairs,
        "calibration": figures.calibration,
        "weights": member_figures.weights,
        "contributions": member_figures.contributions,
        "error_correlation": member_figures.error_correlation,
        "front": member_figures.front,
    }
    for name, draw in simple.items():
        charts.add(name, draw(evidence))
    for metric in ("recall", "precision", "f1"):
        charts.add(f"per_class-{metric}", figures.per_class(evidence, metric))
    for number, member in enumerate(evidence.members):
        if member.histories:
            charts.add(f"curves-{number}", member_figures.curves(evidence, member.name))
        if len(evidence.members) > 1:
            charts.add(f"calibration-{number}", figures.calibration(evidence, member.name))


def _add_maps(evidence: Evidence, recordings: Recordings, charts: Charts) -> dict[str, Any]:
    """Draws t-SNE maps and says what each shows."""
    with progress("Map of all clips", 1, "maps", in_passing=True) as advance:
        points = probability_points(evidence)
        options = [{"title": "all folds", "chart": charts.add("embedding-all", draw_points(evidence, points))}]
        advance()
    problems = []
    member = evidence.strongest_with_models()
    if member and recordings.paths:
        for fold in member.checkpoints:
            try:
                points = fold_points(evidence, member, fold, recordings)
            except EscError as error:
                problems.append(f"Fold {fold}: {error}")
                continue
            chart = charts.add(f"embedding-{fold}", draw_points(evidence, points))
            options.append({"title": f"fold {fold}", "chart": chart})
            problems += points.unreadable
    elif not member:
        problems.append("No member has its models here, so there are no embeddings; the map shows probabilities alone.")
    else:
        problems.append("The clips cannot be heard, so there are no embeddings; the map shows probabilities alone.")
    return {"options": options, "member": member.name if member else "", "problems": problems}


def _payload(evidence: Evidence, media: Media | None) -> dict[str, Any]:
    n_top = min(TOP, len(evidence.class_names))
    order = np.argsort(-evidence.probabilities, axis=1, kind="stable")[:, :n_top]  # (N, C) -> (N, 3)
    top = np.take_along_axis(evidence.probabilities, order, axis=1)
    votes = evidence.member_probabilities.argmax(axis=2)  # (M, N)
    known = np.maximum(evidence.labels, 0)
    of_true = np.take_along_axis(evidence.probabilities, known[:, None], axis=1)[:, 0]
    clips = [
        [
            str(evidence.clip_ids[place]),
            int(evidence.folds[place]),
            int(evidence.labels[place]),
            [[int(label), round(float(value), 4)] for label, value in zip(order[place], top[place], strict=True)],
            [int(vote) for vote in votes[:, place]],
            round(float(of_true[place]), 4) if evidence.labels[place] >= 0 else None,
        ]
        for place in range(len(evidence.clip_ids))
    ]
    return {
        "dark": DARK,
        "classes": list(evidence.class_names),
        "members": list(evidence.member_names),
        "clips": clips,
        "media": {str(place): content for place, content in (media.clips if media else {}).items()},
        "lists": {
            "wrong": ranked_wrong(evidence)[:N_LISTED].tolist(),
            "unsure": ranked_unsure(evidence)[:N_LISTED].tolist(),
        },
    }
