from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from esc_ensemble.data import near_duplicates
from esc_ensemble.data.audio import Recipe
from esc_ensemble.data.decoding import Decoded, decode_one, to_int16
from esc_ensemble.data.near_duplicates import BATCH_CLIPS, NearDuplicate, find_near_duplicates
from esc_ensemble.data.sounds import SOUNDS

RATE = 32_000
N_SAMPLES = 5 * RATE
TIME = np.arange(N_SAMPLES) / RATE
Alteration = Callable[[np.ndarray], np.ndarray]


def find(waveforms: np.ndarray | list[np.ndarray], sample_rate: int = RATE) -> list[NearDuplicate]:
    stacked = np.stack(list(waveforms))
    return find_near_duplicates(lambda index: stacked[index], len(stacked), sample_rate)


def pairs(found: list[NearDuplicate]) -> set[tuple[int, int]]:
    return {(pair.first, pair.second) for pair in found}


def int16(wave: np.ndarray, peak: float = 0.5) -> np.ndarray:
    """A waveform (T,) at this peak, as 16-bit samples."""
    return to_int16((wave / np.abs(wave).max() * peak).astype(np.float32))


def scene(seed: int, seconds: float = 5.0) -> np.ndarray:
    """Sounds of one class (seeds 10 apart), at random times over a quiet room: (T,) in [-1, 1]."""
    rng = np.random.default_rng(seed)
    n_samples = round(seconds * RATE)
    wave = SOUNDS[seed % len(SOUNDS)][1](np.random.default_rng(seed + 1000), rng, n_samples, RATE)
    wave = wave / np.abs(wave).max() + 0.03 * rng.standard_normal(n_samples)
    return (wave / np.abs(wave).max() * 0.5).astype(np.float32)


def encoded(wave: np.ndarray, sample_rate: int, file_format: str, subtype: str, level: float) -> np.ndarray:
    """Writes and reads a compressed file at another rate; `level` from 0 (best) to 1 (smallest)."""
    buffer = io.BytesIO()
    resampled = soxr.resample(wave, RATE, sample_rate)
    soundfile.write(buffer, resampled, sample_rate, format=file_format, subtype=subtype, compression_level=level)
    decoded, _ = soundfile.read(io.BytesIO(buffer.getvalue()), dtype="float32")
    back = soxr.resample(decoded, sample_rate, RATE)[:N_SAMPLES]
    return np.pad(back, (0, N_SAMPLES - len(back)))


ALTERATIONS: dict[str, Alteration] = {
    "ogg": lambda wave: encoded(wave, 44_100, "OGG", "VORBIS", 0.9),
    "mp3": lambda wave: encoded(wave, 44_100, "MP3", "MPEG_LAYER_III", 0.9),
    "mp3 at 22.05 kHz": lambda wave: encoded(wave, 22_050, "MP3", "MPEG_LAYER_III", 0.8),
    "22.05 kHz": lambda wave: soxr.resample(soxr.resample(wave, RATE, 22_050), 22_050, RATE)[:N_SAMPLES],
    "quieter": lambda wave: 0.1 * wave,
    "faded": lambda wave: wave * np.minimum(1.0, np.minimum(TIME, TIME[::-1]) / 0.5),
    "inverted": lambda wave: -wave,
    "mixed with its echo": lambda wave: wave + 0.3 * np.roll(wave, 960),
    "noisier": lambda wave: wave + 0.05 * wave.std() * np.random.default_rng(1).standard_normal(N_SAMPLES),
}


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    """Three of each class."""
    return [scene(seed) for seed in range(30)]


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_copies_are_found_and_nothing_else(scenes: list[np.ndarray], name: str) -> None:
    copies = [ALTERATIONS[name](wave) for wave in scenes]
    found = pairs(find([to_int16(np.asarray(wave, dtype=np.float32)) for wave in [*scenes, *copies]]))
    expected = {(number, number + 30) for number in range(30)}
    assert found <= expected
    # A pure tone in noise has too little that could be recognized.
    assert len(expected - found - {(0, 30), (10, 40), (20, 50)}) <= 1


@pytest.mark.parametrize("seconds", [0.4, 1.3, 2.5])
def test_cuts_of_one_recording_are_found_with_their_offset(seconds: float) -> None:
    recordings = [scene(seed, seconds=5.0 + seconds) for seed in range(30)]
    cuts = [to_int16(cut) for wave in recordings for cut in (wave[:N_SAMPLES], wave[-N_SAMPLES:])]
    found = find(cuts)
    assert pairs(found) <= {(first, first + 1) for first in range(0, 60, 2)}
    # A regular beat matches itself at other offsets, too.
    close = [pair for pair in found if abs(pair.offset_seconds - seconds) < 0.02]
    assert len(close) >= 23


def ticks(rng: np.random.Generator, period: float) -> np.ndarray:
    """A clock of this period in seconds with a tick of its own."""
    tick = rng.standard_normal(800) * np.exp(-np.arange(800) / 100)
    wave = 1e-3 * rng.standard_normal(N_SAMPLES)
    for start in np.arange(rng.uniform(0.0, 0.3), 4.9, period):
        wave[round(start * RATE) :][:800] += tick
    return wave


