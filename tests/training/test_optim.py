from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim.swa_utils import AveragedModel

from esc_ensemble.config import TrainConfig
from esc_ensemble.models.base import ParameterGroup
from esc_ensemble.training.optim import (
    AveragedWeights,
    build_optimizer,
    learning_rate_factor,
    set_learning_rate,
)


def config(**values: Any) -> TrainConfig:
    return TrainConfig(**{"schedule": "onecycle", "warmup": 0.2} | values)


def groups_of(model: torch.nn.Module, rate: float = 3e-3) -> list[ParameterGroup]:
    return [ParameterGroup("all", list(model.parameters()), rate)]


def torch_one_cycle(n_steps: int, warmup: float, peak: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=peak, total_steps=n_steps, pct_start=warmup, cycle_momentum=False
    )
    rates = []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@given(st.integers(2, 120), st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.9]))
@settings(max_examples=40, deadline=None)
def test_onecycle_is_torchs_step_for_step(n_steps: int, warmup: float) -> None:
    assume(warmup * n_steps != 1.0)  # torch divides by 0 there
    found = [3e-3 * learning_rate_factor(config(warmup=warmup), step, n_steps) for step in range(n_steps)]
    assert found == pytest.approx(torch_one_cycle(n_steps, warmup, 3e-3), rel=1e-6, abs=1e-15)


def test_cosine_rises_in_a_line_then_falls_like_torchs() -> None:
    n_steps, rise = 100, 20
    found = [learning_rate_factor(config(schedule="cosine", warmup=0.2), step, n_steps) for step in range(n_steps)]
    assert found[:rise] == pytest.approx([(step + 1) / (rise + 1) for step in range(rise)])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=n_steps - rise)
    expected = []
    for _ in range(n_steps - rise):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found[rise:] == pytest.approx(expected, abs=1e-9)
    assert max(found) == found[rise] == 1.0


@given(st.sampled_from(["onecycle", "cosine", "constant", "plateau"]), st.floats(0, 0.99), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_the_rate_lies_between_0_and_its_peak(schedule: str, warmup: float, n_steps: int) -> None:
    settings = config(schedule=schedule, warmup=warmup)
    assert all(0.0 <= learning_rate_factor(settings, step, n_steps) <= 1.0 for step in range(n_steps))


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_constant_and_plateau_stay(schedule: str) -> None:
    assert {learning_rate_factor(config(schedule=schedule), step, 10) for step in range(10)} == {1.0}


def test_every_group_gets_the_rate_times_the_plateaus_factor() -> None:
    settings = config(schedule="constant", learning_rate=0.01)
    groups = [*groups_of(torch.nn.Linear(3, 2), 0.01), *groups_of(torch.nn.Linear(2, 2, bias=False), 0.1)]
    optimizer, peaks = build_optimizer(groups, settings)
    assert peaks == [0.01, 0.01, 0.1]
    set_learning_rate(optimizer, peaks, settings, step=3, steps_per_epoch=10, plateau_factor=0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0025, 0.0025, 0.025]


def test_weight_decay_is_for_matrices_and_kernels_alone() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    groups = build_optimizer(groups_of(model), config(weight_decay=0.3))[0].param_groups
    assert {group["weight_decay"]: len(group["params"]) for group in groups} == {0.3: 2, 0.0: 4}
    assert all((p.ndim > 1) == (group["weight_decay"] > 0) for group in groups for p in group["params"])


def test_a_model_without_vectors_has_one_group() -> None:
    assert len(build_optimizer(groups_of(torch.nn.Linear(3, 2, bias=False)), config())[0].param_groups) == 1


def set_weights(model: torch.nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_averaged_weights_follow_a_worked_case() -> None:
    model = torch.nn.Linear(1, 1)
    set_weights(model, 0.0)
    average = AveragedWeights(model.state_dict(), decay=0.15)
    for value in (10.0, 20.0):
        set_weights(model, value)
        average.update(model.state_dict())
    # Decays (1 + 0)/(10 + 0) = 0.1, then min(0.15, 2/11) = 0.15: 0.9·10 = 9, then 0.15·9 + 0.85·20.
    assert average.weights["weight"].item() == pytest.approx(18.35)
    assert average.weights["bias"].item() == pytest.approx(18.35)


def test_averaged_weights_with_decay_0_are_the_last() -> None:
    model = torch.nn.Linear(3, 2)
    average = AveragedWeights(model.state_dict(), decay=0.0)
    for _ in range(3):
        torch.nn.init.normal_(model.weight)
        average.update(model.state_dict())
    assert torch.equal(average.weights["weight"], model.weight)


def test_averaged_weights_average_running_statistics_and_copy_counts() -> None:
    model = torch.nn.BatchNorm1d(2)
    average = AveragedWeights(model.state_dict(), decay=0.5)
    model(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))  # running mean 0.1 · (2, 3)
    average.update(model.state_dict())
    torch.testing.assert_close(average.weights["running_mean"], 0.9 * torch.tensor([0.2, 0.3]))
    assert average.weights["num_batches_tracked"].item() == 1


def test_averaged_weights_are_a_copy() -> None:
    model = torch.nn.Linear(1, 1)
    average = AveragedWeights(model.state_dict(), decay=0.9)
    before = average.weights["weight"].clone()
    set_weights(model, 5.0)
    assert torch.equal(average.weights["weight"], before)


def test_sgd_is_torchs_nesterov_and_spares_vectors_from_decay() -> None:
    model = torch.nn.Linear(3, 2)
    settings = config(optimizer="sgd", momentum=0.8, weight_decay=0.5)
    optimizer, _ = build_optimizer(groups_of(model, 0.1), settings)
    assert isinstance(optimizer, torch.optim.SGD)
    matrices, vectors = optimizer.param_groups
    assert matrices["nesterov"]
    assert (matrices["momentum"], matrices["weight_decay"], vectors["weight_decay"]) == (0.8, 0.5, 0.0)
    assert [p.ndim for p in matrices["params"]] == [2]
    assert [p.ndim for p in vectors["params"]] == [1]
    plain, _ = build_optimizer(groups_of(model), config(optimizer="sgd", momentum=0.0))
    assert not plain.param_groups[0]["nesterov"]


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_the_rate_stays_while_weights_are_averaged_evenly(schedule: Any) -> None:
    plain, held = TrainConfig(schedule=schedule), TrainConfig(schedule=schedule, swa=0.25)
    factors = [learning_rate_factor(held, step, 100) for step in range(100)]
    assert factors[:76] == [learning_rate_factor(plain, step, 100) for step in range(76)]
    assert set(factors[75:]) == {factors[75]}
    assert factors[75] > 0.1


def test_even_updates_give_the_plain_mean_of_what_they_saw_like_torchs_swa() -> None:
    model = torch.nn.Linear(3, 2)
    average, swa = AveragedWeights(model.state_dict(), 0.99), AveragedModel(model)
    for number in range(7):
        torch.manual_seed(number)
        torch.nn.init.normal_(model.weight)
        average.update(model.state_dict(), even=number >= 3)
        if number >= 3:
            swa.update_parameters(model)
    torch.testing.assert_close(average.weights["weight"], swa.state_dict()["module.weight"])
