from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

from esc_ensemble import report
from esc_ensemble.errors import DataError
from esc_ensemble.models.checkpoint import load_checkpoint
from esc_ensemble.report import Evidence, load
from esc_ensemble.report.points import _embed, fold_points, probability_points, tsne
from esc_ensemble.report.recordings import Recordings, find_recordings, hear
from tests.conftest import Made


def test_groups_stay_groups_and_the_seed_is_fixed() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 20)
    features = rng.normal(size=(60, 8)) + 12 * np.eye(8)[groups]
    placed = tsne(features)
    assert silhouette_score(placed, groups) > 0.5
    np.testing.assert_array_equal(placed, tsne(features))


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 9])
def test_few_points_are_placed_too(n: int) -> None:
    placed = tsne(np.random.default_rng(0).normal(size=(n, 5)))
    assert placed.shape == (n, 2) and np.isfinite(placed).all()


def test_points_that_are_all_the_same_are_placed_too() -> None:
    assert np.isfinite(tsne(np.ones((12, 5)))).all()


def test_embeddings_are_the_models_own(made: Made) -> None:
    evidence = load(made.runs[0])
    recordings = find_recordings(evidence)
    places = np.flatnonzero(evidence.folds == 2)[:3]
    kept, embeddings, problems = _embed(evidence, evidence.members[0], 2, recordings, places)
    model, spec = load_checkpoint(made.runs[0] / "fold-2")
    heard = np.stack([hear(recordings.paths[str(evidence.clip_ids[place])], spec.data).waveform for place in places])
    with torch.inference_mode():
        expected = model.forward_features(model.frontend(torch.from_numpy(heard))).numpy()
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    assert kept.tolist() == places.tolist() and not problems


def test_a_folds_points_are_its_clips(made: Made) -> None:
    evidence = load(made.runs[0])
    points = fold_points(evidence, evidence.members[0], 1, find_recordings(evidence))
    assert set(evidence.folds[points.places]) == {1}
    assert len(points.places) == (evidence.folds == 1).sum()
    assert len(report.embedding(evidence, 1).data) == len(set(evidence.labels[points.places]))


def test_a_fold_without_models_or_audio_is_refused(made: Made, evidence: Evidence) -> None:
    with pytest.raises(DataError, match="No member has a model of fold 1"):
        report.embedding(evidence, 1)
    with pytest.raises(DataError, match="No clip of fold 1 can be heard"):
        report.embedding(load(made.runs[0]), 1, recordings=Recordings({}))


def test_very_many_clips_are_thinned_out(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esc_ensemble.report.points.MOST_CLIPS", 20)
    points = probability_points(evidence)
    assert len(points.places) == 20 == len(set(points.places.tolist()))
