"""The competition's CSV: predictions in the columns and row order of its sample submission."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, cast

import numpy as np

from esc_ensemble.errors import DataError, list_problems
from esc_ensemble.files import atomic_path
from esc_ensemble.progress import say
from esc_ensemble.submission_rules import (
    LabelForm,
    composed,
    describe_windows,
    number_written,
    order_columns,
    read_label_column,
)

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
    form: LabelForm
    """How labels are written."""
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

    With a sample, its header, its rows (also those of one id) and their order are the submission's. Two columns are an
    id and a class: its number where the sample's cells are all whole numbers (and the classes' names are not), else its
    name. Where each cell of the sample lists k classes, the k most probable ones are written with the same separator;
    for two classes, a column of numbers from 0 to 1 called `probability`, `target` or by a class gets a probability.
    1 + C columns are an id and a probability for each class, named by class names or class numbers in any order.
    Ids match with or without an audio suffix and the folders above, where that leaves one prediction for each; ids and
    names match in Unicode's composed form where their own spellings differ. Without a sample the columns are clip_id
    and label, or clip_id and a column for each class, in the order given.

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
        how = plan.form
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : how.n_labels]  # (N, C) -> (N, n_labels)
        cells = [[how.separator.join(how.texts[label] for label in row)] for row in best.tolist()]
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
        texts = form.class_names if labels == "names" else tuple(map(str, _numbers(form)))
        label_form = LabelForm(labels, texts)
        by_number = labels == "numbers"
    else:
        header, body = _read_sample(form.sample)
        wanted = [row[0] for row in body]
        rows = _match(wanted, ids, form.sample)
        if len(header) == 2:
            label_form = _label_form(header[1], [row[1] for row in body], form)
            labels, columns = cast("LabelKind", label_form.kind), [label_form.label]
            by_number = labels == "numbers"
            if label_form.unknown:
                found = _named(label_form.unknown)
                notes.append(
                    f"{form.sample} holds {found}; the classes' numbers are {_named(_numbers(form))}."
                    if by_number
                    else f"{form.sample} holds labels that the model lacks: {found}"
                )
            if label_form.note:
                notes.append(label_form.note)
        else:
            columns, by_number = _columns(header, form)
            labels, label_form = "probabilities", LabelForm("probabilities", ())
    if by_number and not form.class_numbers:
        first, last = form.class_names[0], form.class_names[-1]
        notes.append(
            f"the data set's own class numbers are not known; 0 to {n_classes - 1} stand for the classes in their "
            f"order, {first} to {last}. (They are taken from class_numbers in a run's manifest.json.)"
        )
    return _Plan(header, wanted, rows, labels, columns, label_form, notes, body)


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
    if problems:
        raise DataError(list_problems(f"Sample submission {sample} cannot be used:", problems))
    return header, body


def _label_form(column: str, cells: Sequence[str], form: Form) -> LabelForm:
    """Return what the one column next to the ids holds."""
    try:
        return read_label_column(column, cells, form.class_names, form.class_numbers, form.labels or "")
    except ValueError as error:
        raise DataError(f"Sample submission {form.sample} {error}") from error


class _Ids:
    """The ids of the predictions, to be found by others, all in one spelling."""

    def __init__(self, ids: Sequence[str], spell: Callable[[str], str]) -> None:
        self.spell = spell
        self.exact: dict[str, list[int]] = {}
        self.by_stem: dict[str, list[int]] = {}
        self.by_tail: dict[str, list[int]] = {}
        for row, clip_id in enumerate(map(spell, ids)):
            self.exact.setdefault(clip_id, []).append(row)
            self.by_stem.setdefault(_stem(clip_id), []).append(row)
            for tail in _tails(_stem(clip_id)):
                self.by_tail.setdefault(tail, []).append(row)

    def find(self, clip_id: str) -> list[int]:
        """Return the rows of the predictions that an id may be of."""
        clip_id = self.spell(clip_id)
        stem = _stem(clip_id)
        # One of the two may have been named from a folder further up: test/1.wav and 1.wav.
        near = self.exact.get(clip_id) or self.by_stem.get(stem) or self.by_tail.get(stem)
        return near or next(filter(None, (self.by_stem.get(tail) for tail in _tails(stem))), [])


def _match(wanted: list[str], ids: list[str], sample: Path) -> list[int]:
    """Return the row of the prediction for each wanted id, which may be wanted several times."""
    spellings = [_Ids(ids, str), _Ids(ids, composed)]

    def find(clip_id: str) -> list[int]:
        return next(filter(None, (each.find(clip_id) for each in spellings)), [])

    rows: list[int] = []
    problems: dict[str, str] = {}
    wanted_by: dict[int, str] = {}
    for clip_id in wanted:
        near = find(clip_id)
        if len(near) == 1:
            rows.append(near[0])
            other = wanted_by.setdefault(near[0], clip_id)
            if composed(other) != composed(clip_id):
                problems[clip_id] = f"{other} and {clip_id} would both be {ids[near[0]]}"
        elif near:
            problems[clip_id] = f"{clip_id} could be {' or '.join(ids[row] for row in near)}"
        else:
            problems[clip_id] = f"{clip_id} was not predicted"
    if problems:
        windows = describe_windows([_stem(clip_id) for clip_id in wanted], lambda names: [*map(bool, map(find, names))])
        if windows:
            raise DataError(
                f"Sample submission {sample} cannot be filled: {windows}. `esc-ens infer --timeline` writes the "
                "windows of recordings to a CSV of its own."
            )
        raise DataError(
            list_problems(
                f"{len(problems)} of {len({*wanted})} ids in {sample} have no prediction:",
                list(problems.values()),
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
        order = order_columns(header[1:], known)
        if order is not None:
            return order, known is numbers
    by_number = all(number_written(column) is not None for column in header[1:])
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
