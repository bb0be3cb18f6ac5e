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
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unicodedata
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

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
DATA_FLAGS = ""  # How training data is read, as flags of `esc-ens data info`: "--folders classes --n-folds 5".
LABELS = ""  # Next to the ids: "names", "numbers" or "probabilities"; what the sample wants where empty.
ESC10 = False  # Train on ESC-50's ten classes marked esc10 alone.
DEVICE = "auto"  # "cpu" keeps away from a GPU.
BATCH_SIZE = 16  # Clips at a time.
STRICT = False  # Exit code 1 unless the submission holds real predictions.

# SHA-256 of the embedded package, which `esc-ens kaggle build` puts at the end of this file.
PACKAGE_SHA256 = ""

# --- End of settings --------------------------------------------------------------------------------------------------

START = time.monotonic()
METADATA_KEY = "esc_ensemble"
NEEDED = ("esc_ensemble", "torch", "accelerate", "filelock", "pydantic", "safetensors", "scipy", "soxr", "yaml")
TORCHSCRIPT_ENDING = ".torchscript.pt"
# Where soxr's HQ filter is at half, as a part of the lower Nyquist frequency, and how wide it falls there.
FILTER_MIDDLE, FILTER_WIDTH = 0.957, 0.0115
MARGIN = 8192  # Samples of silence around a clip that is resampled.
MAX_SECONDS = 600.0  # Of longer recordings the middle is heard.
MAX_PEAK = 16.0
MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz
UNKNOWN_FRAMES = 1 << 62  # libsndfile's number of samples is above this where a file does not say how many.
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
    data_flags: str = DATA_FLAGS
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
    if settings.labels not in ("", "names", "numbers", "probabilities"):
        parser.error(f'LABELS is "{settings.labels}": write names, numbers or probabilities, or leave it empty')
    if not settings.time_budget > 0 or settings.batch_size < 1:
        parser.error("TIME_BUDGET must be above 0 and BATCH_SIZE at least 1")
    # Tables that are written elsewhere name files by their paths, which have to be absolute for that.
    folders = [os.path.abspath(folder) for folder in settings.input.split(os.pathsep) if folder]  # noqa: PTH100
    return replace(settings, input=os.pathsep.join(folders), output=os.path.abspath(settings.output))  # noqa: PTH100


# --- What lies where --------------------------------------------------------------------------------------------------


# --- copied from esc_ensemble/data/walk.py

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"),
)
"""Endings of file names, in lower case, that are decoded here."""
OTHER_AUDIO_SUFFIXES = (
    *(".m4a", ".m4b", ".aac", ".mp4", ".wma", ".webm", ".amr", ".ape", ".wv", ".mka", ".3gp", ".mp2", ".ac3", ".dsf"),
    *(".weba", ".spx", ".tta", ".dff"),
)
"""Endings of audio that cannot be decoded here: such files are named, not passed over."""
POINTER_BYTES = 1024
"""A file larger than this is no pointer of Git LFS or git-annex."""


@dataclass
class Walk:
    """Contents of a folder."""

    files: list[Path] = field(default_factory=list)
    """All files, sorted by path, without hidden ones."""
    dead_links: list[Path] = field(default_factory=list)
    """Links that lead nowhere, such as git-annex leaves where a file was not fetched."""
    n_hidden: int = 0
    """Files and folders passed over because their name begins with a dot or is __MACOSX."""
    n_special: int = 0
    """Pipes, sockets and devices."""
    unreadable: list[Path] = field(default_factory=list)
    """Folders that may not be listed."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is passed over for its name: `.name`, and what macOS puts into archives."""
    return name.startswith(".") or name == "__MACOSX"


def folder_id(folder: str | Path) -> tuple[int, int]:
    """Returns what is the same for all paths to one folder: its device and its number there."""
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def walk(top: Path, leave_out: Path | None = None) -> Walk:
    """Lists all files below a folder; links to folders are followed, each folder once, real ones first.

    Args:
        top: the folder, whose own name may be anything.
        leave_out: a folder to pass over.
    """
    found = Walk()
    seen = {folder_id(leave_out)} if leave_out is not None and leave_out.is_dir() else set()
    if top.is_dir():  # a link to a folder above the top leads in a circle
        seen |= {folder_id(above) for above in Path(os.path.realpath(top)).parents}
    folders, links = deque([os.fspath(top)]), deque[str]()
    while folders or links:
        folder = (folders or links).popleft()
        try:
            identity = folder_id(folder)
            if identity in seen:
                continue
            seen.add(identity)
            entries = list(os.scandir(folder))
        except OSError:
            found.unreadable.append(Path(folder))
            continue
        for entry in entries:
            if is_hidden(entry.name):
                found.n_hidden += 1
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(entry.path)
            elif entry.is_file():
                found.files.append(Path(entry.path))
            elif entry.is_symlink():
                found.dead_links.append(Path(entry.path))
            else:
                found.n_special += 1
        links = deque(sorted(links))
    for paths in (found.files, found.dead_links):
        paths.sort(key=lambda path: path.parts)  # quicker than comparing paths themselves
    return found


def is_audio(path: Path, suffixes: Iterable[str] = (*AUDIO_SUFFIXES, *OTHER_AUDIO_SUFFIXES)) -> bool:
    """Whether a file is audio by its ending, whatever the case of its letters."""
    return path.name.lower().endswith(tuple(suffixes))


def pointer_in(path: Path) -> str:
    """Names the program that left a small text in the place of a file: Git LFS or git-annex; empty for a real file."""
    try:
        if path.stat().st_size > POINTER_BYTES:
            return ""
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return ""
    if head.startswith(b"version https://git-lfs.github.com/"):
        return "Git LFS"
    return "git-annex" if head.startswith(b"/annex/objects/") else ""


# --- end of the copy


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
    parquet: list[Path] = field(default_factory=list)
    dead_links: list[Path] = field(default_factory=list)
    """Links that lead nowhere."""
    n_hidden: int = 0
    """Files and folders passed over for their names."""


def find_inputs(folders: Iterable[Path], leave_out: Path) -> Inputs:
    """Sorts all files below the folders by kind, following links; hidden ones and `leave_out` are passed over."""
    found = Inputs(list(folders))
    kinds: list[tuple[tuple[str, ...], list[Path]]] = [
        ((*AUDIO_SUFFIXES, *OTHER_AUDIO_SUFFIXES), found.audio),
        ((".csv",), found.tables),
        ((".onnx",), found.onnx),
        ((TORCHSCRIPT_ENDING,), found.torchscript),
        ((".whl",), found.wheels),
        ((".parquet",), found.parquet),
    ]
    for top in found.tops:
        below = walk(top, leave_out)
        found.dead_links += below.dead_links
        found.n_hidden += below.n_hidden
        for path in below.files:
            for endings, into in kinds:
                if path.name.lower().endswith(endings) and path not in into[-1:]:
                    into.append(path)
    return found


def stem_of(clip_id: str) -> str:
    """Cuts the ending of an audio file; an id may hold a dot of its own."""
    suffix = PurePosixPath(clip_id).suffix
    return clip_id.removesuffix(suffix) if suffix.lower() in (*AUDIO_SUFFIXES, *OTHER_AUDIO_SUFFIXES) else clip_id


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
    there is but one (in small letters, if need be). Names match in Unicode's composed form where no file is spelled
    like the id. Of training clips the folder with most of the ids goes first, and nothing is guessed: a wrong file
    there is a wrong label.

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
        if composed(within) in composed(path.as_posix()):
            by_name.setdefault(composed(stem_of(path.name)), []).append(path)
            n_files[path.parent.as_posix()] += 1
    choices: list[dict[str, Path]] = []  # of each id: top folder -> file
    for clip_id in ids:
        spelled = clip_id.strip().replace("\\", "/").removeprefix("./").strip("/")
        spelled_tail = stem_of(spelled)
        tail = composed(spelled_tail)
        n_parts = tail.count("/") + 1
        files: dict[str, Path] = {}
        fits: dict[str, tuple[bool, bool]] = {}
        for path in by_name.get(PurePosixPath(tail).name, ()):
            full = stem_of(path.as_posix())
            if composed(full) == tail or composed(full).endswith(f"/{tail}"):
                top = "".join(f"{part}/" for part in full.split("/")[:-n_parts])
                # Of files next to each other the one is taken whose name is spelled as in the id, composed or not, and
                # of 1.wav and 1.ogg the one that the id names.
                fit = (
                    f"/{full}".endswith(f"/{spelled_tail}"),
                    composed(path.name) == PurePosixPath(composed(spelled)).name,
                )
                if top not in files or fit > fits[top]:
                    files[top], fits[top] = path, fit
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
            name = composed(PurePosixPath(stem_of(clip_id.strip().replace("\\", "/"))).name)
            alike = by_name.get(name) or small.get(name.lower(), [])
            if found[place] is None and len(alike) == 1:
                found[place] = alike[0]
    return found


