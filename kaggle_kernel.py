"""Predicts a competition's test clips on Kaggle without internet, from this one file.

What it does, each step told on stdout:

1. It looks for its inputs by what they are, wherever Kaggle mounts them: `sample_submission*.csv`, the test audio
   that carries the sample's ids, models (`*.onnx`, `*.torchscript.pt`) made by `esc-ens export`, wheels, training data.
2. It writes a valid `submission.csv` at once, out of the sample's own rows.
3. It predicts with the attached model: the `.onnx` file where onnxruntime can be imported (from an attached wheel if
   need be), the TorchScript file otherwise. That takes this file, numpy and soundfile, and nothing else.
4. With no model attached, or none that works, it trains a blend with the package `esc_ensemble`, which is embedded at
   the end of this file, lies beside it, or is installed.
5. After each part the submission is replaced by a better one, atomically, and TIME_BUDGET is kept.

It runs unchanged elsewhere: `python kaggle_kernel.py --input DIR --output DIR --time-budget 600`.

Every setting below is also a flag (`--time-budget`) and an environment variable (`ESC_TIME_BUDGET`; TIME_BUDGET works
too). The exit code is 0 as long as a valid file stands, since Kaggle throws away the output of a kernel that fails, and
a warning says so loudly if all it holds is the sample's rows; with STRICT that is 1. It is 2 where nothing can be
written, because there is neither a sample nor test audio.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import soundfile

# --- Settings ---------------------------------------------------------------------------------------------------------

INPUT = "/kaggle/input"  # Searched for everything; several folders with ":" between them.
OUTPUT = "/kaggle/working"  # Where submission.csv goes.
TIME_BUDGET = 8 * 3600.0  # Seconds from start to end. Kaggle stops kernels after 9 or 12 hours.
MODEL = ""  # A part of the path of the model to take; where empty, of those that know the sample's classes the best.
SAMPLE = ""  # A part of the path of the sample submission; the one whose ids have audio where empty.
TEST_AUDIO = ""  # A part of the path of the folder of test audio; found by the sample's ids where empty.
TRAIN_DATA = ""  # A part of the path of the training data (folder or CSV); found by its layout where empty.
LABELS = ""  # What stands beside the ids: "names" or "numbers"; what the sample wants where empty.
ESC10 = False  # Train on ESC-50's ten classes marked esc10 alone.
DEVICE = "auto"  # "cpu" keeps away from a GPU.
BATCH_SIZE = 16  # Clips at a time.
STRICT = False  # Exit code 1 unless the submission holds real predictions.

# SHA-256 of the embedded package, which `esc-ens kaggle build` puts at the end of this file.
PACKAGE_SHA256 = ""

# --- End of settings --------------------------------------------------------------------------------------------------

START = time.monotonic()
METADATA_KEY = "esc_ensemble"
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aif", ".aiff", ".aifc", ".au")
METADATA_FILES = (("meta", "esc50.csv"), ("metadata", "UrbanSound8K.csv"))
FILE_COLUMNS = ("filename", "path", "file", "slice_file_name", "clip_id", "fname", "file_name", "id")
CLASS_COLUMNS = ("category", "class", "label", "target")
NEEDED = ("esc_ensemble", "torch", "accelerate", "filelock", "pydantic", "safetensors", "scipy", "soxr", "yaml")
TORCHSCRIPT_ENDING = ".torchscript.pt"
# Where soxr's HQ filter is at half, as a part of the lower Nyquist frequency, and how wide it falls there.
FILTER_MIDDLE, FILTER_WIDTH = 0.957, 0.0115
MARGIN = 8192  # Samples of silence around a clip that is resampled.
MAX_SECONDS = 600.0  # Of longer recordings the middle is heard.
MAX_PEAK = 16.0
MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz
WRITE_EVERY = 20.0
LAST_SECONDS = 1.0
STOPPED = 130
N_NAMED = 10

Probabilities = dict[int, np.ndarray]
"""Row of the submission -> (C,)."""


class KernelError(Exception):
    """Something that the kernel cannot do, in a sentence."""


def say(text: str) -> None:
    """Prints news with the seconds since the start."""
    print(f"[{time.monotonic() - START:7.1f} s] {text}", flush=True)


@dataclass(frozen=True)
class Settings:
    """What the constants above, the environment and the flags come to."""

    input: str = INPUT
    output: str = OUTPUT
    time_budget: float = TIME_BUDGET
    model: str = MODEL
    sample: str = SAMPLE
    test_audio: str = TEST_AUDIO
    train_data: str = TRAIN_DATA
    labels: str = LABELS
    esc10: bool = ESC10
    device: str = DEVICE
    batch_size: int = BATCH_SIZE
    strict: bool = STRICT

    @property
    def left(self) -> float:
        """Seconds that are left of the budget."""
        return self.time_budget - (time.monotonic() - START)


def read_settings(arguments: Sequence[str]) -> Settings:
    """Gives the settings: flags before environment variables before the constants."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    for each in fields(Settings):
        name = each.name.upper()
        told = os.environ.get(f"ESC_{name}", os.environ.get(name) if name == "TIME_BUDGET" else None)
        kind = type(each.default)
        flag = f"--{each.name.replace('_', '-')}"
        if kind is bool:
            on = told.lower() in ("1", "true", "yes", "on") if told is not None else each.default
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=on)
        else:
            # A text as default goes through the type, so that what the environment says is checked alike.
            parser.add_argument(flag, type=kind, default=each.default if told is None else told)
    settings = Settings(**vars(parser.parse_args(arguments)))
    if settings.labels not in ("", "names", "numbers"):
        parser.error(f'LABELS is "{settings.labels}": write names or numbers, or leave it empty')
    if not settings.time_budget > 0 or settings.batch_size < 1:
        parser.error("TIME_BUDGET must be above 0 and BATCH_SIZE at least 1")
    return settings


