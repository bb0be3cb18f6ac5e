"""The competition's CSV: predictions in the columns and row order of its sample submission."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from esc_ensemble.data.tables import whole_number
from esc_ensemble.errors import DataError, list_problems
from esc_ensemble.files import atomic_path
from esc_ensemble.progress import say

LabelKind = Literal["names", "numbers", "probabilities"]

ID_COLUMN, LABEL_COLUMN = "clip_id", "label"
# Only these endings are cut when ids are compared: an id may hold a dot of its own.
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aif", ".aiff", ".aifc", ".au"})
MAX_NAMED = 5


@dataclass(frozen=True)
class Form:
    """What a submission is to look like."""

    class_names: tuple[str, ...]
    """C names, in the order of the probabilities' columns."""
    class_numbers: tuple[int, ...] = ()
    """The data set's own number of each class; 0..C-1 where empty, which is said when it matters."""
    sample: Path | None = None
    """The competition's sample_submission.csv, whose header, ids and order of rows are kept."""
    labels: LabelKind | None = None
    """What stands beside the ids; what the sample wants, or names, where None."""


@dataclass(frozen=True)
class _Plan:
    """How predictions become rows."""

    header: list[str]
    ids: list[str]
    """As they are to be written."""
    rows: list[int]
    """The prediction of each."""
    labels: LabelKind
    columns: list[int]
    """The class of each column after the id, where labels are probabilities."""
    notes: list[str]
    """What is to be said of it."""
    sample: list[list[str]]
    """The sample's rows, where there is one."""


def write_submission(
    path: Path,
    clip_ids: Sequence[str] | np.ndarray,
    probabilities: np.ndarray,
    form: Form,
    skipped: Sequence[str] = (),
) -> LabelKind:
    """Writes predictions as a submission, atomically.

    With a sample, its header, its rows and their order are kept. Two columns are an id and a class: its number where
    the sample's cells are all whole numbers (and the classes' names are not), else its name. 1 + C columns are an id
    and a probability for each class, named by class names or class numbers in any order. Ids match with or without an
    audio suffix and the folders above, where that leaves one prediction for each. Without a sample the columns are
    clip_id and label, or clip_id and a column for each class, in the order given.

    Args:
        path: where to.
        clip_ids: (N,) one id a row of `probabilities`.
        probabilities: (N, C).
        form: classes, sample, and what is wanted.
        skipped: ids of clips that have no prediction: their rows keep the sample's own values.

    Returns:
        What stands beside the ids.

    Raises:
        DataError: a probability is not finite, an id occurs twice, the sample cannot be used, or it asks for
            clips that were not predicted.
        WorkError: the file cannot be written.
    """
    ids = [str(clip_id) for clip_id in clip_ids]
    _check_predictions(ids, probabilities, form.class_names)
    plan = _plan([*ids, *skipped], form)
    if plan.labels == "probabilities":
        cells = [[f"{value:.9g}" for value in row] for row in probabilities[:, plan.columns].tolist()]
    else:
        texts = form.class_names if plan.labels == "names" else [str(number) for number in _numbers(form)]
        cells = [[texts[label]] for label in probabilities.argmax(axis=1)]
    body, kept = [], []
    for place, (clip_id, row) in enumerate(zip(plan.ids, plan.rows, strict=True)):
        if row < len(ids):
            body.append([clip_id, *cells[row]])
        elif plan.sample:
            body.append(plan.sample[place])
            kept.append(clip_id)
    if kept:
        say(
            list_problems(f"{len(kept)} rows keep the sample's own values, since their clips could not be heard:", kept)
        )
    for note in plan.notes:
        say(f"Note: {note}")
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(plan.header)
        writer.writerows(body)
    return plan.labels


def check_submission(clip_ids: Sequence[str] | np.ndarray, form: Form) -> None:
    """Refuses before any work what `write_submission` would refuse after it.

    Raises:
        DataError: the sample cannot be used, or it asks for clips that are not among `clip_ids`.
    """
    _plan([str(clip_id) for clip_id in clip_ids], form)


