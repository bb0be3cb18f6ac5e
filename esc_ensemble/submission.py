"""The competition's CSV: predictions in the columns and row order of its sample submission."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from esc_ensemble.errors import DataError, list_problems
from esc_ensemble.files import atomic_path

DEFAULT_HEADER = ("clip_id", "label")
# Only these endings are cut when ids are compared: an id may hold a dot of its own.
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aif", ".aiff", ".aifc", ".au"})


def write_submission(
    path: Path,
    clip_ids: Sequence[str] | np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    sample: Path | None = None,
) -> None:
    """Writes predictions as a submission, atomically.

    With a sample, its header, its rows and their order are kept. Two columns are an id and a class name;
    1 + C columns are an id and a probability for each class, in the sample's order of classes. Ids match with
    or without an audio suffix. Without a sample the columns are clip_id and label, in the order given.

    Args:
        path: where to.
        clip_ids: (N,) one id a row of `probabilities`.
        probabilities: (N, C).
        class_names: C names.
        sample: the competition's sample_submission.csv.

    Raises:
        DataError: a probability is not finite, an id occurs twice, the sample cannot be used, or it asks for
            clips that were not predicted.
        WorkError: the file cannot be written.
    """
    ids = [str(clip_id) for clip_id in clip_ids]
    _check_predictions(ids, probabilities, class_names)
    if sample is None:
        header, wanted, rows = list(DEFAULT_HEADER), ids, list(range(len(ids)))
    else:
        header, wanted = _read_sample(sample)
        rows = _match(wanted, ids, sample)
    columns = _columns(header, class_names, sample)
    if columns is None:
        names = np.asarray(class_names, dtype=object)[probabilities[rows].argmax(axis=1)]
        body = [[clip_id, name] for clip_id, name in zip(wanted, names, strict=True)]
    else:
        values = probabilities[rows][:, columns].tolist()
        body = [[clip_id, *(f"{value:.9g}" for value in row)] for clip_id, row in zip(wanted, values, strict=True)]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(body)


def _check_predictions(ids: list[str], probabilities: np.ndarray, class_names: Sequence[str]) -> None:
    problems = [f"{clip_id} is predicted {n} times" for clip_id, n in Counter(ids).items() if n > 1]
    if probabilities.shape != (len(ids), len(class_names)):
        problems.append(f"probabilities are {probabilities.shape} for {len(ids)} clips and {len(class_names)} classes")
    else:
        broken = ~np.isfinite(probabilities).all(axis=1)
        problems += [f"{ids[row]} has a probability that is NaN or infinite" for row in np.flatnonzero(broken)]
    if problems:
        raise DataError(list_problems("These predictions cannot be submitted:", problems))


def _read_sample(sample: Path) -> tuple[list[str], list[str]]:
    """Gives the sample's header and its ids in order."""
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
    return header, ids


def _match(wanted: list[str], ids: list[str], sample: Path) -> list[int]:
    """Gives the row of the prediction for each wanted id."""
    exact = {clip_id: row for row, clip_id in enumerate(ids)}
    by_stem: dict[str, list[int]] = {}
    for row, clip_id in enumerate(ids):
        by_stem.setdefault(_stem(clip_id), []).append(row)
    rows: list[int] = []
    problems = []
    for clip_id in wanted:
        near = [exact[clip_id]] if clip_id in exact else by_stem.get(_stem(clip_id), [])
        if len(near) == 1:
            rows.append(near[0])
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


def _columns(header: list[str], class_names: Sequence[str], sample: Path | None) -> list[int] | None:
    """Gives the class of each column after the id, or None where one column takes the class name."""
    if len(header) == 2:
        return None
    if set(header[1:]) != set(class_names) or len(header) != len(class_names) + 1:
        odd = sorted(set(header[1:]) ^ set(class_names))
        raise DataError(
            list_problems(
                f"Sample submission {sample} must have an id and one label column, or an id and one column "
                f"for each of the {len(class_names)} classes; found {len(header)} columns. Not in both:",
                odd or ["every class is there, but some columns stand twice"],
            )
        )
    position = {name: index for index, name in enumerate(class_names)}
    return [position[name] for name in header[1:]]


def _stem(clip_id: str) -> str:
    suffix = PurePosixPath(clip_id).suffix
    return clip_id.removesuffix(suffix) if suffix.lower() in AUDIO_SUFFIXES else clip_id
