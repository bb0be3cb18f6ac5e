"""The four ways a dataset may lie on disk, each read into the same rows.

- ESC-50: `meta/esc50.csv` and `audio/`.
- UrbanSound8K: `metadata/UrbanSound8K.csv` and `audio/fold<N>/`; the source is `fsID`.
- A CSV file, or a folder with a single one beside the audio. Columns, in any case and order: the file
  (`filename`, `path`, `file` or `clip_id`, relative to the CSV's folder or its `audio/`), the class
  (`category`, `class`, `label` or `target`; a numeric `target` or `classID` beside a name orders the
  classes), `fold`, and where there is one the source (`source`, `src_file` or `fsID`). Without a source
  column every clip is its own source.
- A folder with one sub-folder a class. Its folds are made here.

Where folds are made and no source is given, the source is read off the file's name: the stem without a cut
marker at its end (`-3`, `_03`), so that `rain_7-1.wav` and `rain_7-2.wav` are one recording. A class in
which that leaves fewer sources than folds is numbered rather than cut (`dog_001.wav` ...), and every file of
it is its own source.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from esc_ensemble.data.audio import AUDIO_SUFFIXES
from esc_ensemble.data.folding import assign_folds
from esc_ensemble.data.tables import CsvTable, find_column, plural, read_csv, whole_number
from esc_ensemble.errors import DataError
from esc_ensemble.progress import say

OTHER_AUDIO_SUFFIXES = (".m4a", ".aac", ".mp4", ".wma", ".webm", ".amr", ".ape", ".wv", ".mka", ".3gp")
ESC50_CSV = Path("meta", "esc50.csv")
URBANSOUND_CSV = Path("metadata", "UrbanSound8K.csv")
FILE_COLUMNS = ("filename", "path", "file", "slice_file_name", "clip_id")
CLASS_COLUMNS = ("category", "class", "label", "target")
NUMBER_COLUMNS = ("target", "classid", "class_id")
SOURCE_COLUMNS = ("source", "src_file", "fsid")
DEFAULT_N_FOLDS = 5
NO_FOLD = -1
CUT_MARKER = re.compile(r"(?<=.)[-_]\d+$")
# Names that carry their source: ESC-50's fold-source-take-class, UrbanSound8K's source-class-occurrence-slice.
SOURCE_IN_NAME = (re.compile(r"^\d-(\d+)-[A-Z]-\d+$"), re.compile(r"^(\d+)-\d+-\d+-\d+$"))
FOLD_ADVICE = 'add one with the number of each clip\'s fold, or pass "--n-folds 5" to have folds made by source'


@dataclass(frozen=True)
class Row:
    """One clip as the metadata gives it."""

    clip_id: str
    path: Path
    class_name: str
    class_number: int | None
    fold: int
    source: str


@dataclass(frozen=True)
class Table:
    """The rows of a dataset that could be read, and what is wrong with the others."""

    name: str
    root: Path
    origin: Path
    """What messages name: the CSV or the folder."""
    rows: tuple[Row, ...]
    problems: tuple[str, ...]


def read_table(path: Path, *, esc10: bool = False, n_folds: int = 0, folds: bool = True, classes: bool = True) -> Table:
    """Finds out which layout `path` has and reads it; without `folds` or `classes` a table may lack them.

    Raises:
        DataError: there is nothing of any layout, or a column or the whole table cannot be read.
    """
    if n_folds < 0 or n_folds == 1:
        raise DataError(f"--n-folds {n_folds} cannot work: give at least 2, or 0 to use the folds of the data.")
    how = _How(esc10, n_folds, folds, classes)
    if not path.exists():
        raise DataError(f"{path} does not exist. Give the folder or the CSV file of a dataset.")
    if path.is_file():
        if path.suffix.lower() != ".csv":
            raise DataError(f"{path} is not a CSV file. Give a .csv file or the folder of a dataset.")
        return _read_csv_table(path, path.parent, path.stem, how)
    name = path.resolve().name
    if (path / ESC50_CSV).is_file():
        return _read_csv_table(path / ESC50_CSV, path, name, how)
    if (path / URBANSOUND_CSV).is_file():
        return _read_csv_table(path / URBANSOUND_CSV, path, name, how)
    lone_csv = _lone_csv(path)
    if lone_csv is not None:
        return _read_csv_table(lone_csv, path, name, how)
    if esc10:
        raise DataError(f"--esc10 chooses a part of ESC-50, but {path / ESC50_CSV} does not exist.")
    return _read_tree(path, name, how)


def has_table(path: Path) -> bool:
    """Whether a dataset lies at `path` that a CSV describes, itself or a folder."""
    if path.is_dir():
        return any((path / table).is_file() for table in (ESC50_CSV, URBANSOUND_CSV)) or _lone_csv(path) is not None
    return path.is_file() and path.suffix.lower() == ".csv"


def read_files(folder: Path, *, every_kind: bool = False) -> Table:
    """Reads all audio files below a folder as recordings without classes.

    Args:
        folder: where to look, hidden files apart.
        every_kind: those that cannot be decoded here too, so that decoding names them.

    Raises:
        DataError: there is no such folder, or no audio in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}. Give a folder of audio.")
    kinds = (*AUDIO_SUFFIXES, *OTHER_AUDIO_SUFFIXES) if every_kind else AUDIO_SUFFIXES
    files = [file for file in sorted(folder.rglob("*")) if _is_audio(file, kinds) and not file.name.startswith(".")]
    if not files:
        raise DataError(f"{folder} holds no audio file ({' '.join(AUDIO_SUFFIXES)}).")
    rows = tuple(recording(file.relative_to(folder).as_posix(), file) for file in files)
    return Table(folder.resolve().name, folder, folder, rows, ())


