from __future__ import annotations

from typing import Any

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.config import FrontendConfig, PcenConfig
from esc_ensemble.features.logmel import MelPower
from esc_ensemble.features.pcen import Pcen, smoothing_coefficient

SAMPLE_RATE, HOP = 16000, 160
FRAMES_PER_SECOND = SAMPLE_RATE / HOP
SETTINGS: list[dict[str, Any]] = [
    {},
    {"gain": 0.8, "bias": 10.0, "power": 0.25, "time_constant": 0.06, "eps": 1e-5},
    {"gain": 0.5, "bias": 0.0, "power": 0.7, "time_constant": 2.0},
    {"gain": 0.0},
]
STATES = ("first_frame", "one")


def librosa_pcen(mel_power: np.ndarray, config: PcenConfig, frames_per_second: float = FRAMES_PER_SECOND) -> np.ndarray:
    smoothing = librosa_smoothing(config.time_constant, frames_per_second)
    zi = (1.0 - smoothing) * mel_power[..., :1] if config.initial_state == "first_frame" else None
    return librosa.pcen(
        mel_power,
        sr=SAMPLE_RATE,
        hop_length=round(SAMPLE_RATE / frames_per_second),
        gain=config.gain,
        bias=config.bias,
        power=config.power,
        time_constant=config.time_constant,
        eps=config.eps,
        zi=zi,
    )


def librosa_smoothing(time_constant: float, frames_per_second: float) -> float:
    frames = time_constant * frames_per_second
    return (np.sqrt(1 + 4 * frames**2) - 1) / (2 * frames**2)


@pytest.fixture(scope="module")
def mel_power(waves: np.ndarray) -> np.ndarray:
    config = FrontendConfig(n_fft=512, window=400, hop=HOP, n_mels=64, f_max=8000.0)
    return MelPower(config, SAMPLE_RATE)(torch.from_numpy(waves)).numpy()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("values", SETTINGS)
def test_pcen_is_librosas(mel_power: np.ndarray, values: dict[str, Any], state: str) -> None:
    config = PcenConfig(initial_state=state, **values)
    found = Pcen(config, mel_power.shape[1], FRAMES_PER_SECOND)(torch.from_numpy(mel_power)).numpy()
    for clip, ours in zip(mel_power, found, strict=True):
        np.testing.assert_allclose(ours, librosa_pcen(clip, config), atol=1e-4)


@given(st.integers(1, 200), st.sampled_from(STATES), st.floats(1e-3, 5.0), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_pcen_is_librosas_at_any_length(n_frames: int, state: str, time_constant: float, seed: int) -> None:
    power = np.random.default_rng(seed).uniform(0, 4, size=(3, n_frames)).astype(np.float32)
    config = PcenConfig(initial_state=state, time_constant=time_constant)
    found = Pcen(config, 3, FRAMES_PER_SECOND)(torch.from_numpy(power[None]))[0].numpy()
    np.testing.assert_allclose(found, librosa_pcen(power, config), atol=1e-4)


@pytest.mark.parametrize("values", [*SETTINGS[:2], {"bias": 0.0, "gain": 0.0}])
def test_learned_pcen_starts_as_the_fixed_one(mel_power: np.ndarray, values: dict[str, Any]) -> None:
    n_mels, power = mel_power.shape[1], torch.from_numpy(mel_power)
    fixed = Pcen(PcenConfig(**values), n_mels, FRAMES_PER_SECOND)(power)
    learned = Pcen(PcenConfig(learnable=True, **values), n_mels, FRAMES_PER_SECOND)(power)
    torch.testing.assert_close(learned, fixed, rtol=1e-3, atol=2e-3 if "bias" in values else 1e-4)


def test_learned_pcen_has_four_parameters_a_band_and_all_get_gradients(mel_power: np.ndarray) -> None:
    pcen = Pcen(PcenConfig(learnable=True), mel_power.shape[1], FRAMES_PER_SECOND)
    pcen(torch.from_numpy(mel_power)).square().mean().backward()
    parameters = dict(pcen.named_parameters())
    assert set(parameters) == {"smoothing", "gain", "bias", "power"}
    for parameter in parameters.values():
        assert parameter.shape == (mel_power.shape[1], 1)
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0).all()


def test_fixed_pcen_has_no_parameters() -> None:
    assert not list(Pcen(PcenConfig(), 8, FRAMES_PER_SECOND).parameters())


def test_each_band_learns_for_itself(mel_power: np.ndarray) -> None:
    pcen = Pcen(PcenConfig(learnable=True), mel_power.shape[1], FRAMES_PER_SECOND)
    before = pcen(torch.from_numpy(mel_power)).detach()
    with torch.no_grad():
        pcen.smoothing[5] += 1.0
    changed = (pcen(torch.from_numpy(mel_power)) - before).abs().amax(dim=(0, 2)) > 1e-6
    assert changed.nonzero().flatten().tolist() == [5]


def test_silence_gives_zeros(mel_power: np.ndarray) -> None:
    silent = torch.zeros(2, 8, 40)
    for state in STATES:
        assert not Pcen(PcenConfig(initial_state=state), 8, FRAMES_PER_SECOND)(silent).any()


@pytest.mark.parametrize("seconds", [1e-3, 0.06, 0.4, 5.0])
def test_the_smoothing_coefficient_is_librosas(seconds: float) -> None:
    assert smoothing_coefficient(seconds, 100.0) == pytest.approx(librosa_smoothing(seconds, 100.0), rel=1e-9)
