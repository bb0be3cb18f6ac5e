from __future__ import annotations

import pytest
import torch

from esc_ensemble.config import TrainConfig
from esc_ensemble.cores import free_cores
from esc_ensemble.errors import ConfigError
from esc_ensemble.training import device
from esc_ensemble.training.device import build_accelerator, choose_precision


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_takes_bf16_only_on_cpus_that_have_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: has_bf16)
    assert choose_precision("auto", use_cpu=True) == expected


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_auto_takes_fp16_on_gpus_without_bf16(monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert choose_precision("auto", use_cpu=False) == expected


@pytest.mark.parametrize(("wanted", "use_cpu"), [("fp32", True), ("bf16", True), ("fp32", False), ("fp16", False)])
def test_what_is_asked_for_is_taken(wanted: str, use_cpu: bool) -> None:
    assert choose_precision(wanted, use_cpu=use_cpu) == wanted


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        choose_precision("fp16", use_cpu=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        build_accelerator(TrainConfig(device="cuda"))


def test_the_accelerator_follows_the_settings_each_time_anew() -> None:
    before = torch.get_num_threads()
    try:
        for precision, expected in (("bf16", "bf16"), ("fp32", "no"), ("bf16", "bf16")):
            accelerator = build_accelerator(TrainConfig(device="cpu", precision=precision, threads=1))
            assert accelerator.mixed_precision == expected
            assert accelerator.device.type == "cpu"
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_0_threads_take_the_free_cores() -> None:
    before = torch.get_num_threads()
    try:
        build_accelerator(TrainConfig(device="cpu", precision="fp32", threads=0))
        assert torch.get_num_threads() == free_cores() >= 1
    finally:
        torch.set_num_threads(before)
