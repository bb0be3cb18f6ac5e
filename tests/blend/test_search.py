from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import scipy.optimize

import esc_ensemble
from esc_ensemble.blend.combine import combine, log_probabilities
from esc_ensemble.blend.search import descend, loss_of_weights, search_weights
from esc_ensemble.metrics import log_loss
from tests.blend.make_logits import make_labels, make_member

N, C = 400, 5
LABELS = make_labels(N, C)


def _log_probs(*skills: float) -> np.ndarray:
    members = [make_member(LABELS, C, skill=skill, seed=seed)[0] for seed, skill in enumerate(skills)]
    return log_probabilities(np.stack(members), 1.0)


@pytest.mark.parametrize("combiner", ["geometric", "arithmetic"])
def test_fast_losses_equal_the_plain_ones(combiner):
    log_probs = _log_probs(1, 2, 3)
    weights = np.array([0.2, 0.3, 0.5])
    probabilities = combine(log_probs, weights, combiner)
    fast = loss_of_weights(log_probs, LABELS, combiner, "log_loss")(weights)
    assert fast == pytest.approx(log_loss(probabilities, LABELS), rel=1e-5)
    error = loss_of_weights(log_probs, LABELS, combiner, "error")(weights)
    assert error == (probabilities.argmax(axis=1) != LABELS).mean()


@pytest.mark.parametrize("combiner", ["geometric", "arithmetic"])
def test_descent_finds_what_scipy_finds(combiner):
    log_probs = _log_probs(1, 2, 2, 0.2)
    loss = loss_of_weights(log_probs, LABELS, combiner, "log_loss")
    reference = scipy.optimize.minimize(
        lambda weights: log_loss(combine(log_probs.astype(np.float64), weights, combiner), LABELS),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        method="SLSQP",
    )
    weights = descend(log_probs, LABELS, combiner)
    assert weights.sum() == pytest.approx(1.0)
    assert loss(weights) == pytest.approx(reference.fun, abs=1e-4)


@pytest.mark.parametrize("combiner", ["geometric", "arithmetic"])
@pytest.mark.parametrize("objective", ["log_loss", "error"])
def test_weights_lie_on_the_simplex_and_beat_the_starts(combiner, objective):
    log_probs = _log_probs(1, 1.5, 2)
    weights = search_weights(log_probs, LABELS, combiner=combiner, objective=objective, n_trials=40)
    assert (weights >= 0).all() and weights.sum() == pytest.approx(1.0)
    loss = loss_of_weights(log_probs, LABELS, combiner, objective)
    for start in [np.full(3, 1 / 3), *np.eye(3)]:
        assert loss(weights) <= loss(start)


def test_useless_member_gets_no_weight():
    rng = np.random.default_rng(9)
    useless = log_probabilities((3 * rng.standard_normal((1, N, C))).astype(np.float32), 1.0)
    weights = search_weights(np.concatenate([_log_probs(2, 2), useless]), LABELS, n_trials=60)
    assert weights[2] < 0.02
    assert weights[0] == pytest.approx(weights[1], abs=0.3)


def test_one_perfect_member_takes_all():
    perfect = log_probabilities(30 * np.eye(C, dtype=np.float32)[LABELS][None], 1.0)
    weights = search_weights(np.concatenate([perfect, _log_probs(1)]), LABELS, n_trials=20)
    np.testing.assert_allclose(weights, [1, 0], atol=1e-6)


def test_equal_members_keep_equal_weights():
    log_probs = np.repeat(_log_probs(2), 3, axis=0)
    np.testing.assert_allclose(search_weights(log_probs, LABELS, objective="error", n_trials=30), 1 / 3)


def test_search_is_seeded():
    # The error of sixty clips has many best weightings, and which is found first depends on the seed.
    log_probs = _log_probs(0.5, 0.6, 0.7, 0.8)[:, :60]
    found = [search_weights(log_probs, LABELS[:60], objective="error", n_trials=40, seed=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_unlabelled_clips_do_not_count():
    log_probs = _log_probs(1, 2)
    hidden = np.where(np.arange(N) < 200, LABELS, -1)
    found = search_weights(log_probs, hidden, n_trials=20)
    np.testing.assert_array_equal(found, search_weights(log_probs[:, :200], LABELS[:200], n_trials=20))


def test_one_member_needs_no_study(monkeypatch):
    monkeypatch.setattr(optuna, "create_study", lambda **_: pytest.fail("a study was made"))
    moved: list[int] = []
    weights = search_weights(_log_probs(1), LABELS, n_trials=50, advance=lambda n=1, note="": moved.append(n))
    assert weights.tolist() == [1.0] and sum(moved) == 50


def test_optuna_stays_silent_and_keeps_its_level(capsys):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    moved: list[int] = []
    search_weights(_log_probs(1, 2), LABELS, n_trials=15, advance=lambda n=1, note="": moved.append(n))
    out, err = capsys.readouterr()
    assert out == err == "" and sum(moved) == 15
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


PACKAGE = Path(esc_ensemble.__file__).parent
LIGHT = [
    *sorted((PACKAGE / "blend").glob("*.py")),
    *(PACKAGE / name for name in ("logits.py", "logits_rules.py", "metrics.py", "submission.py")),
]


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.name)
def test_nothing_here_names_torch(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in names} & {"torch", "torchaudio", "transformers"}


def test_importing_the_blender_loads_nothing_heavy():
    code = (
        "import sys, esc_ensemble.blend.ensemble, esc_ensemble.submission\n"
        "print([m for m in ('torch', 'pandas', 'optuna', 'scipy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