def _check_predictions(ids: list[str], probabilities: np.ndarray, class_names: Sequence[str]) -> None:
    problems = [f"{clip_id} is predicted {n} times" for clip_id, n in Counter(ids).items() if n > 1]
    if probabilities.shape != (len(ids), len(class_names)):
        problems.append(f"probabilities are {probabilities.shape} for {len(ids)} clips and {len(class_names)} classes")
    else:
        broken = ~np.isfinite(probabilities).all(axis=1)
        problems += [f"{ids[row]} has a probability that is NaN or infinite" for row in np.flatnonzero(broken)]
    if problems:
        raise DataError(list_problems("These predictions cannot be submitted:", problems))


def _plan(ids: list[str], form: Form) -> _Plan:
    n_classes = len(form.class_names)
    if form.class_numbers and len(set(form.class_numbers)) != n_classes:
        raise DataError(f"{n_classes} classes need as many different numbers, found {list(form.class_numbers)}.")
    notes: list[str] = []
    body: list[list[str]] = []
    if form.sample is None:
        labels, columns = form.labels or "names", list(range(n_classes))
        header = [ID_COLUMN, *(form.class_names if labels == "probabilities" else [LABEL_COLUMN])]
        wanted, rows = ids, list(range(len(ids)))
        by_number = labels == "numbers"
    else:
        header, body = _read_sample(form.sample)
        wanted = [row[0] for row in body]
        rows = _match(wanted, ids, form.sample)
        if len(header) == 2:
            cells = [row[1] for row in body if row[1].strip()]
            labels, columns = _label_kind(cells, form), []
            by_number = labels == "numbers"
            unknown = sorted(
                {number for cell in cells if (number := whole_number(cell)) is not None} - {*_numbers(form)}
            )
            if by_number and unknown:
                notes.append(
                    f"{form.sample} holds {_named(unknown)}; the classes' numbers are {_named(_numbers(form))}."
                )
        else:
            labels, (columns, by_number) = "probabilities", _columns(header, form)
    if by_number and not form.class_numbers:
        first, last = form.class_names[0], form.class_names[-1]
        notes.append(
            f"the data set's own class numbers are not known; 0 to {n_classes - 1} stand for the classes in their "
            f"order, {first} to {last}. (They are taken from class_numbers in a run's manifest.json.)"
        )
    return _Plan(header, wanted, rows, labels, columns, notes, body)


def _numbers(form: Form) -> tuple[int, ...]:
    return form.class_numbers or tuple(range(len(form.class_names)))


def _read_sample(sample: Path) -> tuple[list[str], list[list[str]]]:
    """Gives the sample's header and its rows."""
    try:
        with sample.open(newline="", encoding="utf-8-sig") as handle:
            rows = [row for row in csv.reader(handle, strict=True) if row]
    except FileNotFoundError as error:
        raise DataError(f"Sample submission {sample} does not exist.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Sample submission {sample} cannot be read as CSV: {error}.") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise DataError(f"Sample submission {sample} must hold a header of at least two columns, and rows.")
    header, body = rows[0], rows[1:]
    problems = [
        f"row {number} has {len(row)} columns, the header has {len(header)}"
        for number, row in enumerate(body, start=2)
        if len(row) != len(header)
    ]
    ids = [row[0] for row in body]
    problems += [f"id {clip_id} stands in {n} rows" for clip_id, n in Counter(ids).items() if n > 1]
    if problems:
        raise DataError(list_problems(f"Sample submission {sample} cannot be used:", problems))
    return header, body