# --- What lies where --------------------------------------------------------------------------------------------------


@dataclass
class Inputs:
    """Files found below the input folders, by kind, in order of their paths."""

    tops: list[Path] = field(default_factory=list)
    """The input folders."""
    audio: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    onnx: list[Path] = field(default_factory=list)
    torchscript: list[Path] = field(default_factory=list)
    wheels: list[Path] = field(default_factory=list)


def find_inputs(folders: Iterable[Path], leave_out: Path) -> Inputs:
    """Sorts all files below the folders by kind, following links, hidden ones and `leave_out` apart."""
    found = Inputs(list(folders))
    kinds: list[tuple[tuple[str, ...], list[Path]]] = [
        (AUDIO_SUFFIXES, found.audio),
        ((".csv",), found.tables),
        ((".onnx",), found.onnx),
        ((TORCHSCRIPT_ENDING,), found.torchscript),
        ((".whl",), found.wheels),
    ]
    seen: set[str] = set()
    for top in found.tops:
        for folder, below, names in os.walk(top, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen or real == os.path.realpath(leave_out):
                below.clear()
                continue
            seen.add(real)
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in sorted(names):
                for endings, into in kinds:
                    if not name.startswith(".") and name.lower().endswith(endings):
                        into.append(Path(folder, name))
    return found


def stem_of(clip_id: str) -> str:
    """Cuts the ending of an audio file; an id may hold a dot of its own."""
    suffix = PurePosixPath(clip_id).suffix
    return clip_id.removesuffix(suffix) if suffix.lower() in AUDIO_SUFFIXES else clip_id


def called(path: str, word: str, tops: Iterable[Path]) -> bool:
    """Whether a part of a path, below the input folders, is called so: test, test_audio, audio-test, but not latest."""
    for top in tops:
        path = path.removeprefix(f"{top.as_posix()}/")
    return re.search(rf"(?<![a-z]){word}", path.lower()) is not None


def match_audio(
    ids: Sequence[str], audio: Sequence[Path], within: str = "", tops: Sequence[Path] = (), *, training: bool = False
) -> list[Path | None]:
    """Finds the file of each id: the one whose path ends with the id, its suffix apart.

    The same names may stand in several folders, such as train/1.wav and test/1.wav. Of the folders that have at least
    half as many of the ids as the fullest, one that is called test goes first, then one not called train, then the one
    with most of the ids, then that with fewest other files. An id without a file gets that of its bare name, where
    there is but one (in small letters, if need be). Of training clips the folder with most of the ids goes first, and
    nothing is guessed: a wrong file there is a wrong label.

    Args:
        ids: as the sample has them.
        audio: files to choose from.
        within: a part that the path must hold.
        tops: the input folders, whose own names mean nothing.
        training: the ids are those of labelled clips.
    """
    by_name: dict[str, list[Path]] = {}
    n_files: Counter[str] = Counter()
    for path in audio:
        if within in path.as_posix():
            by_name.setdefault(stem_of(path.name), []).append(path)
            n_files[path.parent.as_posix()] += 1
    choices: list[dict[str, Path]] = []  # of each id: top folder -> file
    for clip_id in ids:
        tail = stem_of(clip_id.strip().replace("\\", "/").removeprefix("./")).strip("/")
        files: dict[str, Path] = {}
        for path in by_name.get(PurePosixPath(tail).name, ()):
            full = stem_of(path.as_posix())
            if full == tail or full.endswith(f"/{tail}"):
                top = full[: len(full) - len(tail)]
                # Of 1.wav and 1.ogg side by side the one is taken that the id names.
                if top not in files or path.name == PurePosixPath(clip_id).name:
                    files[top] = path
        choices.append(files)
    n_ids = Counter(top for files in choices for top in files)

    most = max(n_ids.values(), default=0)

    def rank(top: str) -> tuple[Any, ...]:
        test, train = (called(top, word, tops) for word in ("test", "train"))
        last = (-n_ids[top], n_files[top.rstrip("/")], top)
        return (-n_ids[top], test, not train, *last) if training else (2 * n_ids[top] < most, not test, train, *last)

    found = [files[min(files, key=rank)] if files else None for files in choices]
    if None in found and not training:
        small: dict[str, list[Path]] = {}
        for name, paths in by_name.items():
            small.setdefault(name.lower(), []).extend(paths)
        for place, clip_id in enumerate(ids):
            name = PurePosixPath(stem_of(clip_id.strip().replace("\\", "/"))).name
            alike = by_name.get(name) or small.get(name.lower(), [])
            if found[place] is None and len(alike) == 1:
                found[place] = alike[0]
    return found


def test_folder(inputs: Inputs, within: str) -> list[Path]:
    """Gives the test audio where no sample says which: that of the folder named, or of folders called test."""
    if within:
        return [path for path in inputs.audio if within in path.as_posix()]
    return [path for path in inputs.audio if called(path.parent.as_posix(), "test", inputs.tops)]


def find_training(inputs: Inputs, test: Iterable[Path], within: str, scratch: Path) -> list[Path]:
    """Gives folders and CSVs that may be training data, the likeliest first.

    They are known by ESC-50's or UrbanSound8K's metadata, by a CSV with columns for file and class (once as it is, once
    with the places where its audio really lies), or as a folder with one folder a class.
    """
    test_files = set(test)
    others = [path for path in inputs.audio if path not in test_files]
    known: list[Path] = []
    tables: list[Path] = []
    placed: list[Path] = []
    for path in inputs.tables:
        if is_sample(path) or within not in path.as_posix() or not has_columns(path, FILE_COLUMNS, CLASS_COLUMNS):
            continue
        if (path.parent.name, path.name) in METADATA_FILES:
            known.append(path.parent.parent)
        else:
            tables.append(path)
        placed += place_clips(path, others, scratch / f"table-{len(placed) + 1}")
    class_folders: dict[Path, set[str]] = {}
    for path in others:
        class_folders.setdefault(path.parent.parent, set()).add(path.parent.name)
    holds_test = {parent for path in test_files for parent in path.parents}
    folders = [
        top
        for top, names in sorted(class_folders.items(), key=lambda item: -len(item[1]))
        if len(names) > 1
        and not any(re.fullmatch(r"fold[-_ ]?\d+", name.lower()) for name in names)
        and not holds_test & {top / name for name in names}
    ]
    return [*known, *tables, *placed, *(path for path in folders if within in path.as_posix())]


def place_clips(table: Path, audio: Sequence[Path], into: Path) -> list[Path]:
    """Writes a CSV anew with the whole paths of its audio, wherever that lies.

    Data sets are often uploaded to Kaggle in folders of another shape than their own. Rows without audio or without a
    class are left out.

    Returns:
        The new table; nothing where less than half of the clips are there.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            rows = [
                {(name or "").strip().lower(): cell for name, cell in row.items()} for row in csv.DictReader(handle)
            ]
    except (OSError, UnicodeDecodeError, csv.Error):
        rows = []
    if not rows:
        return []
    file_column, class_column = (
        next(name for name in known if name in rows[0]) for known in (FILE_COLUMNS, CLASS_COLUMNS)
    )
    clips = match_audio([row[file_column] or "" for row in rows], audio, training=True)
    kept = [
        {**row, "clip_id": row[file_column], "filename": str(clip)}
        for row, clip in zip(rows, clips, strict=True)
        if clip is not None and (row[class_column] or "").strip()
    ]
    if 2 * len(kept) < len(rows):
        return []
    if len(kept) < len(rows):
        say(f"Note: {len(rows) - len(kept)} of {len(rows)} rows of {table} have no audio here, or no class")
    into.mkdir(parents=True)
    with (into / table.name).open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [name for name in kept[0] if name])
        writer.writeheader()
        writer.writerows({name: cell for name, cell in row.items() if name} for row in kept)
    return [into / table.name]


def is_sample(path: Path) -> bool:
    """Whether a CSV's name is that of a sample submission."""
    return "sample" in path.name.lower() and "submission" in path.name.lower()


def has_columns(path: Path, *wanted: Sequence[str]) -> bool:
    """Whether a CSV's header names one column of each of these."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            header = next(csv.reader(handle), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    names = {cell.strip().lower() for cell in header}
    return all(names & set(any_of) for any_of in wanted)


# --- The submission ---------------------------------------------------------------------------------------------------


@dataclass
class Submission:
    """The competition's CSV, in the form of its sample; every row holds something valid from the start."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    """An id and what stands beside it."""
    clips: list[Path | None]
    """The audio of each row."""
    sample: Path | None = None
    labels: str = ""
    """names or numbers; empty reads it off the sample."""
    predicted: set[int] = field(default_factory=set)
    """Rows that hold a prediction."""
    doubts: list[str] = field(default_factory=list)
    """Why all of it may be wrong, though it is valid."""

    def __post_init__(self) -> None:
        """Fills what the sample leaves empty: columns of probabilities alike, labels with the commonest."""
        cells = [row[1] for row in self.rows if row[1].strip()]
        self.label_cells = cells
        n_columns = len(self.header) - 1
        filler = f"{1.0 / n_columns:.9g}" if n_columns > 1 else Counter(cells or ["0"]).most_common(1)[0][0]
        for row in self.rows:
            for column in range(1, n_columns + 1):
                cell = row[column].strip().lower()
                row[column] = filler if not cell or cell in ("nan", "na", "null", "none") else row[column]

    def write(self) -> None:
        """Writes the file atomically: whoever looks finds the old one or the new one, whole."""
        handle, temporary = tempfile.mkstemp(prefix=".submission-", suffix=".csv", dir=self.path.parent)
        try:
            with os.fdopen(handle, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(self.header)
                writer.writerows(self.rows)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # noqa: PTH101 - mkstemp's is for its owner alone
            os.replace(temporary, self.path)  # noqa: PTH105
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def fill(self, found: Mapping[int, np.ndarray], names: Sequence[str], numbers: Sequence[int]) -> None:
        """Puts predictions into their rows, and writes the file.

        Args:
            found: probabilities (C,) by row.
            names: of the C classes.
            numbers: the data set's own, or none.

        Raises:
            KernelError: the sample asks for something that these classes cannot give.
        """
        if not found:
            return
        to_cells = self.plan(names, numbers)
        for row, probabilities in found.items():
            self.rows[row] = [self.rows[row][0], *to_cells(probabilities)]
        self.predicted |= set(found)
        if self.sample is None:  # what stands in other rows is no class yet
            for row in set(range(len(self.rows))) - self.predicted:
                self.rows[row] = [self.rows[row][0], *to_cells(np.ones(len(names)))]
        self.write()
        say(f"Wrote {self.path}: {len(self.predicted)} of {len(self.rows)} rows predicted")

    def known(self, names: Sequence[str], numbers: Sequence[int]) -> float:
        """Gives the part of the sample's labels, or of its columns, that are classes of a model, 0 to 1."""
        wanted = set(self.header[1:]) if len(self.header) > 2 else set(self.label_cells if self.sample else ())
        by_number = {str(number) for number in (numbers or range(len(names)))}
        return max(len(wanted & each) for each in (set(names), by_number)) / len(wanted) if wanted else 1.0

    def plan(self, names: Sequence[str], numbers: Sequence[int]) -> Callable[[np.ndarray], list[str]]:
        """Gives what makes a row's cells of its probabilities, by the rules of `esc_ensemble.submission`.

        Raises:
            KernelError: the sample asks for something that these classes cannot give.
        """
        by_number = [str(number) for number in (numbers or range(len(names)))]
        if len(self.header) > 2:
            for known in (list(names), by_number):
                if sorted(self.header[1:]) == sorted(known):
                    order = [known.index(column) for column in self.header[1:]]
                    return lambda p: [f"{value:.9g}" for value in p[order].tolist()]
            odd = sorted(set(self.header[1:]) ^ set(names))
            raise KernelError(
                f"the columns of {self.sample} are no probabilities of the model's classes; not in both: "
                f"{', '.join(odd[:N_NAMED])}"
            )
        wanted = self.labels or self._read_off(names)
        if wanted == "numbers" and not numbers:
            self._doubt(f"the data set's class numbers are not known; 0 to {len(names) - 1} stand for them in order")
        asked = set(self.label_cells) if self.sample else set()
        unknown = sorted(asked - set(by_number if wanted == "numbers" else names))
        if unknown:
            self._doubt(f"{self.sample} holds labels that the model lacks: {', '.join(unknown[:N_NAMED])}")
        texts = by_number if wanted == "numbers" else list(names)
        return lambda p: [texts[int(p.argmax())]]

    def _doubt(self, text: str) -> None:
        if text not in self.doubts:
            self.doubts.append(text)
            say(f"Note: {text}")

    def _read_off(self, names: Sequence[str]) -> str:
        cells = self.label_cells if self.sample else []
        fractions = [cell for cell in cells if whole_number(cell) is None]
        if not fractions:
            return "names" if not cells or all(whole_number(name) is not None for name in names) else "numbers"
        if all(map(is_number, cells)) and not set(fractions) <= set(names):
            raise KernelError(
                f"{self.sample} holds numbers such as {fractions[0]}, neither names nor class numbers. Set LABELS."
            )
        return "names"


def whole_number(text: str) -> int | None:
    """Reads a whole number, also as `3.0`."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if math.isfinite(value) and value == int(value) else None


def is_number(text: str) -> bool:
    """Whether a cell is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_sample(path: Path) -> tuple[list[str], list[list[str]]]:
    """Gives a sample's header and rows.

    Raises:
        KernelError: it cannot be used.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = [row for row in csv.reader(handle, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise KernelError(f"{path} cannot be read as CSV: {error}") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise KernelError(f"{path} must hold a header of at least two columns, and rows")
    if any(len(row) != len(rows[0]) for row in rows):
        raise KernelError(f"{path} has rows with more or fewer columns than its header")
    twice = [clip_id for clip_id, n in Counter(row[0] for row in rows[1:]).items() if n > 1]
    if twice:
        raise KernelError(f"{path} has ids that stand in several rows: {', '.join(twice[:N_NAMED])}")
    return rows[0], rows[1:]


def open_submission(inputs: Inputs, settings: Settings) -> Submission:
    """Finds the sample and the audio of its rows, and writes the first valid file.

    Raises:
        KernelError: there is neither a sample that can be used nor test audio.
    """
    path = Path(settings.output) / "submission.csv"
    usable, passed_over = [], []
    for sample in inputs.tables:
        if not is_sample(sample) or settings.sample not in sample.as_posix():
            continue
        try:
            header, rows = read_sample(sample)
        except KernelError as error:
            say(f"Passed over: {error}")
            passed_over.append(str(error))
            continue
        clips = match_audio([row[0] for row in rows], inputs.audio, settings.test_audio, inputs.tops)
        usable.append(Submission(path, header, rows, clips, sample, settings.labels))
    if usable:
        missing = {id(each): sum(clip is None for clip in each.clips) / len(each.clips) for each in usable}
        best = min(usable, key=lambda each: (missing[id(each)], len(each.sample.parts if each.sample else ())))
        others = f" ({len(usable) - 1} others do not fit better)" if len(usable) > 1 else ""
        say(f"Sample submission: {best.sample}, {len(best.rows)} rows: {', '.join(best.header[:5])}{others}")
        absent = [row[0] for row, clip in zip(best.rows, best.clips, strict=True) if clip is None]
        if absent:
            say(f"No audio for {len(absent)} of {len(best.rows)} ids: {', '.join(absent[:N_NAMED])}")
    else:
        files = test_folder(inputs, settings.test_audio)
        if not files:
            raise KernelError(
                f"{settings.input} holds no usable sample_submission*.csv, and no folder of audio called test: there "
                "is nothing to predict. Attach the competition's data, or name what to take: --input, --sample, "
                "--test-audio."
            )
        top = Path(os.path.commonpath([file.parent for file in files]))
        rows = [[file.relative_to(top).as_posix(), ""] for file in files]
        best = Submission(path, ["clip_id", "label"], rows, list(files), None, settings.labels, doubts=passed_over)
        if settings.sample and not passed_over:
            best.doubts.append(f'no sample submission has SAMPLE, "{settings.sample}", in its path')
        what = "No sample submission can be used" if best.doubts else "No sample submission"
        say(f"{what}: every clip below {top} gets a row, under a header of our own")
    folders = Counter(str(clip.parent) for clip in best.clips if clip is not None)
    say(f"Test audio: {'; '.join(f'{n} files in {folder}' for folder, n in folders.most_common(3)) or 'none'}")
    for folder, n in folders.items():
        if called(folder, "train", inputs.tops) and not called(folder, "test", inputs.tops):
            best.doubts.append(
                f"{n} of the test clips were found in {folder} alone, by its name a folder of training clips"
            )
    best.path.parent.mkdir(parents=True, exist_ok=True)
    best.write()
    say(f"Wrote {best.path}: valid, but nothing is predicted yet")
    return best


# --- Audio ------------------------------------------------------------------------------------------------------------


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Changes the rate of a waveform (T,) in Hz, within about 1e-3 of soxr's HQ, which the models were trained with.

    The spectrum is cut, or filled up, between two stretches of equal length in seconds that both are a whole number of
    samples. Silence around keeps the ends apart, and a filter that falls like a normal distribution is a short one.
    """
    if rate == wanted:
        return samples
    divisor = math.gcd(rate, wanted)
    step_in, step_out = rate // divisor, wanted // divisor
    around = -(-MARGIN // step_in)
    blocks = fast_length(-(-len(samples) // step_in) + 2 * around)
    n_in, n_out = blocks * step_in, blocks * step_out
    padded = np.zeros(n_in)
    padded[around * step_in : around * step_in + len(samples)] = samples
    nyquist = min(n_in, n_out) / 2.0
    spectrum = np.fft.rfft(padded)[: int(nyquist) + 1]
    spectrum *= np.interp(np.arange(len(spectrum)) / nyquist, *FILTER)
    made = np.fft.irfft(spectrum, n_out) * (n_out / n_in)
    start = around * step_out
    return np.asarray(made[start : start + round(len(samples) * wanted / rate)], dtype=np.float32)


_DEVIATIONS = np.linspace(-4.0, 4.0, 513)
FILTER = (  # places as parts of the lower Nyquist frequency, and gains
    FILTER_MIDDLE + FILTER_WIDTH * _DEVIATIONS,
    np.array([0.5 * math.erfc(deviation / math.sqrt(2.0)) for deviation in _DEVIATIONS]),
)


def fast_length(least: int) -> int:
    """Gives the smallest product of 2, 3 and 5 that is not below `least`: FFTs of such lengths are quick."""
    best = 1 << max(0, (least - 1).bit_length())
    five = 1
    while five < best:
        three = five
        while three < best:
            best = min(best, three << max(0, (-(-least // three) - 1).bit_length()))
            three *= 3
        five *= 5
    return best


def read_clip(path: Path, sample_rate: int) -> np.ndarray:
    """Reads a file as a mono waveform (T,) float32 in [-1, 1].

    Raises:
        KernelError: it holds no sound.
    """
    try:
        with soundfile.SoundFile(path) as file:
            if not MIN_RATE <= file.samplerate <= MAX_RATE:
                raise KernelError(f"its rate is {file.samplerate} Hz; {MIN_RATE} to {MAX_RATE} can be")
            n_most = int(MAX_SECONDS * file.samplerate)
            if file.frames > n_most:
                file.seek((file.frames - n_most) // 2)
            samples = file.read(n_most, dtype="float32", always_2d=True).mean(axis=1)  # (T, channels) -> (T,)
            rate = int(file.samplerate)
    except (OSError, RuntimeError, ValueError, MemoryError) as error:  # LibsndfileError is a RuntimeError
        raise KernelError(str(error)) from error
    if not round(len(samples) * sample_rate / max(1, rate)):
        raise KernelError("it holds no samples, or less than one at the model's rate")
    if not np.isfinite(samples).all() or np.abs(samples).max() > MAX_PEAK:
        raise KernelError("its samples are not finite, or far out of [-1, 1]")
    return np.clip(resample(samples, rate, sample_rate), -1.0, 1.0)


# --- Models -----------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """An exported file, ready to hear waveforms (B, T) float32 at its rate."""

    path: Path
    metadata: dict[str, Any]
    hear: Callable[[np.ndarray], np.ndarray]
    """Gives probabilities (B, C)."""
    runs_on: str


@dataclass(frozen=True)
class Attached:
    """An exported file that may be taken."""

    path: Path
    metadata: dict[str, Any]
    module: str
    """What opens it."""
    open: Callable[[], Model]

    @property
    def score(self) -> float:
        """Its top-1 on clips that it was not fitted on, as the export has it, -1 where it does not."""
        rows = [row for row in self.metadata.get("scores") or () if isinstance(row, dict)]
        chosen = [row for row in rows if row.get("name") == "chosen"]
        row = next(iter(chosen or [row for row in rows if row.get("cross_fitted")]), {})
        metrics = row.get("metrics")
        top1 = metrics.get("top1") if isinstance(metrics, dict) else None
        return float(top1) if isinstance(top1, int | float) and math.isfinite(top1) else -1.0


def open_onnx(path: Path, device: str) -> Model:
    """Opens a model with onnxruntime, on a GPU where it has one."""
    import onnxruntime  # noqa: PLC0415 - may not be there

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_cores()
    options.log_severity_level = 3
    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    providers = [name for name in wanted[device == "cpu" :] if name in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    metadata = check_metadata(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), path)
    runs_on = f"onnxruntime {onnxruntime.__version__}, {session.get_providers()[0]}"
    return Model(path, metadata, lambda x: np.asarray(session.run(["probabilities"], {"waveform": x})[0]), runs_on)


def open_torchscript(path: Path, device: str) -> Model:
    """Opens a model with torch, on a GPU where there is one that computes it."""
    import torch  # noqa: PLC0415 - may not be there, and takes seconds

    metadata = read_torchscript(path)
    torch.set_num_threads(n_cores())
    place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    load: Callable[..., Any] = torch.jit.load
    network = load(str(path), map_location=place).eval()
    if place == "cuda":  # a traced network may hold what was made on a CPU
        try:
            with torch.inference_mode():
                network(torch.zeros(1, int(metadata["n_samples"]), device=place))
        except RuntimeError as error:
            say(f"Note: the GPU cannot run {path.name} ({str(error).splitlines()[-1]}); the CPU does")
            place = "cpu"
            network = load(str(path), map_location=place).eval()

    def hear(waveforms: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(waveforms).to(place)).float().cpu().numpy())

    return Model(path, metadata, hear, f"torch {torch.__version__}, {place}")


def read_torchscript(path: Path) -> dict[str, Any]:
    """Reads the metadata of a TorchScript file, without torch."""
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if name.endswith(f"/extra/{METADATA_KEY}")]
        return check_metadata(archive.read(inside[0]).decode() if inside else None, path)


def check_metadata(text: str | None, path: Path) -> dict[str, Any]:
    """Reads what `esc-ens export` wrote into a file beside the network.

    Raises:
        KernelError: it was not made by it.
    """
    metadata = json.loads(text) if text else None
    needed = ("class_names", "sample_rate", "n_samples")
    if not isinstance(metadata, dict) or not all(key in metadata for key in needed):
        raise KernelError(f"{path} was not made by `esc-ens export`: it has no metadata with {', '.join(needed)}")
    return metadata


def can_import(name: str) -> bool:
    """Whether a module is there and works; one that breaks while it is loaded does not."""
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - a broken binary raises anything
        if not isinstance(error, ModuleNotFoundError):
            say(f"Note: {name} is here, but does not load: {error}")
        return False
    return True


def install_wheels(wheels: Sequence[Path], site: Path) -> None:
    """Installs attached wheels whose distributions are not there yet, beside what is, without internet."""
    for wheel in wheels:
        name = wheel.name.split("-")[0]
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            quiet = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"]
            command = [sys.executable, "-m", "pip", "install", *quiet, "--target", str(site), str(wheel)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            say(f"Installed {wheel.name}" if done.returncode == 0 else f"Could not install {wheel}: {reason}")
    if site.is_dir() and str(site) not in sys.path:
        sys.path.append(str(site))  # last: what the image has goes first
        importlib.invalidate_caches()


def find_models(inputs: Inputs, submission: Submission, settings: Settings, site: Path) -> list[Attached]:
    """Gives the attached models, the one to take first first.

    Those go first whose classes are the sample's, then those with the best score, then ONNX, which starts at once.
    """
    wanted = {
        "onnxruntime": [path for path in inputs.onnx if settings.model in path.as_posix()],
        "torch": [path for path in inputs.torchscript if settings.model in path.as_posix()],
    }
    listed = [str(path) for paths in wanted.values() for path in paths]
    n_others = len(inputs.onnx) + len(inputs.torchscript) - len(listed)
    others = f" ({n_others} others do not have MODEL, {settings.model!r}, in their paths)" if n_others else ""
    say(f"Models attached: {', '.join(listed) or 'none'}{others}")
    found = []
    for module, paths in wanted.items():
        if paths and absent_of([module]) and inputs.wheels:
            install_wheels(inputs.wheels, site)
        # Torch takes seconds to load: that it works is seen when it is used.
        if paths and (absent_of([module]) if module == "torch" else not can_import(module)):
            say(f"{module} cannot be imported, so that {', '.join(path.name for path in paths)} cannot be used")
            continue
        for path in paths:
            try:
                found.append(attach(path, module, settings.device))
            except Exception as error:  # noqa: BLE001 - a file that cannot be opened raises anything
                say(f"Passed over {path}: {error}")

    def rank(model: Attached) -> tuple[float, float, bool]:
        names, numbers = model.metadata["class_names"], model.metadata.get("class_numbers") or []
        return -submission.known(names, numbers), -model.score, model.module == "torch"

    if listed and not found:
        say("WARNING: none of the attached models can be used")
    return sorted(found, key=rank)


def attach(path: Path, module: str, device: str) -> Attached:
    """Looks into an exported file; of TorchScript at its metadata alone, since torch takes seconds to load."""
    if module == "torch":
        return Attached(path, read_torchscript(path), module, lambda: open_torchscript(path, device))
    model = open_onnx(path, device)
    return Attached(path, model.metadata, module, lambda: model)


def predict(model: Model, submission: Submission, settings: Settings) -> dict[str, str]:
    """Hears the clips and fills the submission, now and then and in the end.

    Returns:
        What is wrong with each row that has no prediction, by id.

    Raises:
        KernelError: the model hears none of the first clips, or the sample wants other classes.
    """
    names, numbers = model.metadata["class_names"], model.metadata.get("class_numbers") or []
    submission.plan(names, numbers)  # refuses before the work what it would refuse after it
    found: Probabilities = {}
    bad: dict[str, str] = {}
    last, n_written = time.monotonic(), 0
    size, recent = 1, deque[float](maxlen=3)  # clips at a time, and the seconds that one took of late
    todo = [(row, clip) for row, clip in enumerate(submission.clips) if clip is not None]
    pool = ThreadPoolExecutor(n_cores())
    read = zip(todo, ahead(pool, lambda item: try_read(item[1], int(model.metadata["sample_rate"])), todo), strict=True)
    try:
        while True:
            left = settings.left - LAST_SECONDS
            fitting = int(left / max(recent)) if recent else int(left > 0.0)
            size, start = min(size, fitting), time.monotonic()
            batch = list(islice(read, size)) if size > 0 else []
            if not batch:
                if size <= 0 and len(found) + len(bad) < len(todo):
                    say(f"TIME_BUDGET is used up after {len(found)} of {len(todo)} clips")
                break
            good = {row: heard for (row, _), heard in batch if isinstance(heard, np.ndarray)}
            wrong = {row: heard for (row, _), heard in batch if isinstance(heard, str)}
            for row, probabilities in hear_each(model, good).items():
                if isinstance(probabilities, str):
                    wrong[row] = probabilities
                else:
                    found[row] = probabilities
            bad |= {submission.rows[row][0]: f"{submission.clips[row]}: {why}" for row, why in wrong.items()}
            if good and not found and len(bad) >= min(settings.batch_size, len(todo)):
                raise KernelError(f"the model hears none of the first clips: {next(iter(bad.values()))}")
            recent.append((time.monotonic() - start) / len(batch))
            size = min(2 * size, settings.batch_size)
            if time.monotonic() - last > WRITE_EVERY:
                submission.fill(found, names, numbers)
                last, n_written = time.monotonic(), len(found)
    finally:  # however it ends, what was heard counts
        pool.shutdown(wait=False, cancel_futures=True)
        if len(found) > n_written:
            submission.fill(found, names, numbers)
    return bad


def hear_each(model: Model, clips: Mapping[int, np.ndarray]) -> dict[int, np.ndarray | str]:
    """Hears waveforms, those of one length together; a batch that fails (memory, mostly) is heard one by one."""
    heard: dict[int, np.ndarray | str] = {}
    by_length: dict[int, list[int]] = {}
    for row, waveform in clips.items():
        by_length.setdefault(len(waveform), []).append(row)
    groups = deque(by_length.values())
    while groups:
        rows = groups.popleft()
        try:
            probabilities = model.hear(np.stack([clips[row] for row in rows]))
        except Exception as error:  # noqa: BLE001 - each runtime has its own
            if len(rows) > 1:
                groups.extend([row] for row in rows)
            else:
                heard[rows[0]] = f"the model fails on it: {error}"
            continue
        for row, values in zip(rows, probabilities, strict=True):
            heard[row] = values if np.isfinite(values).all() else "the model gives no number for it"
    return heard


def try_read(path: Path, sample_rate: int) -> np.ndarray | str:
    """Gives the waveform, or why there is none."""
    try:
        return read_clip(path, sample_rate)
    except KernelError as error:
        return str(error)


def ahead(pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Gives what `work` makes of each item, in order, while the pool is at work on the next ones."""
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > 4 * n_cores():
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def n_cores() -> int:
    """Gives the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- Training, where no model is attached -----------------------------------------------------------------------------


def unpack_package(folder: Path) -> None:
    """Puts the embedded package in front of `sys.path`, or what lies beside this file.

    Raises:
        KernelError: the embedded text is damaged.
    """
    text = "".join(PACKAGE.split())
    if not text:
        beside = Path(globals().get("__file__", ".")).resolve().parent
        if (beside / "esc_ensemble" / "__init__.py").is_file():
            sys.path.insert(0, str(beside))
        return
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise KernelError(f"the embedded package is no base64 ({error}); build the kernel again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != PACKAGE_SHA256:
        raise KernelError(
            f"the embedded package is damaged: its SHA-256 is {found}, {PACKAGE_SHA256 or 'none'} is told; build the "
            "kernel again"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(folder)
    except (zipfile.BadZipFile, OSError) as error:
        raise KernelError(f"the embedded package cannot be unpacked: {error}") from error
    sys.path.insert(0, str(folder))


def absent_of(modules: Iterable[str]) -> list[str]:
    """Gives those modules that cannot be imported."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def train(inputs: Inputs, submission: Submission, settings: Settings, scratch: Path) -> dict[str, str]:
    """Trains a blend within the budget and fills the submission whenever more of it is done.

    Returns:
        What is wrong with each row that has no prediction, by id.

    Raises:
        KernelError: there is no training data, or no package that trains.
    """
    clips = {row: clip for row, clip in enumerate(submission.clips) if clip is not None}
    candidates = find_training(inputs, clips.values(), settings.train_data, scratch)
    say(f"Training data: {', '.join(map(str, candidates)) or 'none'}")
    if not clips:
        raise KernelError("there is no test audio to predict, so that nothing is trained")
    if not candidates:
        attached = "no attached model can be used" if inputs.onnx or inputs.torchscript else "no model is attached"
        raise KernelError(
            f"{attached}, and there is no training data: attach a file made by `esc-ens export`, or a data set in the "
            "layout of ESC-50 or UrbanSound8K, with a CSV of files and classes, or with one folder a class"
        )
    unpack_package(scratch / "package")
    if absent_of(NEEDED):
        install_wheels(inputs.wheels, scratch / "site")
    if absent := absent_of(NEEDED):
        raise KernelError(f"training needs {', '.join(absent)}, which this environment lacks: attach the wheels")
    try:
        from esc_ensemble.kaggle.train import Job, train_and_predict  # noqa: PLC0415 - only now is it on the path
    except ModuleNotFoundError as error:
        raise KernelError(f"the package cannot train here: {error.name} is missing; attach its wheel") from error

    def better(found: Probabilities, names: Sequence[str], numbers: Sequence[int]) -> None:
        submission.fill(found, names, numbers)

    work = Path(settings.output) / "esc_ensemble"
    work.mkdir(exist_ok=True)
    job = Job(
        candidates=tuple(candidates),
        clips=clips,
        work=Path(tempfile.mkdtemp(prefix="training-", dir=work)),
        scratch=scratch,
        esc10=settings.esc10,
        device=settings.device,
    )
    bad = train_and_predict(job, settings.left - LAST_SECONDS, better, say)
    return {submission.rows[row][0]: f"{clips[row]}: {why}" for row, why in bad.items()}


# --- The whole --------------------------------------------------------------------------------------------------------


def tell_machine() -> None:
    """Says what this runs on."""
    versions = [f"Python {platform.python_version()}", f"numpy {np.__version__}", f"soundfile {soundfile.__version__}"]
    say(f"{', '.join(versions)}; {n_cores()} cores, {platform.machine()}")


def run(inputs: Inputs, submission: Submission, settings: Settings, scratch: Path) -> dict[str, str]:
    """Predicts with the first model that works, or trains one; what fails is told, and the next thing tried."""
    if any(clip is not None for clip in submission.clips):
        for attached in find_models(inputs, submission, settings, scratch / "site"):
            try:
                model = attached.open()
                say(f"Model {describe(attached)}, {model.runs_on}")
                return predict(model, submission, settings)
            except Exception as error:  # noqa: BLE001 - whatever it is, the file that stands is valid
                tell_failure(f"Predicting with {attached.path} failed", error)
    try:
        return train(inputs, submission, settings, scratch)
    except Exception as error:  # noqa: BLE001 - as above
        tell_failure("Training failed", error)
        return {}


def describe(model: Attached) -> str:
    """Says what a model is, in a line."""
    how = "top-1 on its test fold" if model.metadata.get("fitted_on") == "selection" else "cross-fitted top-1"
    score = f", {how} {model.score:.4f}" if model.score >= 0.0 else ""
    return f"{model.path}: {len(model.metadata['class_names'])} classes, {model.metadata['sample_rate']} Hz{score}"


def tell_failure(what: str, error: Exception) -> None:
    """Says what went wrong, with a traceback unless the reason is told in full."""
    say(f"{what}: {error}")
    if not isinstance(error, KernelError):
        print(traceback.format_exc(), flush=True)


def conclude(submission: Submission, bad: Mapping[str, str], settings: Settings) -> int:
    """Says what came out, and gives the exit code."""
    n_rows, n_predicted = len(submission.rows), len(submission.predicted)
    for clip_id, why in list(bad.items())[:N_NAMED]:
        say(f"No prediction for {clip_id}: {why}")
    if len(bad) > N_NAMED:
        say(f"... and for {len(bad) - N_NAMED} more")
    if n_predicted < n_rows:
        instead = "the sample's own values" if submission.sample else "a class that was not predicted"
        say(f"{n_rows - n_predicted} of {n_rows} rows hold {instead}")
    used = time.monotonic() - START
    say(f"Done: {submission.path}, {n_predicted} of {n_rows} rows predicted, {used:.1f} of {settings.time_budget:g} s")
    doubts = list(submission.doubts)
    if not n_predicted:
        doubts.insert(0, "it holds NO PREDICTION; what failed stands above")
    if doubts:
        lines = "\n".join(f"  - {doubt}" for doubt in doubts)
        print(f"\n{'!' * 100}\nWARNING: {submission.path} is whole, but:\n{lines}\n{'!' * 100}", flush=True)
    return 1 if settings.strict and not n_predicted else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Does all of it, and gives the exit code."""
    # Threads that wait spin by default, and on a busy machine starve the ones they wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    in_notebook = "ipykernel" in sys.modules  # whose command line is not ours
    settings = read_settings([] if in_notebook else sys.argv[1:] if arguments is None else arguments)
    tell_machine()
    folders = [Path(folder) for folder in settings.input.split(os.pathsep) if folder]
    inputs = find_inputs(folders, Path(settings.output) / "esc_ensemble")
    say(
        f"In {settings.input}: {len(inputs.audio)} audio files, {len(inputs.tables)} tables, "
        f"{len(inputs.onnx) + len(inputs.torchscript)} models, {len(inputs.wheels)} wheels"
    )
    try:
        submission = open_submission(inputs, settings)
    except (KernelError, OSError) as error:
        say(f"Nothing was written: {error}")
        return 2
    scratch = Path(tempfile.mkdtemp(prefix="esc_ensemble-"))
    try:
        if not in_notebook and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it is tidied up after
        bad = run(inputs, submission, settings, scratch)
    except KeyboardInterrupt:
        say(f"Stopped: {submission.path} holds {len(submission.predicted)} predictions")
        return STOPPED
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return conclude(submission, bad, settings)


# The package as a zip in base64, put here by `esc-ens kaggle build`. In the repository it lies beside this file.
PACKAGE = ""

if __name__ == "__main__":
    code = main()
    if code:
        sys.exit(code)
