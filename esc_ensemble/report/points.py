"""Clips as points: t-SNE (van der Maaten & Hinton 2008) of embeddings, or of all members' probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from esc_ensemble.errors import DataError
from esc_ensemble.progress import progress
from esc_ensemble.report.evidence import Evidence, MemberEvidence
from esc_ensemble.report.figures import short
from esc_ensemble.report.recordings import Recordings, find_recordings, hear
from esc_ensemble.report.theme import INK, WRONG, axis, figure, note, series

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_CLIPS = 2000
FEWEST_CLIPS = 4
BATCH = 8
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
FLOOR = 1e-6
"""Probabilities below this count as equal: the map shall show what is likely, not how unlikely the rest is."""


@dataclass(frozen=True, eq=False)
class Points:
    """Clips in the plane."""

    places: np.ndarray
    """(n,) places of the clips in the evidence."""
    xy: np.ndarray
    """(n, 2)."""
    unreadable: tuple[str, ...] = ()


def embedding(evidence: Evidence, fold: int | None = None, *, recordings: Recordings | None = None) -> go.Figure:
    """Each clip as a point near those that are heard alike; colour: its class; ringed: a wrong answer.

    Args:
        evidence: from `load`.
        fold: embeddings of this fold's clips by the model that held it out, of the strongest member that has models.
            Models of different folds have different embedding spaces, so None shows all clips by the members'
            calibrated log-probabilities instead, which mean the same in every fold.
        recordings: where the audio is, for a fold; looked for where None.

    Raises:
        DataError: a fold is asked for, but there are no models, or no audio of its clips.
        ModelFileError: its model cannot be read.
    """
    if fold is None:
        points = probability_points(evidence)
    else:
        member = evidence.strongest_with_models()
        if member is None or fold not in member.checkpoints:
            raise DataError(f"No member has a model of fold {fold}; without a fold the probabilities are shown.")
        points = fold_points(evidence, member, fold, recordings or find_recordings(evidence))
    return draw_points(evidence, points)


def probability_points(evidence: Evidence) -> Points:
    """Places clips by the calibrated log-probabilities of all members; of very many clips, an even choice."""
    places = np.arange(len(evidence.clip_ids))
    if len(places) > MOST_CLIPS:
        places = np.sort(np.random.default_rng(0).choice(places, MOST_CLIPS, replace=False))
    log_probs = np.log(np.maximum(evidence.member_probabilities[:, places], FLOOR))  # (M, n, C)
    return Points(places, tsne(np.concatenate(list(log_probs), axis=1)))  # (n, M·C)


def fold_points(evidence: Evidence, member: MemberEvidence, fold: int, recordings: Recordings) -> Points:
    """Places a fold's clips by their embeddings, from the model that held the fold out.

    Raises:
        DataError: none of its clips can be heard.
        ModelFileError: the model cannot be read.
    """
    places = np.array(
        [
            place
            for place in np.flatnonzero(evidence.folds == fold)
            if str(evidence.clip_ids[place]) in recordings.paths
        ],
        dtype=np.int64,
    )[:MOST_CLIPS]
    places, embeddings, unreadable = _embed(evidence, member, fold, recordings, places)
    if not len(places):
        raise DataError(f"No clip of fold {fold} can be heard. {recordings.problem}".strip())
    return Points(places, tsne(embeddings), unreadable)


def _embed(
    evidence: Evidence, member: MemberEvidence, fold: int, recordings: Recordings, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Places that could be heard, their embeddings (n, D), and messages about the others."""
    import torch  # noqa: PLC0415 - seconds that figures without models do not need

    from esc_ensemble.models.checkpoint import load_checkpoint  # noqa: PLC0415

    model, spec = load_checkpoint(member.folder / f"fold-{fold}")
    kept, waveforms, parts, problems = [], [], [], []
    with progress(f"Embeddings, fold {fold}", len(places), in_passing=True) as advance, torch.inference_mode():
        for number, place in enumerate(places):
            try:
                waveforms.append(hear(recordings.paths[str(evidence.clip_ids[place])], spec.data).waveform)
                kept.append(place)
            except DataError as error:
                problems.append(str(error))
            if waveforms and (len(waveforms) == BATCH or number == len(places) - 1):
                heard = torch.from_numpy(np.stack(waveforms))  # (B, T)
                parts.append(model.forward_features(model.frontend(heard)).float().numpy())
                waveforms = []
            advance()
    embeddings = np.concatenate(parts) if parts else np.empty((0, model.embedding_size), dtype=np.float32)
    return np.array(kept, dtype=np.int64), embeddings, tuple(problems)


def tsne(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Gives scikit-learn's t-SNE of (n, D), with a perplexity that fits few points: (n, 2).

    Fewer than `FEWEST_CLIPS` points, or points that are all the same, have no neighbourhoods: they lie on a line.
    """
    n = len(features)
    if n < FEWEST_CLIPS or np.ptp(features, axis=0).max() < FLOOR:
        return np.stack([np.arange(n, dtype=np.float64), np.zeros(n)], axis=1)
    from sklearn.manifold import TSNE  # noqa: PLC0415 - a second that only this needs

    perplexity = float(min(30.0, max(1.0, (n - 1) / 3)))
    scaled = features - features.mean(axis=0)
    scaled = scaled / (scaled.std() + 1e-12)
    return np.asarray(
        TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(scaled.astype(np.float32))
    )


def draw_points(evidence: Evidence, points: Points) -> go.Figure:
    """Draws clips in the plane; `customdata` of a point is the clip's place."""
    if not len(points.places):
        return note("There is no clip to show.")
    labels = evidence.labels[points.places]
    hidden = axis(showgrid=False, showticklabels=False, showline=False)
    drawn = figure(520, xaxis=hidden, yaxis={**hidden, "scaleanchor": None}, showlegend=len(set(labels.tolist())) <= 20)
    names = [*evidence.class_names, "no label"]
    predicted, sure = evidence.predicted[points.places], evidence.probabilities[points.places].max(axis=1)
    for label in sorted(set(labels.tolist()), key=lambda value: (value < 0, value)):
        inside = np.flatnonzero(labels == label)
        wrong = (predicted[inside] != label) & (label >= 0)
        drawn.add_scatter(
            x=np.round(points.xy[inside, 0], 3),
            y=np.round(points.xy[inside, 1], 3),
            mode="markers",
            name=short(names[label], 20),
            marker={
                "color": series(label) if label >= 0 else INK,
                "symbol": SYMBOLS[(label // 10) % len(SYMBOLS)] if label >= 0 else "circle-open",
                "size": [11 if bad else 8 for bad in wrong],
                "opacity": 0.85,
                "line": {"color": WRONG, "width": [2.5 if bad else 0 for bad in wrong]},
            },
            customdata=points.places[inside],
            hovertext=[
                f"<b>{escape(str(evidence.clip_ids[points.places[at]]))}</b><br>{escape(names[label])}, "
                f"heard as {escape(names[predicted[at]])} ({100 * sure[at]:.0f} %)"
                for at in inside
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    return drawn