def test_folder(inputs: Inputs, within: str) -> list[Path]:
    """Gives the test audio where no sample says which: that of the folder named, or of folders called test."""
    if within:
        return [path for path in inputs.audio if composed(within) in composed(path.as_posix())]
    return [path for path in inputs.audio if called(path.parent.as_posix(), "test", inputs.tops)]


def is_sample(path: Path) -> bool:
    """Whether a CSV's name is that of a sample submission."""
    return "sample" in path.name.lower() and "submission" in path.name.lower()


# --- The submission ---------------------------------------------------------------------------------------------------

# --- copied from esc_ensemble/submission_rules.py

BLANKS = ("", "nan", "na", "null", "none")
# As pandas writes numbers: 0.5, 3.0, 1e-05; neither 007 nor 1e3, +5, 1_000, inf.
DECIMAL = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE]-[0-9]+)?")
SEPARATORS = (r"\s*;\s*", r"\s*\|\s*", r"\s*,\s*", r"\s+")
# An id that is a recording's, with the end in seconds behind it.
WINDOW = re.compile(r"(.+)[_-]([0-9]+(?:\.[0-9]+)?)")
# Words that name a column of probabilities, alone or next to others; alone; and next to the name of a class.
PROBABILITY_WORDS = frozenset(("probability", "probabilities", "prob", "probs", "proba", "score", "scores"))
TARGET_WORDS = frozenset(("target", "prediction", "predictions", "predicted", "pred"))
CLASS_WORDS = frozenset(("p", "of", "is", "has"))
N_SECONDS_NAMED = 3


@dataclass(frozen=True)
class LabelForm:
    """What the one column next to the ids holds."""

    kind: str
    """names, numbers or probabilities."""
    texts: tuple[str, ...]
    """The text of each class, where labels are names or numbers."""
    n_labels: int = 1
    """Labels in a cell, the most probable one first."""
    separator: str = ""
    """Between the labels of a cell."""
    label: int = 0
    """The class whose probability is written."""
    unknown: tuple[str, ...] = ()
    """Labels in the sample that are no classes."""
    n_distinct: int = 0
    """Different labels in the sample."""
    note: str = ""
    """What the user has to know of a choice that could have been another."""


def composed(text: str) -> str:
    """Return the text in Unicode's composed form (NFC): file names from a Mac are decomposed."""
    return unicodedata.normalize("NFC", text)


def index_names(names: Sequence[str]) -> dict[str, int]:
    """Return the index of each name, by its own spelling and in composed form."""
    index: dict[str, int] = {}
    for number, name in enumerate(names):
        index.setdefault(composed(name), number)
    return index | {name: number for number, name in enumerate(names)}


def find_name(text: str, index: Mapping[str, int]) -> int | None:
    """Return the index of a name, also where its accents are encoded in another way."""
    return index.get(text, index.get(composed(text)))


def number_written(text: str) -> int | None:
    """Return the integer that a text is, if it is written as one: "7" and "-3", but not "007", "1e3" or "+5"."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if str(number) == text else None


def cell_number(cell: str) -> int | None:
    """Return the whole number in a cell, also one that pandas wrote as `3.0`."""
    whole, _, zeros = cell.partition(".")
    return None if zeros.strip("0") else number_written(whole)


def is_probability(cell: str) -> bool:
    """Whether a cell holds a number from 0 to 1."""
    return DECIMAL.fullmatch(cell) is not None and 0.0 <= float(cell) <= 1.0


def order_columns(columns: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Return the class of each column, or None where the columns are not the classes, each once."""
    index = index_names(names)
    found = [find_name(column, index) for column in columns]
    order = [label for label in found if label is not None]
    return order if len(order) == len(found) and sorted(order) == list(range(len(names))) else None


def words_of(text: str) -> list[str]:
    """Return the words of a column's or class's name, in small letters."""
    return re.findall(r"[^\W_]+", composed(text).casefold())


def is_called_probability(column: str) -> bool:
    """Whether a column's name has a word for probabilities."""
    return not PROBABILITY_WORDS.isdisjoint(words_of(column))


def probability_class(column: str, names: Sequence[str]) -> int | None:
    """Return the class whose probability a column holds by its name, or None where the name is of something else.

    It is the class named (`siren`, `siren_probability`, `is_siren`), or of two classes the second, where the column is
    called `probability` or `target`.
    """
    label = find_name(column.strip(), index_names(names))
    if label is not None:
        return label
    words = words_of(column)
    others = [word for word in words if word not in PROBABILITY_WORDS | TARGET_WORDS | CLASS_WORDS]
    named = [number for number, name in enumerate(names) if others and words_of(name) == others]
    if len(named) == 1:
        return named[0]
    general = is_called_probability(column) or (not others and not TARGET_WORDS.isdisjoint(words))
    return 1 if general and len(names) == 2 else None


def split_labels(cells: Sequence[str], index: Mapping[str, int]) -> tuple[list[list[str]], str]:
    """Split cells that all hold the same number of labels, two or more, all of them names or all of them numbers.

    Returns:
        The labels of each cell, and what separates them; one label a cell and "" where cells are not such lists.
    """
    if not any(find_name(cell, index) is not None for cell in cells):
        for pattern in SEPARATORS:
            lists = [re.split(pattern, cell) for cell in cells]
            parts = {part for labels in lists for part in labels}
            same = len({len(labels) for labels in lists}) == 1 and len(lists[0]) > 1
            if same and (
                all(find_name(part, index) is not None for part in parts)
                or all(cell_number(part) is not None for part in parts)
            ):
                between = re.search(pattern, cells[0])
                return lists, between.group() if between else ""
    return [[cell] for cell in cells], ""


def choose_kind(labels: Sequence[str], names: Sequence[str], numbers: Sequence[int], choices: Sequence[str]) -> str:
    """Return whether labels are class names or class numbers.

    Raises:
        ValueError: they are fractions, and not names.
    """
    index = index_names(names)
    values = [cell_number(label) for label in labels]
    fractions = [label for label, value in zip(labels, values, strict=True) if value is None]
    all_names = all(find_name(label, index) is not None for label in labels)
    if not labels or (all_names and fractions):
        return "names"
    if not fractions:
        all_numbers = {*values} <= {*numbers}
        if all_names != all_numbers:
            return "names" if all_names else "numbers"
        # Names such as 07 are no numbers, but where the data set has no others, its labels look like this.
        digits = not numbers and all(re.fullmatch("[0-9]+", name) for name in names)
        return "names" if digits or all(number_written(name) is not None for name in names) else "numbers"
    odd = [label for label in fractions if find_name(label, index) is None]
    if odd and all(DECIMAL.fullmatch(label) for label in labels):
        *first, last = (f"--labels {choice}" for choice in choices)
        raise ValueError(
            f"has one label column with numbers such as {odd[0]}, which are neither class names nor whole class "
            f"numbers. Choose what is written: {', '.join(first)} or {last}."
        )
    return "names"


