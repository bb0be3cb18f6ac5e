from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from esc_ensemble.config import FrontendConfig, PcenConfig
from esc_ensemble.features.frontend import SpectrogramFrontend, sounding_frames, standardise

SAMPLE_RATE = 16000
CONFIG = FrontendConfig(
    n_fft=512, window=400, hop=160, n_mels=32, f_max=8000.0, pcen=PcenConfig(initial_state="first_frame")
)


def frontend(**values: Any) -> SpectrogramFrontend:
    return SpectrogramFrontend(CONFIG.model_copy(update=values), SAMPLE_RATE).eval()


@pytest.mark.parametrize("channels", [("logmel",), ("pcen",), ("logmel", "pcen"), ("pcen", "logmel")])
def test_channels_come_in_the_order_of_the_settings(waves: np.ndarray, channels: tuple[str, ...]) -> None:
    features = frontend(channels=channels)(torch.from_numpy(waves))
    assert features.shape[:3] == (len(waves), len(channels), 32)
    for number, name in enumerate(channels):
        torch.testing.assert_close(features[:, number], frontend(channels=(name,))(torch.from_numpy(waves))[:, 0])


def test_a_clip_alone_gives_the_same_as_in_a_batch_of_16(waves: np.ndarray) -> None:
    batch = torch.from_numpy(np.concatenate([np.roll(waves, 999 * n, axis=1) for n in range(4)]))
    assert len(batch) == 16
    together = frontend()(batch)
    alone = torch.cat([frontend()(clip[None]) for clip in batch])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


def test_each_channel_of_each_clip_has_mean_0_and_standard_deviation_1(waves: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, size=(3, SAMPLE_RATE)).astype(np.float32)
    features = frontend()(torch.from_numpy(noise))
    torch.testing.assert_close(features.mean(dim=(2, 3)), torch.zeros(3, 2), rtol=0, atol=1e-3)
    torch.testing.assert_close(features.std(dim=(2, 3), correction=0), torch.ones(3, 2), rtol=0, atol=1e-3)


def padded(before: int, after: int) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(0, 0.1, size=SAMPLE_RATE).astype(np.float32)
    return torch.from_numpy(np.pad(noise, (before * CONFIG.hop, after * CONFIG.hop)))[None]


@pytest.mark.parametrize(("before", "after"), [(0, 50), (50, 0), (37, 80)])
def test_more_zeros_around_a_clip_do_not_change_its_sounding_part(before: int, after: int) -> None:
    # Five hops of zeros hold a whole DFT, so that all frames that touch the clip are there already.
    base, more = frontend()(padded(5, 5)), frontend()(padded(5 + before, 5 + after))
    torch.testing.assert_close(more[..., before : before + base.shape[-1]], base, rtol=1e-4, atol=1e-4)


def test_padding_comes_out_as_0(waves: np.ndarray) -> None:
    features = frontend()(padded(50, 60))
    assert not features[..., :46].any()
    assert not features[..., -56:].any()
    assert (features[..., 50:140] != 0).float().mean() > 0.99


def test_mean_and_deviation_are_counted_over_the_sounding_frames_alone() -> None:
    features, mask = torch.randn(2, 1, 4, 10), torch.zeros(2, 10)
    mask[0, 3:7], mask[1, :] = 1.0, 1.0
    found = standardise(features, mask)
    inner = features[0, 0, :, 3:7]
    expected = (inner - inner.mean()) / inner.std(correction=0)
    torch.testing.assert_close(found[0, 0, :, 3:7], expected, rtol=1e-3, atol=1e-4)
    assert not found[0, 0, :, :3].any()
    assert not found[0, 0, :, 7:].any()


def test_silence_inside_a_clip_counts_as_sounding() -> None:
    power = torch.zeros(3, 2, 8)
    power[0, 1, 2] = power[0, 0, 5] = 1e-20
    power[1, 0, 4] = 1.0
    expected = [[0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0], [0] * 8]
    assert sounding_frames(power).int().tolist() == expected


@pytest.mark.parametrize("state", ["first_frame", "one"])
def test_a_silent_clip_gives_finite_zeros(state: str) -> None:
    features = frontend(pcen=PcenConfig(initial_state=state))(torch.zeros(2, SAMPLE_RATE))
    assert torch.equal(features, torch.zeros_like(features))


def test_a_constant_level_gives_finite_features() -> None:
    assert torch.isfinite(frontend()(torch.full((1, SAMPLE_RATE), 0.5))).all()


def test_level_does_not_matter_to_the_log_mel_of_loud_clips() -> None:
    noise = padded(0, 0)
    quiet, loud = (frontend(channels=("logmel",))(noise * level) for level in (0.1, 1.0))
    torch.testing.assert_close(quiet, loud, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("learnable", [False, True])
def test_it_is_deterministic_and_draws_no_random_number(waves: np.ndarray, learnable: bool) -> None:
    module, state = frontend(pcen=PcenConfig(learnable=learnable)), torch.random.get_rng_state()
    first, second = module(torch.from_numpy(waves)), module(torch.from_numpy(waves))
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_it_works_in_float32_under_autocast(waves: np.ndarray) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = frontend()(torch.from_numpy(waves))
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, frontend()(torch.from_numpy(waves)))