def recording(clip_id: str, file: Path) -> Row:
    """Gives the row of a recording without a class."""
    return Row(clip_id, file, "", None, NO_FOLD, _source_in_name(file.stem))


def _lone_csv(folder: Path) -> Path | None:
    """Gives the CSV of a folder that holds exactly one, beside audio files or an `audio` folder."""
    tables = [file for file in _visible(folder) if file.suffix.lower() == ".csv"]
    beside_audio = (folder / "audio").is_dir() or any(_is_audio(file) for file in _visible(folder))
    return tables[0] if len(tables) == 1 and beside_audio else None


@dataclass(frozen=True)
class _How:
    """What is wanted of a dataset."""

    esc10: bool
    n_folds: int
    folds: bool
    classes: bool


def _read_csv_table(path: Path, root: Path, name: str, how: _How) -> Table:
    table = read_csv(path)
    columns = _Columns.find(table)
    problems = columns.missing(table, how)
    if problems:
        raise DataError("\n".join(f"{path} {problem}." for problem in problems))
    if columns.fold and how.n_folds:
        say(f"{path} has folds of its own; --n-folds {how.n_folds} changes nothing.")
    rows, problems = [], list(table.problems)
    for line, cells in table.rows:
        if how.esc10 and cells["esc10"].lower() not in ("true", "1", "yes"):
            continue
        row, wrong = _read_row(path.parent, columns, cells, how)
        problems += [f"line {line}: {text}" for text in wrong]
        if row is not None:
            rows.append(row)
    # A column of numbers orders the classes only where it holds nothing else.
    if any(row.class_number is None for row in rows):
        rows = [replace(row, class_number=None) for row in rows]
    if not columns.fold and how.folds:
        rows, fold_problems = _with_folds(rows, how.n_folds, has_sources=bool(columns.source))
        problems += fold_problems
    return Table(name, root, path, tuple(rows), tuple(problems))


@dataclass(frozen=True)
class _Columns:
    """Which column holds what; empty where there is none."""

    clip_id: str
    file: str
    class_name: str
    class_number: str
    fold: str
    source: str

    @staticmethod
    def find(table: CsvTable) -> _Columns:
        file = find_column(table, FILE_COLUMNS)
        class_name = find_column(table, CLASS_COLUMNS)
        return _Columns(
            clip_id=find_column(table, ("clip_id",)) or file,
            file=file,
            class_name=class_name,
            class_number=find_column(table, NUMBER_COLUMNS) or class_name,
            fold=find_column(table, ("fold",)),
            source=find_column(table, SOURCE_COLUMNS),
        )

    def missing(self, table: CsvTable, how: _How) -> list[str]:
        found = f"Found: {', '.join(table.columns)}"
        problems = []
        if not self.file:
            problems.append(f"has no column with the file names ({', '.join(FILE_COLUMNS)}). {found}")
        if not self.class_name and how.classes:
            problems.append(f"has no column with the classes ({', '.join(CLASS_COLUMNS)}). {found}")
        if not self.fold and how.folds and not how.n_folds:
            problems.append(f'has no column "fold": {FOLD_ADVICE}. {found}')
        if how.esc10 and "esc10" not in table.columns:
            problems.append('has no column "esc10", by which --esc10 chooses a part of ESC-50')
        return problems


def _read_row(folder: Path, columns: _Columns, cells: dict[str, str], how: _How) -> tuple[Row | None, list[str]]:
    clip_id, file = cells[columns.clip_id], cells[columns.file]
    class_name = cells[columns.class_name] if columns.class_name else ""
    class_number = whole_number(cells[columns.class_number]) if columns.class_number else None
    fold = whole_number(cells[columns.fold]) if columns.fold else NO_FOLD
    problems = []
    if not file or not clip_id:
        problems.append(f'no file name in column "{columns.file if not file else columns.clip_id}"')
    elif Path(file).suffix.lower() in OTHER_AUDIO_SUFFIXES:
        problems.append(
            f'"{file}" is of a kind that cannot be decoded; convert it to one of {" ".join(AUDIO_SUFFIXES)}'
        )
    if not class_name and how.classes:
        problems.append(f'no class in column "{columns.class_name}"')
    if fold is None or (columns.fold and fold < 0):
        problems.append(f'fold "{cells[columns.fold]}" is not a whole number from 0 up')
    if problems or fold is None:
        return None, problems
    source = (cells[columns.source] if columns.source else "") or clip_id
    path = _locate(folder, file, fold)
    return Row(clip_id, path, class_name, class_number, fold, source), []