def spell_names(names: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Return the class names as the sample spells them, which may be decomposed where the model's are composed."""
    index = index_names(names)
    found = [(label, number) for label in labels if (number := find_name(label, index)) is not None]
    if all(names[number] == label for label, number in found):
        return tuple(names)
    spelled = list(names)
    if all(unicodedata.is_normalized("NFC", label) for label, _ in found):
        spelled = [unicodedata.normalize("NFC", name) for name in names]
    elif all(unicodedata.is_normalized("NFD", label) for label, _ in found):
        spelled = [unicodedata.normalize("NFD", name) for name in names]
    for label, number in found:
        spelled[number] = label
    return tuple(spelled) if len({*spelled}) == len(names) else tuple(names)


def read_label_column(
    column: str, cells: Sequence[str], names: Sequence[str], numbers: Sequence[int], wanted: str
) -> LabelForm:
    """Read off a sample with one column next to the ids what that column holds.

    Args:
        column: its name.
        cells: of all rows; some or all may be empty.
        names: the C classes.
        numbers: of the classes in the data set, or none.
        wanted: "names", "numbers" or "probabilities" where the user decided, else "".

    Raises:
        ValueError: the column cannot hold what is wanted, or anything; the text is without the sample's path.
    """
    index = index_names(names)
    seen = dict.fromkeys(cell if cell in index else cell.strip() for cell in cells)
    filled = [cell for cell in seen if cell.lower() not in BLANKS or cell in index]
    label = probability_class(column, names)
    in_range = bool(filled) and all(map(is_probability, filled))
    can_be = label is not None or len(names) == 2
    if wanted == "probabilities" or (not wanted and in_range and label is not None and len(names) == 2):
        if not can_be:
            raise ValueError(
                "has one label column, which takes names or numbers, not probabilities: its name is not that of a "
                "class. Leave --labels out."
            )
        label = 1 if label is None else label
        note = f'column "{column}" gets the probability of {names[label]}; --labels numbers writes labels instead'
        return LabelForm("probabilities", (), label=label, note="" if wanted else note)
    lists, separator = split_labels(filled, index)
    labels = list(dict.fromkeys(part for parts in lists for part in parts))
    choices = ("names", "numbers", "probabilities") if can_be else ("names", "numbers")
    kind = wanted or choose_kind(labels, names, numbers, choices)
    n_labels = min(len(lists[0]), len(names)) if lists else 1
    if kind == "numbers":
        own = numbers or range(len(names))
        texts = tuple(str(number) for number in own)
        values = {value for part in labels if (value := cell_number(part)) is not None}
        unknown = tuple(str(value) for value in sorted(values - {*own}))
    else:
        texts = spell_names(names, labels)
        unknown = tuple(
            sorted(
                part for part in labels if find_name(part, index) is None and not (wanted and DECIMAL.fullmatch(part))
            )
        )
    note = ""
    if in_range and not wanted and can_be:
        instead = names[1 if label is None else label]
        note = (
            f'column "{column}" gets class {kind}; --labels probabilities writes the probability of {instead} instead'
        )
    elif in_range and not wanted and is_called_probability(column):
        note = f'column "{column}" gets class {kind}: of a model with {len(names)} classes it names no class'
    return LabelForm(kind, texts, n_labels, separator, unknown=unknown, n_distinct=len(labels), note=note)


def describe_windows(ids: Sequence[str], has_audio: Callable[[Sequence[str]], Sequence[bool]]) -> str:
    """Return what ids are that are windows of recordings, such as `soundscape_8358_5`, for most of them.

    Args:
        ids: of all rows, without the suffix of an audio file.
        has_audio: whether there is audio for each id.

    Returns:
        A clause; "" where ids are something else.
    """
    distinct = list(dict.fromkeys(ids))
    recordings: dict[str, str] = {}
    ends: dict[str, str] = {}
    for clip_id, has in zip(distinct, has_audio(distinct), strict=True):
        window = None if has else WINDOW.fullmatch(clip_id)
        if window:
            recordings[clip_id], ends[clip_id] = window[1], window[2]
    known: dict[str, list[str]] = {}
    for _ in range(2):  # an id may hold the start of its window too
        names = [*recordings]
        for clip_id, has in zip(names, has_audio([recordings[name] for name in names]), strict=True):
            recording = recordings.pop(clip_id)
            window = WINDOW.fullmatch(recording)
            if has:
                known.setdefault(recording, []).append(ends[clip_id])
            elif window:
                recordings[clip_id] = window[1]
    if 2 * sum(map(len, known.values())) <= len(distinct):
        return ""
    recording, seconds = next(iter(known.items()))
    first = sorted({*seconds}, key=float)
    listed = ", ".join(first[:N_SECONDS_NAMED]) + (" ..." if len(first) > N_SECONDS_NAMED else "")
    return (
        f"rows that are windows of recordings are not supported yet (recording {recording} has audio, its rows stand "
        f"for windows ending at {listed} s)"
    )


# --- end of the copy


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
    """names, numbers or probabilities; empty reads it off the sample."""
    predicted: set[int] = field(default_factory=set)
    """Rows that hold a prediction."""
    doubts: list[str] = field(default_factory=list)
    """Why all of it may be wrong, though it is valid."""
    notes: list[str] = field(default_factory=list)
    """What was logged of the choices made."""

    def __post_init__(self) -> None:
        """Fills what the sample leaves empty: columns of probabilities alike, labels with the commonest."""
        self.label_cells = [row[1] for row in self.rows] if self.sample else []
        n_columns = len(self.header) - 1
        texts = [row[1] for row in self.rows if row[1].strip().lower() not in ("", "nan")]
        filled = [text for text in texts if text.strip().lower() not in BLANKS] or texts  # a class may be called none
        filler = f"{1.0 / n_columns:.9g}" if n_columns > 1 else Counter(filled or ["0"]).most_common(1)[0][0]
        for row in self.rows:
            for column in range(1, n_columns + 1):
                row[column] = filler if row[column].strip().lower() in BLANKS else row[column]

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
        if self.sample is None and self.labels == "probabilities":
            self.header = [self.header[0], *names]
        for row, probabilities in found.items():
            self.rows[row] = [self.rows[row][0], *to_cells(probabilities)]
        self.predicted |= set(found)
        if self.sample is None:  # what stands in other rows is no class yet
            for row in set(range(len(self.rows))) - self.predicted:
                self.rows[row] = [self.rows[row][0], *to_cells(np.full(len(names), 1.0 / len(names)))]
        self.write()
        say(f"Wrote {self.path}: {len(self.predicted)} of {len(self.rows)} rows predicted")

    def known(self, names: Sequence[str], numbers: Sequence[int]) -> float:
        """Gives the part of the sample's labels, or of its columns, that are classes of a model, 0 to 1."""
        by_number = [str(number) for number in (numbers or range(len(names)))]
        if len(self.header) > 2:
            wanted = self.header[1:]
        elif self.sample is None:
            wanted = []
        else:
            try:
                form = read_label_column(self.header[1], self.label_cells, names, numbers, self.labels)
            except ValueError:
                return 0.0
            if form.kind != "probabilities" and not self.labels and is_called_probability(self.header[1]):
                return 0.0
            return 1.0 - len(form.unknown) / max(1, form.n_distinct)
        counts = [
            sum(find_name(each, index_names(known)) is not None for each in wanted) for known in (names, by_number)
        ]
        return max(counts) / len(wanted) if wanted else 1.0

    def plan(self, names: Sequence[str], numbers: Sequence[int]) -> Callable[[np.ndarray], list[str]]:
        """Gives what makes a row's cells of its probabilities, by the rules of `esc_ensemble.submission`.

        Raises:
            KernelError: the sample asks for something that these classes cannot give.
        """
        by_number = [str(number) for number in (numbers or range(len(names)))]
        if self.sample is None:
            kind = self.labels or "names"
            if kind == "probabilities":
                return lambda p: [f"{value:.9g}" for value in p.tolist()]
            form = LabelForm(kind, tuple(names) if kind == "names" else tuple(by_number))
        elif len(self.header) > 2:
            for known in (list(names), by_number):
                order = order_columns(self.header[1:], known)
                if order is not None:
                    return lambda p: [f"{value:.9g}" for value in p[order].tolist()]
            odd = sorted(set(self.header[1:]) ^ set(names))
            raise KernelError(
                f"the columns of {self.sample} are no probabilities of the model's classes; not in both: "
                f"{', '.join(odd[:N_NAMED])}"
            )
        else:
            try:
                form = read_label_column(self.header[1], self.label_cells, names, numbers, self.labels)
            except ValueError as error:
                raise KernelError(f"{self.sample} {error}") from error
        if form.kind == "numbers" and not numbers:
            self._doubt(f"the data set's class numbers are not known; 0 to {len(names) - 1} stand for them in order")
        if form.unknown:
            self._doubt(f"{self.sample} holds labels that the model lacks: {', '.join(form.unknown[:N_NAMED])}")
        if form.note and form.note not in self.notes:
            self.notes.append(form.note)
            say(f"Note: {form.note}")
        if form.kind == "probabilities":
            return lambda p: [f"{float(p[form.label]):.9g}"]

        def to_cells(p: np.ndarray) -> list[str]:
            best = np.argsort(-p, kind="stable")[: form.n_labels]
            return [form.separator.join(form.texts[label] for label in best.tolist())]

        return to_cells

    def _doubt(self, text: str) -> None:
        if text not in self.doubts:
            self.doubts.append(text)
            say(f"Note: {text}")


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
    return rows[0], rows[1:]


def open_submission(inputs: Inputs, settings: Settings) -> Submission:
    """Finds the sample and the audio of its rows, and writes the first valid file.

    Raises:
        KernelError: there is neither a sample that can be used nor test audio.
    """
    path = Path(settings.output) / "submission.csv"
    usable, passed_over = [], []
    for sample in inputs.tables:
        if not is_sample(sample) or composed(settings.sample) not in composed(sample.as_posix()):
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

            def has_audio(names: Sequence[str]) -> list[bool]:
                return [clip is not None for clip in match_audio(names, inputs.audio, settings.test_audio, inputs.tops)]

            windows = describe_windows([stem_of(row[0]) for row in best.rows], has_audio)
            if windows:
                best.doubts.append(f"{best.sample} cannot be filled: {windows}; its rows are submitted as they are")
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

# --- copied from esc_ensemble/data/streams.py

BLOCK_BYTES = 1 << 18
FEW_SAMPLES = 1024
"""Bytes behind a file that are too few to ask what they are."""


@dataclass(frozen=True)
class Stream:
    """What libsndfile decodes at a time."""

    parts: tuple[bytes | tuple[int, int], ...]
    """Its content: bytes, and ranges (start, end) of the file."""
    exact: bool = True
    """Whether as many samples must come out as its header promises; not where writers leave another number."""
    least_seconds: float = 0.0
    """Of sound that must come out."""
    form: tuple[int, int, int] | None = None
    """Samples, rate in Hz and channels where they are known already; libsndfile takes longer to open Vorbis."""


@dataclass(frozen=True)
class Structure:
    """What a file is made of."""

    streams: tuple[Stream, ...] = ()
    missing: str = ""
    """Why samples are missing; empty where none are."""
    end: int = 0
    """Where the last stream ends."""
    container: str = ""
    """WAV, AIFF, W64, CAF, AU, NIST, FLAC, Ogg or MP3; empty where it is none of them."""
    other: str = ""
    """The kind of a file that is known and not decoded."""


class Reader:
    """Random access to the bytes of a file, a block at a time."""

    def __init__(self, file: BinaryIO | Spliced) -> None:
        self.file = file
        self.size = file.seek(0, io.SEEK_END)
        self._start, self._block = 0, b""

    def at(self, position: int, n_bytes: int) -> bytes:
        """Returns `n_bytes` from `position` on, or fewer at the end of the file."""
        if position >= self.size:  # a damaged size may lead anywhere
            return b""
        offset = position - self._start
        if offset < 0 or offset + n_bytes > len(self._block):
            self.file.seek(position)
            self._start, self._block, offset = position, self.file.read(max(n_bytes, BLOCK_BYTES)), 0
        return self._block[offset : offset + n_bytes]

    def find(self, wanted: bytes, start: int, stop: int) -> int:
        """Returns the first position of `wanted` from `start` on that ends by `stop`, or -1."""
        while start + len(wanted) <= stop:
            n_bytes = min(BLOCK_BYTES, stop - start)
            place = self.at(start, n_bytes).find(wanted)
            if place >= 0:
                return start + place
            start += max(1, n_bytes - len(wanted) + 1)
        return -1


class Spliced(io.RawIOBase):
    """A read-only file made of ranges of another one and of bytes in between."""

    def __init__(self, file: BinaryIO | Spliced, parts: Sequence[bytes | tuple[int, int]]) -> None:
        super().__init__()
        self._file, self._parts = file, parts
        self._starts, n_bytes = [], 0
        for part in parts:
            self._starts.append(n_bytes)
            n_bytes += length(part)
        self._size, self._position, self._number = n_bytes, 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._position, self._size)[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n_wanted, n_done = min(len(view), max(0, self._size - self._position)), 0
        while n_done < n_wanted:
            got = self._read_part(n_wanted - n_done)
            if not got:
                break
            view[n_done : n_done + len(got)] = got
            n_done += len(got)
            self._position += len(got)
        return n_done

    def _read_part(self, n_bytes: int) -> bytes:
        """Reads on from the position, in one part alone."""
        if self._starts[self._number] > self._position:
            self._number = 0
        while self._number + 1 < len(self._starts) and self._starts[self._number + 1] <= self._position:
            self._number += 1
        part, offset = self._parts[self._number], self._position - self._starts[self._number]
        if isinstance(part, bytes):
            return part[offset : offset + n_bytes]
        self._file.seek(part[0] + offset)
        return self._file.read(min(n_bytes, part[1] - part[0] - offset))


def length(part: bytes | tuple[int, int]) -> int:
    """Returns the number of bytes of a part."""
    return len(part) if isinstance(part, bytes) else part[1] - part[0]


def unpack(reader: Reader, size_format: str, position: int) -> int:
    """Returns the number at a position, in a format of `struct`; as if zeros followed the file."""
    n_bytes = struct.calcsize(size_format)
    return int(struct.unpack(size_format, reader.at(position, n_bytes).ljust(n_bytes, b"\0"))[0])


def patched(start: int, stop: int, patches: Sequence[tuple[int, bytes]]) -> tuple[bytes | tuple[int, int], ...]:
    """Returns the parts of a range in which bytes at some positions are replaced."""
    parts: list[bytes | tuple[int, int]] = []
    for position, content in patches:
        parts += [(start, position), content]
        start = position + len(content)
    return (*parts, (start, stop))


def after_tags(reader: Reader, start: int, stop: int) -> int:
    """Skips tags before and behind audio: ID3v1, ID3v2, APE, Lyrics3."""
    while start < stop:
        head = reader.at(start, 32)
        if head[:3] == b"ID3" and len(head) >= 10:
            size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            start += 10 + size + (10 if head[5] & 0x10 else 0)
        elif head[:3] == b"TAG":
            start += 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            size, flags = struct.unpack("<12xI4xI8x", head)
            start += 32 + (size if flags & 0x2000_0000 else 0)
        elif head[:11] == b"LYRICSBEGIN":
            end = reader.find(b"LYRICS200", start, stop)
            start = end + 9 if end >= 0 else stop
        else:
            break
    return min(start, stop)


# --- end of the copy


# --- copied from esc_ensemble/data/flac_frames.py

FLAC_SYNC = re.compile(rb"\xff[\xf8\xf9]")
FLAC_HEADER = 16
"""Bytes of the longest header of a frame."""


def read_flac(reader: Reader, start: int) -> Structure:
    """Holds the number of samples in the header to the frames, whose headers say where they belong."""
    stop = reader.find(b"fLaC\0\0\0\x22", start + 4, reader.size)
    stop = reader.size if stop < 0 else stop
    told = unpack(reader, ">Q", start + 18)
    n_told = told & ((1 << 36) - 1)
    n_found, ahead, n_ahead = 0, 0, 0
    for first, size in _flac_frames(reader, start + 42, stop, unpack(reader, ">H", start + 8)):
        if first == n_found:
            n_found, n_ahead = first + size, 0
        else:  # a frame that others follow, or bytes that look like one
            n_ahead = n_ahead + 1 if first == ahead else 0
            ahead = first + size
            if first > n_found and n_ahead:
                return Structure(missing=f"behind its first {n_found} samples some are not there")
    if not n_found and not n_told:
        return Structure(missing="it ends before its samples begin")
    parts: tuple[bytes | tuple[int, int], ...] = ((start, stop),)
    if n_found > n_told:
        parts = patched(start, stop, [(start + 18, struct.pack(">Q", told - n_told + n_found))])
    return Structure((Stream(parts),), end=stop)


def _flac_frames(reader: Reader, start: int, stop: int, fixed_size: int) -> Iterator[tuple[int, int]]:
    """Yields the first sample and the number of samples of each frame, by what looks like its header."""
    while start < stop:
        block = reader.at(start, min(BLOCK_BYTES, stop - start))
        n_here = len(block) if start + len(block) >= stop else len(block) - FLAC_HEADER
        for found in FLAC_SYNC.finditer(block, 0, n_here):
            head = block[found.start() : found.start() + FLAC_HEADER]
            if len(head) < 6:  # the file ends here
                continue
            n_coded = len(format(head[4], "08b").split("0")[0]) or 1
            size_code, rate_code = head[2] >> 4, head[2] & 15
            n_size = {6: 1, 7: 2}.get(size_code, 0)
            end = 4 + n_coded + n_size + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
            if not size_code or len(head) <= end or _crc8(head[:end]) != head[end]:
                continue
            number = head[4] & (0x7F >> n_coded if n_coded > 1 else 0x7F)
            for byte in head[5 : 4 + n_coded]:
                number = number << 6 | byte & 0x3F
            if n_size:
                size = 1 + int.from_bytes(head[4 + n_coded : 4 + n_coded + n_size], "big")
            else:
                size = 192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
            yield (number if head[1] & 1 else number * fixed_size), size
        start += n_here


def _crc8(content: bytes) -> int:
    crc, table = 0, _crc8_table()
    for byte in content:
        crc = table[crc ^ byte]
    return crc


@lru_cache(1)
def _crc8_table() -> bytes:
    table = bytearray(range(256))
    for _ in range(8):
        table = bytearray((crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1 for crc in table)
    return bytes(table)


# --- end of the copy


# --- copied from esc_ensemble/data/ogg_pages.py

OGG_FIRST, OGG_LAST = 2, 4
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _Link:
    """A logical stream of an Ogg file."""

    serial: bytes
    kind: str
    """vorbis, opus, speex, flac, or empty where it is no audio."""
    ranges: list[tuple[int, int]] = field(default_factory=list)
    bodies: list[tuple[int, int]] = field(default_factory=list)
    number: int = 0
    """Of the next page."""
    granules: list[int] = field(default_factory=list)
    """Samples up to the end of each page that completes a packet."""
    ended: bool = False
    problem: str = ""


@dataclass(frozen=True)
class _Page:
    """A page, or what is in the place of one."""

    start: int
    body: int
    stop: int
    flags: int = 0
    serial: bytes = b""
    number: int = 0
    granule: int = 0
    damage: str = ""


def read_ogg(reader: Reader, start: int) -> Structure:
    """Collects the pages of each stream and checks their numbers and checksums."""
    links: list[_Link] = []
    end = start
    for page in _pages(reader, start):
        if page.damage:
            if page.stop >= reader.size:
                return Structure(missing=page.damage)
            if links:
                links[-1].problem = page.damage
            continue
        link = next((each for each in reversed(links) if each.serial == page.serial), None)
        if page.flags & OGG_FIRST and (link is None or link.number > 1 or page.number == 0):
            link = _Link(page.serial, _codec(reader.at(page.body, 8)), number=page.number)
            links.append(link)
        if link is not None:
            # Recordings of a broadcast go on anywhere behind the pages with the headers.
            if page.number > link.number and len(link.ranges) > 2 and not link.problem:
                link.problem = f"{page.number - link.number} pages before byte {page.start} are not there"
            link.number = page.number + 1
            link.ranges.append((page.start, page.stop))
            link.bodies.append((page.body, page.stop))
            link.ended = bool(page.flags & OGG_LAST)
            if page.granule > 0:
                link.granules.append(page.granule)
        end = page.stop
    audio = [link for link in links if link.kind]
    if not audio:
        return Structure(missing="it has no stream of Vorbis, Opus, Speex or FLAC that begins")
    problem = next((link.problem for link in audio if link.problem), "")
    return Structure(tuple(_ogg_stream(reader, link) for link in audio), missing=problem, end=end)


def _pages(reader: Reader, position: int) -> Iterator[_Page]:
    """Yields the pages of an Ogg file, and one with a damage for each that is not whole."""
    while 0 <= position < reader.size:
        head = reader.at(position, 27 + 255)
        if head[:5] == b"OggS\0":
            n_head = 27 + (head[26] if len(head) >= 27 else 0)
            stop = position + n_head + sum(head[27:n_head])
            page = reader.at(position, stop - position)
            if len(head) < 27 or len(page) < stop - position:
                if reader.find(b"OggS\0", position + 1, reader.size) < 0:
                    yield _Page(position, position, reader.size, damage="its last page is not whole")
            elif _ogg_crc(page[:22] + bytes(4) + page[26:]) == head[22:26]:
                granule, serial, number = struct.unpack("<q4sI", head[6:22])
                yield _Page(position, position + n_head, stop, head[5], serial, number, granule)
                position = stop
                continue
            else:
                yield _Page(position, position, position, damage=f"the page at byte {position} is damaged")
        # Bytes that are no page: the next one may be behind them.
        position = reader.find(b"OggS\0", position + 1, reader.size)


def _ogg_stream(reader: Reader, link: _Link) -> Stream:
    """Returns the pages of a link; of FLAC what they hold, which is a FLAC file but for its first 9 bytes."""
    if link.kind == "flac":
        (start, stop), *rest = _joined([(link.bodies[0][0] + 9, link.bodies[0][1]), *link.bodies[1:]])
        (inner,) = read_flac(Reader(Spliced(reader.file, ((start, stop), *rest))), 0).streams
        patches = [(start + 18, part) for part in inner.parts if isinstance(part, bytes)]
        return replace(inner, parts=(*patched(start, stop, patches), *rest))
    head = reader.at(link.bodies[0][0], 40).ljust(40, b"\0")
    rate = {"opus": 48_000, "vorbis": _number(head[12:16]), "speex": _number(head[36:40])}[link.kind]
    # Of what the first page with sound holds only the end is known.
    least = (link.granules[-1] - link.granules[0]) / max(1, rate) if link.granules else 0.0
    parts: tuple[bytes | tuple[int, int], ...] = _joined(link.ranges)
    if not link.ended and link.kind == "opus":  # which libsndfile takes for malformed
        start, stop = link.ranges[-1]
        page = bytearray(reader.at(start, stop - start))
        page[5] |= OGG_LAST
        page[22:26] = bytes(4)
        page[22:26] = _ogg_crc(bytes(page))
        parts = (*_joined(link.ranges[:-1]), bytes(page))
    return Stream(parts, exact=False, least_seconds=least, form=_vorbis_form(reader, link, head))


def _vorbis_form(reader: Reader, link: _Link, head: bytes) -> tuple[int, int, int] | None:
    """Returns samples, rate and channels of a Vorbis stream that begins with its first sample."""
    first = next((start for start, stop in link.ranges[1:] if _number(reader.at(start + 6, 8)) > 0), 0)
    if link.kind != "vorbis" or not link.granules or not first:
        return None
    lacing = reader.at(first + 27, reader.at(first + 26, 1)[0])
    longest = sum(size < 255 for size in lacing) << (head[28] >> 4)  # packets on the page times the longest block
    return (link.granules[-1], _number(head[12:16]), head[11]) if link.granules[0] <= longest else None


def _number(content: bytes) -> int:
    return int.from_bytes(content, "little")


def _joined(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Joins ranges that touch."""
    joined = [ranges[0]]
    for start, stop in ranges[1:]:
        if start == joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


def _ogg_crc(page: bytes) -> bytes:
    """Returns a page's checksum: zlib's polynomial, with the bits of each byte in the other order."""
    crc = zlib.crc32(page.translate(REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return crc.to_bytes(4, "big").translate(REVERSED)


def _codec(head: bytes) -> str:
    return {b"\x01vorbis": "vorbis", b"OpusHea": "opus", b"Speex  ": "speex", b"\x7fFLAC\1\0": "flac"}.get(head[:7], "")


# --- end of the copy


# --- copied from esc_ensemble/data/mpeg_frames.py

FEW_BYTES = 16
"""Of the last MPEG frame that may be missing."""
SYNC_FRAMES = 4
"""Consecutive MPEG frames that are taken for audio where other bytes are before them."""
DECODER_DELAY = 529
"""Samples that MP3 decoders drop at the beginning of a stream with a header that says how many more to drop."""
STEPS = (
    *((4,) * 14, (4, 2, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8, 8), (4, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8)),
    *((4, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 4, 4), *((1,) * 8 + (2,) * 6,) * 2),
)
"""From each bit rate to the next in units of 8 kbit/s: MPEG-1 layers I, II, III, then MPEG-2 and 2.5."""


@dataclass
class _Run:
    """Consecutive MPEG frames that one decoder takes."""

    kind: tuple[int, int, bool]
    """Version and layer, rate (of layers I and II also the bit rate), whether mono."""
    ranges: list[tuple[int, int]]
    n_frames: int = 0


def read_mpeg(reader: Reader, start: int, stop: int) -> Structure:
    """Counts the frames, so that the decoder need not estimate how many there are."""
    runs: list[_Run] = []
    position, n_gaps, n_lacking = start, 0, 0
    while position + 4 <= stop:
        head = reader.at(position, 4)
        n_frame = _frame_bytes(head)
        kind = _frame_kind(head)
        if n_frame and not (runs and kind == runs[-1].kind and position == runs[-1].ranges[-1][1]):
            n_frame = n_frame if in_step(reader, position, stop) else 0
            if n_frame and (not runs or kind != runs[-1].kind):
                runs.append(_Run(kind, [(position, position)]))
            elif n_frame:
                runs[-1].ranges.append((position, position))
        if n_frame:
            n_lacking = max(0, position + n_frame - stop)
            runs[-1].ranges[-1] = (runs[-1].ranges[-1][0], min(stop, position + n_frame))
            runs[-1].n_frames += 1
            position += n_frame
            continue
        behind = after_tags(reader, position, stop)
        if behind == position:
            behind = next_frame(reader, position + 1, stop)
            n_gaps += behind >= 0 or stop - position > FEW_SAMPLES
            if behind < 0:
                break
        position = behind
    if not runs:  # free format, which has frames of a length of its own
        return Structure((Stream(((start, stop) if start else (0, reader.size),), exact=False),), end=stop)
    streams = []
    for run in runs:
        # As in ffmpeg, what encoders put in front of the sound is dropped only where the file begins as they wrote it.
        begins = start == 0 or (reader.at(0, 3) == b"ID3" and start == after_tags(reader, 0, stop))
        promised, stream = _mpeg_stream(reader, run, bytes(n_lacking) if run is runs[-1] else b"", begins=begins)
        n_missing = promised - run.n_frames
        if n_missing > 1 and (n_lacking or n_gaps):
            return Structure(missing=f"its header promises {promised} frames, {run.n_frames} are there")
        if n_missing >= 0 and promised and n_lacking > FEW_BYTES:
            return Structure(missing=f"{n_lacking} bytes of its last frame are not there")
        streams += stream
    return Structure(tuple(streams), "" if streams else "it ends before its samples begin", stop)


def _mpeg_stream(reader: Reader, run: _Run, filling: bytes, *, begins: bool) -> tuple[int, list[Stream]]:
    """Returns the number of frames that the header promises, or 0, and the frames, if any, under a right header."""
    start = run.ranges[0][0]
    first = reader.at(start, _frame_bytes(reader.at(start, 4)))
    ranges: list[bytes | tuple[int, int]] = [*run.ranges, filling]
    if first[1] & 0x06 != 0x02:  # layers I and II have no such header, and one bit rate
        return 0, [Stream(_without_empty(*ranges), exact=False)]
    place = next((each for each in (_side(first), _side(first) + 2) if first[each : each + 4] in (b"Xing", b"Info")), 0)
    n_frames, promised = run.n_frames, 0
    if place or first[36:40] == b"VBRI":  # a frame without sound that says how many follow
        n_frames -= 1
        ranges[0] = (start + len(first), run.ranges[0][1])
        where = place + 8 if place else 50
        promised = int.from_bytes(first[where : where + 4], "big") + 1 if not place or first[place + 7] & 1 else 0
    if not n_frames:
        return promised, []
    if place and promised and begins:
        flags = first[place + 7]
        lame = place + 8 + sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
        header = bytearray(first)
        header[place + 8 : place + 12] = n_frames.to_bytes(4, "big")
        other = promised != n_frames + 1
        if flags & 2:
            n_told, n_here = int.from_bytes(first[place + 12 : place + 16], "big"), reader.size - start
            other = other or abs(n_told - n_here) > min(n_told, n_here) >> 4
            header[place + 12 : place + 16] = (len(first) + sum(map(length, ranges))).to_bytes(4, "big")
        if other and len(first) >= lame + 24:
            header[lame + 22] &= 0xF0  # how many samples to drop at the end is of another end
            header[lame + 23] = 0
        return promised, [Stream(_without_empty(bytes(header), *ranges))]
    # A frame of ours before the first takes the delay that the decoder then drops.
    n_samples = 1152 if first[1] & 0x08 else 576
    header = _info_frame(first, n_frames + 1, n_samples - DECODER_DELAY)
    return promised, [Stream(_without_empty(bytes(header), _silent_frame(first), *ranges))]


def _side(head: bytes) -> int:
    """Returns where what an encoder says of the stream is in a frame: behind the place of its side information."""
    mono = head[3] >> 6 == 3
    return 4 + ((17 if mono else 32) if head[1] & 0x08 else (9 if mono else 17))


def _without_empty(*parts: bytes | tuple[int, int]) -> tuple[bytes | tuple[int, int], ...]:
    return tuple(part for part in parts if length(part))


def _silent_frame(like: bytes) -> bytes:
    """Returns a frame without sound, long enough for a header in it."""
    for rate in range(9, 15):
        head = bytes([0xFF, like[1] | 1, rate << 4 | like[2] & 0x0C, like[3]])
        if _frame_bytes(head) >= 192:
            break
    return head.ljust(_frame_bytes(head), b"\0")


def _info_frame(like: bytes, n_frames: int, delay: int) -> bytearray:
    """Returns a frame that says how many frames follow, and how many samples of them to drop besides the decoder's."""
    frame = bytearray(_silent_frame(like))
    tag = b"Info" + struct.pack(">II", 1, n_frames) + b"LAME3.100".ljust(21, b"\0") + (delay << 12).to_bytes(3, "big")
    frame[_side(like) : _side(like) + len(tag)] = tag
    return frame


@lru_cache(1 << 12)
def _frame_bytes(head: bytes) -> int:
    """Returns the length of the MPEG frame with these first 4 bytes, or 0 where they are no header of one."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    number, rate_number, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or number in (0, 15) or rate_number == 3:
        return 0
    rate = (44100, 48000, 32000)[rate_number] >> {3: 0, 2: 1, 0: 2}[version]
    table = STEPS[(0 if version == 3 else 3) + layer - 1]
    bits = 8000 * sum(table[:number])
    if layer == 1:
        return (12 * bits // rate + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // rate + padding


def _frame_kind(head: bytes) -> tuple[int, int, bool]:
    bit_rate = 0 if head[1] & 0x06 == 0x02 else head[2] & 0xF0
    return head[1] & 0x1E, head[2] & 0x0C | bit_rate, head[3] >> 6 == 3


def in_step(reader: Reader, position: int, stop: int) -> bool:
    """Whether several MPEG frames of one kind follow each other from `position` on, or as many as there is room for."""
    kind = None
    for count in range(SYNC_FRAMES):
        head = reader.at(position, 4)
        n_frame = _frame_bytes(head) if position + 4 <= stop else 0
        if not n_frame or (kind is not None and (head[1] & 0x1E, head[2] & 0x0C) != kind):
            return count > 1 and (position + 4 > stop or after_tags(reader, position, stop) > position)
        kind = head[1] & 0x1E, head[2] & 0x0C
        position += n_frame
    return True


def is_free_format(reader: Reader, position: int) -> bool:
    """Whether two frames of layer III without a bit rate begin here."""
    head = reader.at(position, 4)
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[2] & 0xF0 or head[2] & 0x0C == 0x0C:
        return False
    return head[1] & 0x18 != 0x08 and reader.find(head[:2], position + 4, position + 4096) >= 0


def next_frame(reader: Reader, position: int, stop: int) -> int:
    """Returns the next position from which MPEG frames follow each other, or -1."""
    while (position := reader.find(b"\xff", position, stop)) >= 0:
        if in_step(reader, position, reader.size):
            return position
        position += 1
    return -1


# --- end of the copy


# --- copied from esc_ensemble/data/containers.py

SEARCH_BYTES = 1 << 18
"""How far into a file the beginning of audio is looked for."""
UNKNOWN_SIZE = 0x7F00_0000
"""Writers that cannot go back to fill in a 32-bit size leave 0 or a number from here on."""
FORGIVEN_BYTES = 128
"""A size may be too large by this or by the length of the header: some writers count the header too."""
MPEG_FORMATS = (b"\x55\0", b"\x50\0")
"""Numbers of MP3 and of MPEG layers I and II in a WAV file."""
W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
MAGICS = (b"NIST_1A", b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", W64_RIFF, b"caff", b".snd")
OTHER_KINDS = {
    b"\x1aE\xdf\xa3": "WebM or Matroska",
    b"0&\xb2u": "WMA",
    b"#!AMR": "AMR",
    b"wvpk": "WavPack",
    b"MAC ": "Monkey's Audio",
    b"TTA1": "TTA",
    b"ADIF": "AAC",
    b"\xff\xf1": "AAC",
    b"\xff\xf9": "AAC",
    b"DSD ": "DSF",
    b"Creative Voice": "VOC",
    b"FRM8": "DSDIFF",
    b"%PDF": "PDF",
    b"PK\x03\x04": "ZIP",
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"\x1f\x8b": "gzip",
    b"<!DOCTYPE": "HTML",
    b"<html": "HTML",
}
"""First bytes of files that libsndfile does not decode, in which what looks like audio is chance."""


def read_structure(file: BinaryIO) -> Structure:
    """Reads what a file is made of.

    Args:
        file: open for reading bytes; its position does not matter.

    Raises:
        OSError: the file cannot be read.
    """
    reader = Reader(file)
    container, start = _locate(reader)
    if not container:
        return Structure((Stream(((0, reader.size),)),), other=_other_kind(reader.at(start, 16)))
    found = _read_one(reader, container, start)
    structure = found
    while not found.missing:  # files that were put one behind the other
        start = after_tags(reader, found.end, reader.size)
        following = _container_at(reader, start) if start + 16 <= reader.size else ""
        if following in ("", "MP3", "AU"):
            break
        found = _read_one(reader, following, start)
        structure = replace(structure, streams=structure.streams + found.streams, missing=found.missing)
    return replace(structure, container=container)


def read_container(file: BinaryIO) -> str:
    """Names the container: WAV, AIFF, W64, CAF, AU, NIST, FLAC, Ogg or MP3; empty where it is none of them.

    Args:
        file: open for reading bytes; its position does not matter.
    """
    return _locate(Reader(file))[0]


def _read_one(reader: Reader, container: str, start: int) -> Structure:
    if container == "FLAC":
        return read_flac(reader, start)
    if container == "Ogg":
        return read_ogg(reader, start)
    if container == "MP3":
        return read_mpeg(reader, start, reader.size)
    if container == "AU":
        return _read_au(reader, start)
    if container == "NIST":
        return _read_nist(reader, start)
    return _read_chunks(reader, start, FORMS[container])


def _other_kind(head: bytes) -> str:
    kinds = [kind for magic, kind in OTHER_KINDS.items() if head.startswith(magic)]
    return "MP4" if head[4:8] == b"ftyp" else kinds[0] if kinds else ""


def _locate(reader: Reader) -> tuple[str, int]:
    """Returns the container and where it begins, behind tags and bytes that are no audio."""
    start = after_tags(reader, 0, reader.size)
    found = _container_at(reader, start)
    if found or _other_kind(reader.at(start, 16)):
        return found, start
    stop = min(reader.size, start + SEARCH_BYTES)
    places = [reader.find(magic, start, stop) for magic in MAGICS]
    for place in sorted(place for place in places if place >= 0):
        found = _container_at(reader, place)
        if found:
            return found, place
    frame = next_frame(reader, start, stop)
    return ("MP3", frame) if frame >= 0 else ("", 0)


def _container_at(reader: Reader, start: int) -> str:
    """Names the container that begins at `start`."""
    head = reader.at(start, 16).ljust(16)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return "WAV"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    for magic, name in (
        (W64_RIFF, "W64"),
        (b"fLaC", "FLAC"),
        (b"OggS", "Ogg"),
        (b"caff\0\1", "CAF"),
        (b"NIST_1A", "NIST"),
    ):
        if head.startswith(magic):
            return name
    if head[:4] == b".snd" and struct.unpack(">I", head[4:8])[0] in range(24, 1 << 16):
        return "AU"
    return "MP3" if in_step(reader, start, reader.size) or is_free_format(reader, start) else ""


@dataclass(frozen=True)
class _Form:
    """How a container writes chunks."""

    first: int
    """Where the first one begins."""
    samples: bytes
    """Name of the one with the samples."""
    size: str
    """How a size is written, for `struct`."""
    outer: int
    """Where the size of the whole is; -1 where there is none."""
    align: int
    counted: int = 0
    """Bytes of a chunk's header that its size includes."""


FORMS = {
    "WAV": _Form(12, b"data", "<I", 4, 2),
    "AIFF": _Form(12, b"SSND", ">I", 4, 2),
    "W64": _Form(40, b"data" + W64_TAIL, "<Q", 16, 8, 24),
    "CAF": _Form(8, b"data", ">q", -1, 1),
}


def _read_chunks(reader: Reader, start: int, form: _Form) -> Structure:
    if reader.at(start, 4) == b"RIFX":
        form = replace(form, size=">I")
    chunks = dict(_walk_chunks(reader, start + form.first, start, form))
    if form.samples not in chunks:
        return Structure(missing="it ends before its samples begin")
    body, size = chunks[form.samples]
    at_size = body - struct.calcsize(form.size)
    at_outer, outer_format, size_format = start + form.outer, form.size, form.size
    if reader.at(start, 4) == b"RF64" and b"ds64" in chunks and size == 0xFFFF_FFFF:
        at_outer = chunks[b"ds64"][0]
        at_size, outer_format, size_format = at_outer + 8, "<Q", "<Q"
        size = unpack(reader, size_format, at_size)
    header = 0 if form.counted else 8  # not in the size of the whole
    end = reader.size
    told = start + header + unpack(reader, outer_format, at_outer) if form.outer >= 0 else end
    left = end - body
    if _is_unknown(size, size_format):
        stop = _end_of_unknown(reader, body, told, size, form)
    elif size > left:
        if size - left > max(FORGIVEN_BYTES, min(body - start, 4 * FORGIVEN_BYTES)):
            return Structure(missing=f"its header promises {size} bytes of samples, {left} are there")
        stop = end
    else:
        stop = body + size
        behind = stop + (start - stop) % form.align
        if behind < told <= end and not _are_chunks(reader, behind, told, start, form):
            stop = told  # the size of the whole was brought up to date, that of the samples was not
        elif told <= behind and _may_be_samples(reader, behind):
            return Structure(
                missing=f"behind the {size} bytes of samples that its header counts {end - behind} more follow"
            )
    if b"fmt " in chunks and reader.at(chunks[b"fmt "][0], 2) in MPEG_FORMATS:
        return read_mpeg(reader, body, stop)
    outer_end = told if stop <= told <= end + 1 and stop == body + size else stop
    patches = []
    if stop != body + size:
        patches.append((at_size, struct.pack(size_format, stop - body + form.counted)))
    if form.outer >= 0 and told != outer_end:
        patches.append((at_outer, struct.pack(outer_format, outer_end - start - header)))
    outer_end = min(outer_end, end)
    parts = patched(start, outer_end, sorted(patches)) if patches or start or outer_end < end else ((0, end),)
    return Structure((Stream(parts),), end=outer_end + (start - outer_end) % form.align)


def _walk_chunks(reader: Reader, position: int, start: int, form: _Form) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yields names of chunks with where their content begins and its size, until that of the samples."""
    n_name, n_size = len(form.samples), struct.calcsize(form.size)
    while position + n_name + n_size <= reader.size:
        name = reader.at(position, n_name)
        body = position + n_name + n_size
        size = unpack(reader, form.size, position + n_name) - form.counted
        yield name, (body, size)
        if name == form.samples or size < 0:
            return
        end = body + size
        padding = (start - end) % form.align
        # Some writers leave out the byte that makes lengths even.
        position = end if padding == 1 and reader.at(end, n_name) == form.samples else end + padding


def _are_chunks(reader: Reader, position: int, stop: int, start: int, form: _Form) -> bool:
    """Whether what is from `position` to `stop` is nothing but chunks, or too little to be one."""
    n_name, n_size = len(form.samples), struct.calcsize(form.size)
    while position + n_name + n_size <= stop:
        name = reader.at(position, 4)
        size = unpack(reader, form.size, position + n_name) - form.counted
        if not all(0x20 <= byte < 0x7F for byte in name) or size < 0:
            return False
        position += n_name + n_size + size
        position += (start - position) % form.align
    return position <= stop + 1 or stop == reader.size


def _may_be_samples(reader: Reader, position: int) -> bool:
    """Whether what follows a file is neither another one nor tags, text, zeros or little."""
    position = after_tags(reader, position, reader.size)
    content = reader.at(position, BLOCK_BYTES)
    if len(content) < FEW_SAMPLES or _container_at(reader, position) not in ("", "MP3"):
        return False
    return bool(content.strip(b"\0")) and any(byte < 9 for byte in content[:256])


def _is_unknown(size: int, size_format: str) -> bool:
    return size <= 0 or size >= (UNKNOWN_SIZE if size_format.endswith("I") else 1 << 62)


def _end_of_unknown(reader: Reader, body: int, told: int, size: int, form: _Form) -> int:
    """Returns where samples end whose size was never filled in."""
    end = reader.size
    if size == 0 and body < told == end and _are_chunks(reader, body, end, body, form):
        return body  # there are none
    return _before_tags(reader, body, told if body < told < end else end)


def _before_tags(reader: Reader, start: int, stop: int) -> int:
    """Returns `stop`, or where a tag of a fixed place before it begins."""
    if stop - 128 >= start and reader.at(stop - 128, 3) == b"TAG":
        stop -= 128
    if stop - 32 >= start and reader.at(stop - 32, 8) == b"APETAGEX":
        size, flags = struct.unpack("<12xI4xI8x", reader.at(stop - 32, 32))
        stop -= size + (32 if flags & 0x8000_0000 else 0)
    return max(start, stop)


def _read_au(reader: Reader, start: int) -> Structure:
    offset, size = struct.unpack(">4xII", reader.at(start, 12).ljust(12, b"\0"))
    body = start + offset
    left = reader.size - body
    if not _is_unknown(size, ">I") and size - left > FORGIVEN_BYTES:
        return Structure(missing=f"its header promises {size} bytes of samples, {left} are there")
    stop = body + size if 0 < size <= left else _before_tags(reader, body, reader.size)
    parts = patched(start, stop, [(start + 8, struct.pack(">I", min(stop - body, 0xFFFF_FFFF)))])
    return Structure((Stream(parts if start or stop != body + size else ((0, reader.size),)),), end=stop)


def _read_nist(reader: Reader, start: int) -> Structure:
    """Reads a SPHERE file, whose header is text."""
    words = reader.at(start, 1024).split()
    fields = {
        name: int(value)
        for name, kind, value in zip(words, words[1:], words[2:], strict=False)
        if kind == b"-i" and value.isdigit()
    }
    n_bytes = fields.get(b"sample_count", 0) * fields.get(b"channel_count", 1) * fields.get(b"sample_n_bytes", 0)
    body = start + (int(words[1]) if words[1:] and words[1].isdigit() else 1024)
    if n_bytes > reader.size - body + FORGIVEN_BYTES:
        return Structure(
            missing=f"its header promises {n_bytes} bytes of samples, {max(0, reader.size - body)} are there"
        )
    return Structure((Stream(((start, reader.size),)),), end=reader.size)


# --- end of the copy


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


def read_clip(path: Path, sample_rate: int, channel: int = 0) -> np.ndarray:
    """Reads a file as a mono waveform (T,) float32 in [-1, 1]: the mean of all channels, or one, counted from 1.

    Raises:
        KernelError: it is no audio, or some of it is missing.
    """
    if program := pointer_in(path):
        raise KernelError(f"it is a pointer of {program}, not audio")
    try:
        with path.open("rb") as file:
            structure = read_structure(file)
            if structure.missing:
                raise KernelError(f"it is truncated: {structure.missing}")
            if structure.other:
                raise KernelError(f"it holds {structure.other}, which cannot be decoded as audio")
            parts = [read_stream(Spliced(file, each.parts), each, sample_rate, channel) for each in structure.streams]
    except (OSError, ValueError, MemoryError) as error:
        raise KernelError(f"it cannot be read ({error})") from error
    except RuntimeError as error:  # of libsndfile
        begins = structure.container or "no known kind of audio"
        raise KernelError(f"it cannot be decoded: it begins as {begins}") from error
    waveform = np.concatenate(parts)
    if not len(waveform):
        raise KernelError("it holds no samples, or less than one at the model's rate")
    return np.clip(waveform, -1.0, 1.0)


class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read from start to end: soundfile would seek after each block, which in an MP3 is inexact."""

    def seekable(self) -> bool:
        return False


@lru_cache(1)
def note_channels() -> None:
    """Reports once that channels cancel."""
    say("Note: the channels of some clips cancel each other; train with data.channel 1 to take the first alone")


def read_stream(source: Any, stream: Stream, sample_rate: int, channel: int) -> np.ndarray:
    """Reads what libsndfile decodes at a time as a waveform (T,) float32; of a very long one the middle."""
    with ForwardFile(source) as file:
        rate = int(file.samplerate)
        if not MIN_RATE <= rate <= MAX_RATE:
            raise KernelError(f"its rate is {rate} Hz; {MIN_RATE} to {MAX_RATE} can be")
        n_most = int(MAX_SECONDS * rate)
        if n_most < file.frames < UNKNOWN_FRAMES:
            file.seek((file.frames - n_most) // 2)
        try:
            known = stream.exact and file.frames < UNKNOWN_FRAMES
            samples = file.read(min(n_most, file.frames) if known else n_most, dtype="float32", always_2d=True)
        except RuntimeError as error:
            raise KernelError(f"it is damaged or truncated ({error})") from error
        n_told = min(file.frames if known else 0, n_most)
        if len(samples) < max(n_told, rate * min(stream.least_seconds - 0.02, MAX_SECONDS)):
            raise KernelError(f"it is truncated: {len(samples)} samples could be decoded")
    mono = samples[:, min(channel, samples.shape[1]) - 1] if channel else samples.mean(axis=1)
    if not channel and np.vdot(mono, mono) * samples.shape[1] < 0.01 * np.vdot(samples, samples):  # -20 dB
        note_channels()
    if not np.isfinite(mono).all() or np.abs(mono).max(initial=0.0) > MAX_PEAK:
        raise KernelError("its samples are not finite, or far out of [-1, 1]")
    if not round(len(mono) * sample_rate / rate):
        return np.zeros(0, dtype=np.float32)
    return resample(mono, rate, sample_rate)


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
    rate, channel = int(model.metadata["sample_rate"]), int(model.metadata.get("channel", 0))
    read = zip(todo, ahead(pool, lambda item: try_read(item[1], rate, channel), todo), strict=True)
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


def try_read(path: Path, sample_rate: int, channel: int = 0) -> np.ndarray | str:
    """Gives the waveform, or why there is none."""
    try:
        return read_clip(path, sample_rate, channel)
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
    if not clips:
        raise KernelError("there is no test audio to predict, so that nothing is trained")
    if not set(inputs.audio) - set(clips.values()) and not inputs.parquet:
        attached = "no attached model can be used" if inputs.onnx or inputs.torchscript else "no model is attached"
        raise KernelError(
            f"{attached}, and there is no training data: attach a file made by `esc-ens export`, or a data set that "
            "`esc-ens data info` can read"
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
        inputs=tuple(inputs.tops),
        within=settings.train_data,
        data_flags=settings.data_flags,
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
    if not isinstance(error, KernelError) and not is_expected(error):
        print(traceback.format_exc(), flush=True)


def is_expected(error: Exception) -> bool:
    """Whether the package says by this what it cannot do: its message is for people."""
    return any(kind.__module__ == "esc_ensemble.errors" for kind in type(error).__mro__)


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
    absent = [f"input folder {folder} does not exist" for folder in folders if not folder.is_dir()]
    for problem in absent:
        say(f"WARNING: {problem}")
    inputs = find_inputs(folders, Path(settings.output) / "esc_ensemble")
    say(
        f"In {settings.input}: {len(inputs.audio)} audio files, {len(inputs.tables)} tables, "
        f"{len(inputs.onnx) + len(inputs.torchscript)} models, {len(inputs.wheels)} wheels"
        + (f"; passed over: {inputs.n_hidden} hidden ones" if inputs.n_hidden else "")
        + (f"; {len(inputs.dead_links)} links lead nowhere, as {inputs.dead_links[0]}" if inputs.dead_links else "")
    )
    try:
        submission = open_submission(inputs, settings)
    except (KernelError, OSError) as error:
        say(f"Nothing was written: {'; '.join([*absent, str(error)])}")
        return 2
    submission.doubts += absent
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
