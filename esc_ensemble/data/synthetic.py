"""A small labelled dataset made by rule, in ESC-50's layout and as untidy as real ones."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from esc_ensemble.data.folders import whole_folder
from esc_ensemble.data.sounds import SOUNDS, Wave, background
from esc_ensemble.errors import ConfigError, DataError
from esc_ensemble.files import write_json, write_text

MARKER = ".esc_ensemble_synthetic.json"
VERSION = 1
CLIPS_PER_SOURCE = 2
MIN_SECONDS, MAX_SECONDS = 1.2, 6.0
SAMPLE_RATES = (8000, 16000, 22050, 32000, 44100, 48000)
ENCODINGS = (("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_16"), ("ogg", "VORBIS"))
COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")


@dataclass(frozen=True)
class _Place:
    """Which clip: its class, fold, the number of its source there, and its own number in that source."""

    target: int
    fold: int
    source: int
    take: int

    @property
    def source_id(self) -> int:
        return 100_000 + 10_000 * self.target + 100 * self.fold + self.source


def make_synthetic(out: Path, *, clips_per_class: int = 20, n_folds: int = 5, seed: int = 0) -> Path:
    """Writes ten classes of sounds made by rule: a dataset to try everything with, without a download.

    Pitch, tempo and timbre are drawn for each source; level, background noise, length, file format, rate,
    channels and silence at the ends for each clip. Sources never stand in two folds. The same arguments give
    the same samples. A set that is already there, whole and made with the same arguments, is left as it is.

    Args:
        out: the folder to make. An earlier synthetic set there is replaced, anything else is not touched.
        clips_per_class: at least one for each fold.
        n_folds: at least 2.
        seed: start of all random numbers.

    Returns:
        `out`.

    Raises:
        ConfigError: the numbers cannot work.
        DataError: `out` holds something that is not a synthetic set.
        WorkError: the disk is full or the folder cannot be written.
    """
    if n_folds < 2 or clips_per_class < n_folds or seed < 0:
        raise ConfigError(
            f"{clips_per_class} clips a class in {n_folds} folds with seed {seed} cannot be made: give at "
            "least 2 folds, a clip a class for each, and a seed from 0 up."
        )
    recipe = {"version": VERSION, "clips_per_class": clips_per_class, "n_folds": n_folds, "seed": seed}
    if out.exists() and _found_marker(out) == recipe:
        return out
    with whole_folder(out) as folder:
        (folder / "audio").mkdir()
        rows = []
        for place in _places(clips_per_class, n_folds):
            category, sound = SOUNDS[place.target]
            rng = np.random.default_rng([seed, place.target, place.fold, place.source, place.take])
            file_format, subtype = ENCODINGS[rng.integers(len(ENCODINGS))]
            sample_rate = int(SAMPLE_RATES[rng.integers(len(SAMPLE_RATES))])
            seconds = float(rng.uniform(MIN_SECONDS, MAX_SECONDS))
            # The source's own stream starts afresh for each of its clips: they share pitch, tempo and timbre.
            traits = np.random.default_rng([seed, place.target, place.fold, place.source])
            wave = _mixed(sound(traits, rng, round(seconds * sample_rate), sample_rate), rng, sample_rate)
            name = f"{place.fold}-{place.source_id}-{chr(ord('A') + place.take)}-{place.target}.{file_format}"
            (folder / "audio" / name).write_bytes(_encoded(wave, sample_rate, file_format, subtype))
            take = chr(ord("A") + place.take)
            rows.append((name, place.fold, place.target, category, True, place.source_id, take))
        write_text(folder / "meta" / "esc50.csv", _csv_text(rows))
        write_json(folder / MARKER, recipe)
    return out


def _found_marker(out: Path) -> object:
    """Gives what an earlier set says it was made with; None for an empty folder or an unreadable marker."""
    if not out.is_dir():
        raise DataError(f"{out} is a file. Give the folder to make the synthetic set in.")
    if not any(out.iterdir()):
        return None
    try:
        found: object = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{out} holds files that are not a synthetic set. Give a new or empty folder.") from error
    except (OSError, ValueError):
        return None
    return found


def _places(clips_per_class: int, n_folds: int) -> Iterator[_Place]:
    for target in range(len(SOUNDS)):
        for number in range(clips_per_class):
            source, take = divmod(number // n_folds, CLIPS_PER_SOURCE)
            yield _Place(target, 1 + number % n_folds, source, take)


def _mixed(wave: Wave, rng: np.random.Generator, sample_rate: int) -> Wave:
    """Adds what a recording brings along: noise, a level, silent ends, sometimes a second channel."""
    loudness = float(np.sqrt(np.mean(wave**2)))
    snr_db = rng.uniform(5.0, 30.0)
    wave = wave + background(rng, wave.size, sample_rate) * loudness * 10.0 ** (-snr_db / 20.0)
    peak_db = rng.uniform(-24.0, -1.0)
    wave = wave / np.abs(wave).max() * 10.0 ** (peak_db / 20.0)
    if rng.random() < 0.4:
        before, after = rng.uniform(0.0, 0.8, size=2) * sample_rate
        wave = np.pad(wave, (int(before), int(after)))
    if rng.random() < 0.2:
        gains = 1.0 - rng.uniform(0.0, 0.5, size=2)
        return np.stack([wave * gains[0], wave * gains[1]], axis=1)  # (T,) -> (T, 2)
    return wave


def _encoded(wave: Wave, sample_rate: int, file_format: str, subtype: str) -> bytes:
    # In memory, since libsndfile calls a full disk a "System error".
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, sample_rate, format=file_format.upper(), subtype=subtype)
    return buffer.getvalue()


def _csv_text(rows: Sequence[tuple[object, ...]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return buffer.getvalue()
