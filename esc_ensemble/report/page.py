"""The page: figures, tables, clips and their data, put into one HTML file that needs nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from esc_ensemble.errors import EscError
from esc_ensemble.progress import progress
from esc_ensemble.report import figures, member_figures, texts
from esc_ensemble.report.evidence import Evidence
from esc_ensemble.report.points import draw_points, fold_points, probability_points
from esc_ensemble.report.ranking import choose_clips, ranked_unsure, ranked_wrong
from esc_ensemble.report.recordings import Recordings, find_recordings, read_facts
from esc_ensemble.report.shell import Charts, Written, write_page

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from esc_ensemble.report.clips import Hearing, Media

FILE_NAME = "report.html"
DEFAULT_CLIPS = 80
N_LISTED = 12
TOP = 3


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
        "fewer": "--clips",
    }
    n_bytes, n_embedded = write_page(path, "report", context, charts, _payload(evidence, media)), context["n_embedded"]
    return Written(path, n_bytes, n_embedded, round(time.monotonic() - start, 1), tuple(missing))


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
        "classes": list(evidence.class_names),
        "members": list(evidence.member_names),
        "clips": clips,
        "media": {str(place): content for place, content in (media.clips if media else {}).items()},
        "lists": {
            "wrong": ranked_wrong(evidence)[:N_LISTED].tolist(),
            "unsure": ranked_unsure(evidence)[:N_LISTED].tolist(),
        },
    }
