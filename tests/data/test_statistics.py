from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
from librosa.effects import trim

from esc_ensemble.data.catalog import load_catalog
from esc_ensemble.data.statistics import ClipStatistics, bandwidth, measure, measure_all, measure_file
from tests.data import layouts

RATE = 16000


def noise(seconds: float, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


def test_levels_equal_librosas_and_the_textbooks() -> None:
    waveform = noise(2.0)
    expected = librosa.feature.rms(y=waveform, frame_length=len(waveform), hop_length=len(waveform), center=False)
    assert measure(waveform, RATE).rms_db == pytest.approx(librosa.amplitude_to_db(expected)[0, 0], abs=1e-4)
    sine = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    assert measure(sine, RATE).rms_db == pytest.approx(-3.0103, abs=1e-3)
    assert measure(0.5 * sine, RATE).peak_db == pytest.approx(20 * np.log10(0.5), abs=1e-3)


def test_silence_is_where_it_was_put() -> None:
    waveform = np.concatenate([np.zeros(RATE // 2), noise(1.0), np.zeros(RATE), noise(0.5), np.zeros(2 * RATE)])
    found = measure(waveform.astype(np.float32), RATE)
    assert found.seconds == 5.0
    assert found.leading == pytest.approx(0.5, abs=0.011)
    assert found.trailing == pytest.approx(2.0, abs=0.011)
    assert found.silent == pytest.approx(3.5 / 5.0, abs=0.005)
    _, (start, stop) = trim(waveform, top_db=60, ref=np.max, frame_length=160, hop_length=160)
    assert found.leading == pytest.approx(start / RATE, abs=0.02)
    assert found.trailing == pytest.approx((len(waveform) - stop) / RATE, abs=0.02)


def test_clipping_is_full_scale_twice_in_a_row() -> None:
    waveform = np.zeros(100, dtype=np.float32)
    waveform[[3, 10, 11, 12]] = 1.0, 1.0, 1.0, -1.0
    assert measure(waveform, RATE).clipped == pytest.approx(0.03)


@pytest.mark.parametrize("edge", [1000, 3000, 6000])
def test_bandwidth_is_the_edge_of_a_low_pass(edge: int) -> None:
    taps = scipy.signal.firwin(1001, edge, fs=RATE, window=("kaiser", 12.0))
    filtered = scipy.signal.lfilter(taps, 1.0, noise(4.0))[2000:] + 0.2  # an offset is no sound
    assert bandwidth(filtered.astype(np.float32), RATE) == pytest.approx(edge, abs=120)
    assert bandwidth(noise(1.0), RATE) == pytest.approx(RATE / 2, abs=20)


@pytest.mark.parametrize("waveform", [np.zeros(400), np.ones(1) * 0.1, np.ones(3000) * 0.1])
def test_silent_short_and_constant_clips_have_figures(waveform: np.ndarray) -> None:
    found = measure(waveform.astype(np.float32), RATE)
    assert not np.isnan([found.rms_db, found.silent, found.bandwidth]).any()
    assert found.silent == (0.0 if waveform.any() else 1.0)
    assert found.leading + found.trailing == (0.0 if waveform.any() else pytest.approx(400 / RATE))


def test_files_are_measured_in_their_own_form_and_copies_are_equal(tmp_path: Path) -> None:
    waveform = noise(1.0)
    soundfile.write(tmp_path / "a.wav", waveform, RATE)
    padded = np.concatenate([np.zeros(RATE // 10, dtype=np.float32), waveform])
    soundfile.write(tmp_path / "b.wav", np.stack([padded, padded], axis=1), RATE)
    (tmp_path / "c.wav").write_bytes(b"nothing")
    mono, stereo, broken = measure_all([tmp_path / name for name in ("a.wav", "b.wav", "c.wav")])
    assert isinstance(mono, ClipStatistics) and isinstance(stereo, ClipStatistics) and isinstance(broken, str)
    assert (mono.n_channels, stereo.n_channels, mono.digest) == (1, 2, stereo.digest)
    assert mono == measure_file(tmp_path / "a.wav")
    assert "c.wav" in broken


def test_rows_of_parquet_files_are_measured_too(tmp_path: Path) -> None:
    paths = [clip.path for clip in load_catalog(layouts.parquet(tmp_path / "p")).clips]
    found = measure_all(paths)
    assert [each.seconds for each in found if isinstance(each, ClipStatistics)] == [0.2] * len(paths)