def _label_kind(cells: Sequence[str], form: Form) -> LabelKind:
    """Whether the one label column of a sample, some of whose cells may be empty, wants names or numbers."""
    if form.labels == "probabilities":
        raise DataError(
            f"Sample submission {form.sample} has one label column, which takes names or numbers, not probabilities. "
            "Leave --labels out."
        )
    if form.labels is not None:
        return form.labels
    fractions = [cell for cell in cells if whole_number(cell) is None]
    if not fractions:
        named = not cells or all(whole_number(name) is not None for name in form.class_names)
        return "names" if named else "numbers"
    if all(map(_is_number, cells)) and not set(fractions) <= set(form.class_names):
        raise DataError(
            f"Sample submission {form.sample} has one label column with numbers such as {fractions[0]}, which are "
            "neither class names nor whole class numbers. Say what is wanted: --labels names or --labels numbers."
        )
    return "names"


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _match(wanted: list[str], ids: list[str], sample: Path) -> list[int]:
    """Gives the row of the prediction for each wanted id."""
    exact = {clip_id: row for row, clip_id in enumerate(ids)}
    by_stem: dict[str, list[int]] = {}
    by_tail: dict[str, list[int]] = {}
    for row, clip_id in enumerate(ids):
        by_stem.setdefault(_stem(clip_id), []).append(row)
        for tail in _tails(_stem(clip_id)):
            by_tail.setdefault(tail, []).append(row)
    rows: list[int] = []
    problems = []
    wanted_by: dict[int, str] = {}
    for clip_id in wanted:
        stem = _stem(clip_id)
        near = [exact[clip_id]] if clip_id in exact else by_stem.get(stem, [])
        # One of the two may have been named from a folder further up: test/1.wav and 1.wav.
        near = near or by_tail.get(stem, []) or next(filter(None, (by_stem.get(tail) for tail in _tails(stem))), [])
        if len(near) == 1:
            rows.append(near[0])
            other = wanted_by.setdefault(near[0], clip_id)
            if other != clip_id:
                problems.append(f"{other} and {clip_id} would both be {ids[near[0]]}")
        elif near:
            problems.append(f"{clip_id} could be {' or '.join(ids[row] for row in near)}")
        else:
            problems.append(f"{clip_id} was not predicted")
    if problems:
        raise DataError(
            list_problems(
                f"{len(problems)} of {len(wanted)} ids in {sample} have no prediction:",
                problems,
                f"The predictions have ids such as {', '.join(ids[:3])}." if ids else "There are no predictions.",
            )
        )
    return rows


def _columns(header: list[str], form: Form) -> tuple[list[int], bool]:
    """Gives the class of each column after the id, and whether columns are named by class numbers."""
    if form.labels in ("names", "numbers"):
        raise DataError(
            f"Sample submission {form.sample} has a column for each class, which take probabilities, not "
            f"{form.labels}. Leave --labels out."
        )
    names, numbers = list(form.class_names), [str(number) for number in _numbers(form)]
    for known in (names, numbers):
        if sorted(header[1:]) == sorted(known):
            return [known.index(column) for column in header[1:]], known is numbers
    by_number = all(whole_number(column) is not None for column in header[1:])
    odd = sorted(set(header[1:]) ^ set(numbers if by_number else names))
    raise DataError(
        list_problems(
            f"Sample submission {form.sample} must have an id and one label column, or an id and one column for each "
            f"of the {len(names)} classes by name or by number; found {len(header)} columns. Not in both:",
            odd or ["every class is there, but some columns stand twice"],
        )
    )


def _stem(clip_id: str) -> str:
    suffix = PurePosixPath(clip_id).suffix
    return clip_id.removesuffix(suffix) if suffix.lower() in AUDIO_SUFFIXES else clip_id


def _tails(clip_id: str) -> list[str]:
    """Gives `b/c` and `c` of `a/b/c`."""
    parts = clip_id.split("/")
    return ["/".join(parts[start:]) for start in range(1, len(parts)) if parts[-1]]


def _named(values: Iterable[object]) -> str:
    listed = list(values)
    more = f" and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(map(str, listed[:MAX_NAMED])) + more