def _locate(folder: Path, file: str, fold: int) -> Path:
    """Gives the first place that has the file, else the one it should be at."""
    if folder.name == ESC50_CSV.parent.name:
        places = [folder.parent / "audio" / file]
    elif folder.name == URBANSOUND_CSV.parent.name:
        places = [folder.parent / "audio" / f"fold{fold}" / file]
    else:
        places = [folder / file, folder / "audio" / file]
    for place in places:
        if place.is_file():
            return place
    if Path(file).suffix.lower() not in AUDIO_SUFFIXES:  # some tables name clips without the ending
        for place in places:
            for suffix in AUDIO_SUFFIXES:
                if place.with_name(place.name + suffix).is_file():
                    return place.with_name(place.name + suffix)
    return places[0]


def _read_tree(root: Path, name: str, how: _How) -> Table:
    rows, problems = [], []
    class_folders = [folder for folder in _visible(root) if folder.is_dir()]
    for folder in class_folders:
        if (folder / ESC50_CSV).is_file() or (folder / URBANSOUND_CSV).is_file():
            raise DataError(f"{root} is not a dataset, but {folder} is. Give that folder.")
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]
        audio = [file for file in files if _is_audio(file)]
        problems += [
            f"{file} is of a kind that cannot be decoded; convert it to one of {' '.join(AUDIO_SUFFIXES)}"
            for file in files
            if file.suffix.lower() in OTHER_AUDIO_SUFFIXES
        ]
        if not audio:
            problems.append(f'class folder "{folder.name}" holds no audio file')
        number = whole_number(folder.name)
        rows += [
            Row(file.relative_to(root).as_posix(), file, folder.name, number, NO_FOLD, file.stem) for file in audio
        ]
    if not rows:
        raise DataError(
            f"{root} is not a dataset: it has no {ESC50_CSV}, no {URBANSOUND_CSV}, no single CSV beside "
            f"audio files and no sub-folders of {' '.join(AUDIO_SUFFIXES)} files, one a class."
        )
    if not how.folds:
        return Table(name, root, root, tuple(rows), tuple(problems))
    folded, fold_problems = _with_folds(rows, how.n_folds or DEFAULT_N_FOLDS, has_sources=False)
    return Table(name, root, root, tuple(folded), (*problems, *fold_problems))


def _with_folds(rows: Sequence[Row], n_folds: int, *, has_sources: bool) -> tuple[list[Row], list[str]]:
    """Puts every row into one of the folds 1..n_folds, and says where there are too few sources for that."""
    if not rows:
        return [], []
    if not has_sources:
        rows = _with_sources_from_names(rows, n_folds)
    n_sources = len({row.source for row in rows})
    if n_sources < n_folds:
        return list(rows), [f"{plural(n_sources, 'source')} cannot make {n_folds} folds"]
    folds = assign_folds([row.source for row in rows], [row.class_name for row in rows], n_folds)
    return [replace(row, fold=fold) for row, fold in zip(rows, folds, strict=True)], []


def _with_sources_from_names(rows: Sequence[Row], n_folds: int) -> list[Row]:
    stripped = [_source_in_name(Path(row.clip_id).stem) for row in rows]
    sources_of_class: defaultdict[str, set[str]] = defaultdict(set)
    for row, source in zip(rows, stripped, strict=True):
        sources_of_class[row.class_name].add(source)
    numbered = sorted(name for name, sources in sources_of_class.items() if len(sources) < n_folds)
    if numbered:
        say(
            f"Note: too few sources can be told from the file names of {', '.join(numbered)}, so each of their files "
            "counts as its own. If some are cuts of one recording, scores come out too good: name the sources in a CSV."
        )
    return [
        replace(row, source=source if len(sources_of_class[row.class_name]) >= n_folds else Path(row.clip_id).stem)
        for row, source in zip(rows, stripped, strict=True)
    ]


def _source_in_name(stem: str) -> str:
    return number_in_name(stem) or CUT_MARKER.sub("", stem)


def number_in_name(stem: str) -> str:
    """Freesound's number in a file name of ESC-50's or UrbanSound8K's kind; empty where there is none."""
    return next((match[1] for pattern in SOURCE_IN_NAME if (match := pattern.match(stem))), "")


def _is_audio(file: Path, kinds: Sequence[str] = AUDIO_SUFFIXES) -> bool:
    return file.suffix.lower() in kinds and file.is_file()


def _visible(folder: Path) -> list[Path]:
    """Gives what a folder holds, without hidden files and the leftovers of archivers, sorted by name."""
    return sorted(item for item in folder.iterdir() if not item.name.startswith((".", "__")))
