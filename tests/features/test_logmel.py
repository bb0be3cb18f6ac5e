from __future__ import annotations

import warnings
from pathlib import Path

import librosa
import numpy as np
import onnxruntime
import pytest
import torch
from librosa.filters import mel as librosa_filters

from esc_ensemble.config import FrontendConfig
from esc_ensemble.errors import ConfigError
from esc_ensemble.features.logmel import MelPower, mel_filters, power_to_db

SAMPLE_RATE = 16000
FRONTENDS = [
    FrontendConfig().model_copy(update={"f_max": 8000.0}),
    FrontendConfig(n_fft=1024, window=400, hop=160, n_mels=64, f_min=20.0, f_max=8000.0),
    FrontendConfig(
        n_fft=512, window=512, hop=256, n_mels=40, f_min=0.0, f_max=8000.0, mel_scale="htk", mel_norm="none"
    ),
    FrontendConfig(n_fft=1000, window=401, hop=333, n_mels=32, f_min=100.0, f_max=6000.0, mel_scale="htk"),
    FrontendConfig(n_fft=2048, window=1024, hop=512, n_mels=128, f_max=7000.0, mel_norm="none"),
]


def librosa_mel(waves: np.ndarray, config: FrontendConfig) -> np.ndarray:
    return librosa.feature.melspectrogram(
        y=waves,
        sr=SAMPLE_RATE,
        n_fft=config.n_fft,
        win_length=config.window,
        hop_length=config.hop,
        center=False,
        power=2.0,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        htk=config.mel_scale == "htk",
        norm="slaney" if config.mel_norm == "slaney" else None,
    )


@pytest.mark.parametrize("config", FRONTENDS)
def test_mel_filters_are_librosas(config: FrontendConfig) -> None:
    expected = librosa_filters(
        sr=SAMPLE_RATE,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        htk=config.mel_scale == "htk",
        norm="slaney" if config.mel_norm == "slaney" else None,
    )
    np.testing.assert_allclose(mel_filters(config, SAMPLE_RATE), expected, atol=1e-6 * expected.max())


@pytest.mark.parametrize("config", FRONTENDS)
def test_mel_power_is_librosas(waves: np.ndarray, config: FrontendConfig) -> None:
    expected = librosa_mel(waves, config)
    found = MelPower(config, SAMPLE_RATE)(torch.from_numpy(waves)).numpy()
    assert found.shape == expected.shape == (len(waves), config.n_mels, 1 + (48000 - config.n_fft) // config.hop)
    loudest = expected.max(axis=(1, 2), keepdims=True)
    assert (np.abs(found - expected) / loudest).max() < 1e-4


@pytest.mark.parametrize("config", FRONTENDS)
def test_log_mel_is_librosas_in_decibel(waves: np.ndarray, config: FrontendConfig) -> None:
    ours = power_to_db(MelPower(config, SAMPLE_RATE)(torch.from_numpy(waves)), 80.0).numpy()
    for wave, found in zip(waves, ours, strict=True):
        expected = librosa.power_to_db(librosa_mel(wave, config), ref=1.0, amin=1e-10, top_db=80.0)
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("config", FRONTENDS)
def test_an_onnx_graph_gives_the_same(waves: np.ndarray, config: FrontendConfig, tmp_path: Path) -> None:
    mel, batch = MelPower(config, SAMPLE_RATE), torch.from_numpy(waves)
    path = tmp_path / "mel.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(mel, (batch,), path, input_names=["x"], dynamo=True, external_data=False, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"x": waves})[0])
    torch.testing.assert_close(found, mel(batch), rtol=1e-4, atol=1e-6 * float(mel(batch).max()))
    assert path.stat().st_size < 1_500_000  # a plain DFT of 1024 samples alone takes 4 MB


@pytest.mark.parametrize("top_db", [20.0, 80.0])
def test_power_to_db_cuts_each_clip_below_its_own_loudest_value(top_db: float) -> None:
    power = 10.0 ** np.random.default_rng(0).uniform(-14, 6, size=(3, 8, 20)).astype(np.float32)
    power[1] *= 1e-6
    found = power_to_db(torch.from_numpy(power), top_db).numpy()
    for clip, ours in zip(power, found, strict=True):
        np.testing.assert_allclose(ours, librosa.power_to_db(clip, ref=1.0, amin=1e-10, top_db=top_db), atol=1e-4)


def test_a_range_that_holds_no_bin_is_refused() -> None:
    with pytest.raises(ConfigError, match="No bin"):
        MelPower(FrontendConfig(n_fft=512, f_min=20.0, f_max=25.0), SAMPLE_RATE)
