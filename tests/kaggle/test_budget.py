from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esc_ensemble.config import TrainAConfig, TrainAProConfig
from esc_ensemble.kaggle.budget import A_PRO, QUICK, A, Clock, Pace, TimeIsUp, choose, plan_run

SIZES = dict.fromkeys(range(1, 6), 320)  # ESC-10
PACE = Pace(clips_per_second=100.0, n_parallel=2, start_seconds=5.0, hear_seconds=1.0)


def test_with_time_enough_all_is_as_in_the_trainers() -> None:
    plan = plan_run(A, SIZES, PACE, 8 * 3600.0)
    assert plan is not None
    assert (plan.epochs, plan.waves) == (180, ((1, 2), (3, 4), (5,)))
    assert A.config(plan.epochs, plan.steps) == TrainAConfig()
    assert A_PRO.config(80, 80 * 200) == TrainAProConfig()


def test_short_trainings_mix_gently() -> None:
    config = A.config(60, 1200)
    assert config.mix.between_class == 0.0
    assert config.train.ema_decay == 0.99
    assert config.train.epochs == 60


@pytest.mark.parametrize(
    ("seconds", "name", "n_folds"),
    [(8 * 3600.0, "a", 5), (600.0, "a", 5), (240.0, "a", 4), (130.0, "a", 2), (70.0, "quick", 5), (20.0, "quick", 2)],
)
def test_less_time_costs_epochs_then_folds_then_the_network(seconds: float, name: str, n_folds: int) -> None:
    paces = {"a": PACE, "quick": replace(PACE, clips_per_second=250.0)}
    plan = choose((A, QUICK), SIZES, paces, seconds)
    assert plan is not None
    assert (plan.recipe.name, plan.n_folds) == (name, n_folds)


@given(
    seconds=st.floats(0.0, 1e5),
    speed=st.floats(1.0, 1e4),
    n_parallel=st.integers(1, 8),
    n_folds=st.integers(2, 10),
    n_clips=st.integers(5, 8000),
)
def test_a_plan_fits_or_there_is_none(
    seconds: float, speed: float, n_parallel: int, n_folds: int, n_clips: int
) -> None:
    sizes = dict.fromkeys(range(n_folds), n_clips)
    pace = Pace(speed, n_parallel, start_seconds=3.0, hear_seconds=0.5)
    plan = choose((A, QUICK), sizes, {"a": pace, "quick": pace}, seconds)
    if plan is None:
        assert seconds < 3.0 + 3.0 + 0.5 * n_parallel + n_clips / speed + 1e-6
        return
    assert plan.wave_seconds * len(plan.waves) <= seconds + 1e-6
    folds = [fold for wave in plan.waves for fold in wave]
    assert folds == sorted(set(folds))
    assert set(folds) <= set(sizes)
    assert 1 <= plan.epochs <= plan.recipe.most_epochs


def test_large_sets_need_fewer_epochs() -> None:
    plan = plan_run(A, dict.fromkeys(range(10), 7860), replace(PACE, clips_per_second=1e5), 1e6)
    assert plan is not None
    assert plan.epochs == 61


def test_another_seed_is_another_run() -> None:
    again = QUICK.again()
    assert again.name == "quick-1"
    assert again.config().seed == 1
    assert again.config().data == QUICK.config().data


def test_the_clock_stops_what_takes_too_long() -> None:
    start = time.monotonic()
    with pytest.raises(TimeIsUp), Clock.of(0.2).stopping():
        time.sleep(5.0)
    assert time.monotonic() - start < 2.0


def test_a_clock_inside_another_leaves_it_running() -> None:
    clock = Clock.of(0.5)
    start = time.monotonic()
    with pytest.raises(TimeIsUp), clock.stopping():
        with pytest.raises(TimeIsUp), clock.stopping(reserve=0.3):
            time.sleep(5.0)
        assert 0.1 < time.monotonic() - start < 0.45
        with clock.stopping(reserve=0.0):
            pass
        time.sleep(5.0)
    assert 0.45 < time.monotonic() - start < 2.0


def test_what_is_in_time_is_left_alone() -> None:
    clock = Clock.of(0.1)
    with clock.stopping():
        pass
    time.sleep(0.2)
    assert clock.left < 0.0
    with pytest.raises(TimeIsUp), clock.stopping():
        raise AssertionError("nothing is begun when no time is left")