def looped(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """A short sound, repeated as `fit_to_length` does."""
    return np.resize(rng.standard_normal(n_samples) * np.hanning(n_samples), N_SAMPLES)


UNRELATED: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "white noise": lambda rng: int16(rng.standard_normal(N_SAMPLES)),
    "red noise": lambda rng: int16(np.fft.irfft(np.fft.rfft(rng.standard_normal(N_SAMPLES)) / np.arange(1, 80_002))),
    "pure tone": lambda rng: int16(np.sin(2 * np.pi * 440 * TIME + rng.uniform(0, 6)), rng.uniform(0.1, 1.0)),
    "hum": lambda rng: int16(
        np.sum([np.sin(2 * np.pi * 50 * k * TIME + rng.uniform(0, 6)) for k in range(1, 60)], axis=0)
    ),
    "trembling tone": lambda rng: int16(
        np.sin(2 * np.pi * 1000 * TIME) * (1.0 + np.sin(2 * np.pi * 4 * TIME + rng.uniform(0, 6)))
        + 1e-3 * rng.standard_normal(N_SAMPLES)
    ),
    "alarm": lambda rng: int16(
        np.sin(2 * np.pi * 2000 * TIME) * np.clip(10 * np.sin(2 * np.pi * (TIME + rng.uniform())), 0.0, 1.0)
        + 1e-3 * rng.standard_normal(N_SAMPLES)
    ),
    "clock of 1 s": lambda rng: int16(ticks(rng, 1.0)),
    "clock of 0.5 s": lambda rng: int16(ticks(rng, 0.5)),
    "loop of 0.3 s": lambda rng: int16(looped(rng, 9600)),
    "click": lambda rng: int16(np.eye(1, N_SAMPLES, int(rng.integers(N_SAMPLES)))[0]),
    "silence": lambda rng: np.zeros(N_SAMPLES, dtype=np.int16),
    "constant": lambda rng: np.full(N_SAMPLES, rng.integers(-99, 99), dtype=np.int16),
    "last bit": lambda rng: rng.integers(-1, 2, N_SAMPLES).astype(np.int16),
}


@pytest.mark.parametrize("name", UNRELATED)
def test_recordings_that_only_sound_alike_are_not_reported(name: str) -> None:
    assert find([UNRELATED[name](np.random.default_rng(seed)) for seed in range(6)]) == []


def test_many_copies_take_bounded_work_and_each_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    probed = []
    real = near_duplicates._probed

    def counted(*args: np.ndarray) -> np.ndarray:
        probed.append(len(args[2]))
        return real(*args)

    monkeypatch.setattr(near_duplicates, "_probed", counted)
    wave = to_int16(scene(3))
    found = find([wave] * 60)
    n_frames = 5.0 / near_duplicates.HOP_SECONDS
    assert sum(probed) <= len(near_duplicates.HASH_ROTATIONS) * near_duplicates.N_NEIGHBORS * 60 * n_frames
    assert {number for pair in pairs(found) for number in pair} == set(range(60))
    assert {(pair.similarity, pair.offset_seconds) for pair in found} == {(1.0, 0.0)}


def test_reads_bounded_batches_in_order_and_gives_the_same_pairs_again(scenes: list[np.ndarray]) -> None:
    stacked = np.stack([to_int16(wave) for wave in [*scenes, *scenes]])
    sizes: list[int] = []
    steps: list[int] = []

    def read(index: np.ndarray) -> np.ndarray:
        sizes.append(len(index))
        return stacked[index]

    found = find_near_duplicates(read, 60, RATE, advance=steps.append)
    assert max(sizes) <= BATCH_CLIPS
    assert sum(steps) == 60
    assert found == find(stacked)
    assert [pair.similarity for pair in found] == sorted((pair.similarity for pair in found), reverse=True)


@pytest.mark.parametrize("sample_rate", [1000, 8000, 11_025, 44_100, 48_000])
def test_works_at_other_sample_rates(sample_rate: int) -> None:
    waves = [to_int16(soxr.resample(scene(seed), RATE, sample_rate)) for seed in (3, 5, 8)]
    found = find([*waves, *(wave // 3 for wave in waves)], sample_rate)
    assert pairs(found) == {(0, 3), (1, 4), (2, 5)}


@pytest.mark.parametrize("n_samples", [1, 1000, 5000, RATE])
def test_clips_too_short_to_compare_have_no_near_duplicates(n_samples: int) -> None:
    wave = int16(np.random.default_rng(0).standard_normal(n_samples))
    assert find([wave, wave]) == []


def test_no_clips_have_no_near_duplicates() -> None:
    assert find_near_duplicates(lambda index: np.zeros((len(index), RATE), dtype=np.int16), 0, RATE) == []


def test_finds_the_alarm_clock_that_esc50_holds_in_folds_1_and_4() -> None:
    folder = os.environ.get("ESC50_DIR")
    if not folder:
        pytest.skip("ESC50_DIR is not set: it names the folder of ESC-50")
    with (Path(folder) / "meta" / "esc50.csv").open(encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["category"] in ("clock_alarm", "clock_tick")]
    clips = [
        decode_one(Path(folder) / "audio" / row["filename"], Recipe(RATE, N_SAMPLES, "tile", 60.0)) for row in rows
    ]
    samples = [clip.samples for clip in clips if isinstance(clip, Decoded)]
    found = find([np.frombuffer(each, dtype="<i2") for each in samples if isinstance(each, bytes)])
    across = [pair for pair in found if rows[pair.first]["src_file"] != rows[pair.second]["src_file"]]
    (pair,) = across
    assert [rows[pair.first]["src_file"], rows[pair.second]["src_file"]] == ["14262", "198841"]
    assert pair.similarity > 0.7
    assert pair.offset_seconds == pytest.approx(0.289, abs=0.02)
