from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest

import esc_ensemble
from esc_ensemble.blend import search
from esc_ensemble.blend.combine import Mixture
from esc_ensemble.blend.fit import fit_mixture
from esc_ensemble.blend.objective import Evidence
from esc_ensemble.blend.search import Space
from esc_ensemble.config import BlendConfig
from esc_ensemble.errors import WorkError
from tests.blend.make_logits import make_labels, make_member
from tests.blend.test_methods import LABELS, config, loss_of, pool


def test_a_point_and_its_mixture_are_the_same():
    seen = pool(1, 2, 3, n_shifts=2)
    shares = (np.array([0.3, 0.7]), np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    for tuned in (False, True):
        space = Space(seen, ("geometric", "rank"), shares, tuned=tuned)
        for weights in (np.array([0.2, 0.3, 0.5]), np.array([0.0, 0.0, 1.0]), np.full(3, 1 / 3)):
            for combiner in ("geometric", "rank"):
                wanted = Mixture(combiner, weights, shares, 0.6)
                found = space.draw(optuna.trial.FixedTrial(space.point(wanted)))
                np.testing.assert_allclose(found.weights, weights, atol=1e-6)
                assert found.combiner == combiner and found.temperature == pytest.approx(0.6)
                for own, other in zip(found.shift_weights, shares, strict=True):
                    np.testing.assert_allclose(own, other, atol=1e-6)
                # However it is computed, the loss is that of the whole formula.
                assert space.loss(found, "log_loss") == pytest.approx(loss_of(seen, wanted), rel=1e-4)


def test_six_members_of_2000_clips_within_a_thousandth_of_lbfgs():
    labels = make_labels(2000, 50)
    members = [make_member(labels, 50, skill=skill, seed=seed) for seed, skill in enumerate((2, 2.2, 1.8, 2.5, 1.5, 1))]
    seen = Evidence(members, np.ones((6, 2000)), labels)
    losses = [loss_of(seen, fit_mixture(seen, config(method=method, trials=60))) for method in ("optuna", "lbfgs")]
    assert losses[0] <= losses[1] + 1e-3


def test_equal_members_keep_equal_weights():
    one = make_member(LABELS, 5, skill=2, seed=0)
    same = Evidence([one] * 3, np.ones((3, len(LABELS))), LABELS)
    found = fit_mixture(same, config(objective="error", combiner="geometric"))
    np.testing.assert_allclose(found.weights, 1 / 3)


def test_search_is_seeded(monkeypatch):
    # The error of ninety clips has many best weightings; which is found depends on the seed if the study begins bare.
    monkeypatch.setattr(search, "beginnings", lambda *_: iter(()))
    whole = pool(0.5, 0.6, 0.7, 0.8)
    seen = Evidence([values[:, :90] for values in whole.logits], np.ones((4, 90)), LABELS[:90])
    found = [
        fit_mixture(seen, config(objective="error", combiner="geometric", seed=seed)).weights for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_one_member_needs_no_study(monkeypatch):
    monkeypatch.setattr(optuna, "create_study", lambda **_: pytest.fail("a study was made"))
    assert fit_mixture(pool(1), config()).weights.tolist() == [1.0]


def test_optuna_stays_silent_and_keeps_its_level(capsys):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    fit_mixture(pool(1, 2), config(trials=15))
    out, err = capsys.readouterr()
    assert out == err == ""
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


WORKER = """
import sys
from esc_ensemble.blend.fit import fit_mixture
from esc_ensemble.config import BlendConfig
from tests.blend.test_methods import pool
fit_mixture(pool(0.5, 1, 2), BlendConfig(trials=60, storage=sys.argv[1]), study="mix")
"""


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_workers_share_a_study(tmp_path, kind):
    place = str(tmp_path / "mix.journal") if kind == "journal" else f"sqlite:///{tmp_path / 'mix.db'}"
    root = Path(esc_ensemble.__file__).parents[1]
    command = [sys.executable, "-c", WORKER, place]
    n_workers = 2 if kind == "journal" else 1  # a file that SQLite locks is not for several
    workers = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE) for _ in range(n_workers)]
    for worker in workers:
        _, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err.decode()
    from esc_ensemble.blend.search import _storage  # noqa: PLC0415

    [summary] = optuna.get_all_study_summaries(_storage(place))
    assert summary.study_name.startswith("mix-")
    done = [t for t in optuna.load_study(study_name=summary.study_name, storage=_storage(place)).trials if t.value]
    assert 60 <= len(done) < 75  # together, not 60 each
    # A third comes when all is done: it tries nothing and finds the same.
    before = len(done)
    seen = pool(0.5, 1, 2)
    found = fit_mixture(seen, BlendConfig(trials=60, storage=place), study="mix")
    study = optuna.load_study(study_name=summary.study_name, storage=_storage(place))
    assert len([t for t in study.trials if t.value]) == before
    assert loss_of(seen, found) <= loss_of(seen, fit_mixture(seen, config(method="lbfgs"))) + 1e-4
    # Other logits are another study.
    fit_mixture(pool(0.5, 1), BlendConfig(trials=12, storage=place), study="mix")
    assert len(optuna.get_all_study_summaries(_storage(place))) == 2


@pytest.mark.parametrize("place", ["nowhere/mix.journal", "mysql://nobody@localhost/nothing", "oddbase://x"])
def test_a_storage_that_cannot_be_used_is_one_message(tmp_path, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkError, match=r"Optuna cannot use the storage .*--storage blend\.journal"):
        fit_mixture(pool(1, 2), config(storage=place))


PACKAGE = Path(esc_ensemble.__file__).parent
LIGHT = [
    *sorted((PACKAGE / "blend").glob("*.py")),
    *(PACKAGE / name for name in ("logits.py", "logits_rules.py", "metrics.py", "significance.py", "submission.py")),
]


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.name)
def test_nothing_here_names_torch(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in names} & {"torch", "torchaudio", "transformers"}


def test_importing_the_blender_loads_nothing_heavy():
    code = (
        "import json, sys, esc_ensemble.blend.ensemble, esc_ensemble.submission\n"
        "print(json.dumps([m for m in ('torch', 'pandas', 'optuna', 'scipy', 'sklearn', 'matplotlib') "
        "if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
