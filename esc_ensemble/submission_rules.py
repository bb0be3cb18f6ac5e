"""How the ids, columns and cells of a sample submission are read. `kaggle_kernel.py` carries a copy of the rules."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# --- copied into kaggle_kernel.py

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
