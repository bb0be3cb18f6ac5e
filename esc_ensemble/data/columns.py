"""Rows of a table as clips: which column holds what, and where each clip's audio is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from esc_ensemble.data.audio_index import AudioIndex, parts_of
from esc_ensemble.data.rows import (
    NO_FOLD,
    SPLIT_FOLDS,
    CellTable,
    ReadOptions,
    Row,
    below,
    fold_of_name,
    split_of_name,
)
from esc_ensemble.data.tables import find_column, number_in_name, plural, whole_number
from esc_ensemble.errors import DataError

NAME_COLUMNS = ("filename", "fname", "file_name", "file", "path", "filepath", "file_path", "slice_file_name", "audio")
ID_COLUMNS = ("clip_id", "id")
FILE_COLUMNS = dict.fromkeys((*NAME_COLUMNS, *ID_COLUMNS, "recording_id")).keys()
CLASS_COLUMNS = ("category", "class", "class_name", "label", "labels", "primary_label", "target")
NUMBER_COLUMNS = ("target", "classid", "class_id")
SOURCE_COLUMNS = ("source", "src_file", "fsid", "group", "recording_id", "recording", "speaker", "speaker_id")
SPLIT_COLUMNS = ("split", "subset", "partition", "set", "usage", "dataset")
ADD_FOLDS = 'add one with the number of each clip\'s fold, or pass "--n-folds 5" to have folds made by source'
NO_CLASS = 'no class in column "{column}"'
TRUE = ("true", "1", "yes")
MAX_NAMED = 3


@dataclass(frozen=True)
class ReadRows:
    """The rows of one table."""

    rows: list[Row]
    bad: list[str]
    notes: list[str]
    names: dict[int, str]
    """Position of a row whose audio is not where it is expected -> the name that the table has for it."""

    @property
    def unlocated(self) -> bool:
        """Whether the audio of some rows has to be looked for."""
        return bool(self.names)

    def locate(self, index: AudioIndex, root: Path, *, strict: bool = False) -> ReadRows:
        """Looks for the audio of those rows among all files of a folder.

        Args:
            index: the files.
            root: the data set's folder, for messages.
            strict: whether a file outside the index is none.
        """
        positions = list(self.names)
        wanted = [self.names[position] for position in positions]
        # Where folders in the names are right for some clips, a file of the same name elsewhere is another clip.
        exact = any(len(parts_of(row.clip_id)) > 1 for number, row in enumerate(self.rows) if number not in self.names)
        found = index.find(wanted, [f"fold{self.rows[position].fold}" for position in positions], exact=exact)
        rows, bad, notes = list(self.rows), list(self.bad), list(self.notes)
        lost: set[int] = set()
        for number, (position, path) in enumerate(zip(positions, found.paths, strict=True)):
            if path is not None:
                rows[position] = replace(rows[position], path=path)
            elif number in found.ambiguous:
                places = sorted({below(path.parent, root) for path in found.ambiguous[number]})
                several = " and ".join(places[:MAX_NAMED]) if len(places) > 1 else f"{places[0]}, twice"
                bad.append(f'clip "{rows[position].clip_id}" could be in {several}: say where with --audio FOLDER')
                lost.add(position)
            elif strict:
                bad.append(f'clip "{rows[position].clip_id}" is listed, but it is not below --audio')
                lost.add(position)
        other_kind = Counter(
            (Path(name).suffix.lower(), path.suffix.lower())
            for name, path in zip(wanted, found.paths, strict=True)
            if path is not None and Path(name).suffix and Path(name).suffix.lower() != path.suffix.lower()
        )
        notes += [
            f"The table names {named} files, and {plural(n, 'clip')} are there as {there}."
            for (named, there), n in other_kind.items()
            if there and named.lstrip(".").isalnum() and not named.lstrip(".").isdecimal()
        ]
        rows = [row for position, row in enumerate(rows) if position not in lost]
        return ReadRows(rows, bad, notes, {})


@dataclass(frozen=True)
class _Columns:
    """Which column holds what; empty where there is none."""

    clip_id: str
    file: str
    class_name: str
    class_number: str
    fold: str
    split: str
    source: str

    @staticmethod
    def find(table: CellTable) -> _Columns:
        columns = table.columns
        file = find_column(columns, tuple(FILE_COLUMNS))
        class_name = find_column(columns, CLASS_COLUMNS)
        clip_id = find_column(columns, ("clip_id",)) or file
        if clip_id != file and len({cells[clip_id] for _, cells in table.rows}) < len(table.rows):
            clip_id = file  # it names something that several clips share
        return _Columns(
            clip_id=clip_id,
            file=file,
            class_name=class_name,
            class_number=find_column(columns, NUMBER_COLUMNS) or class_name,
            fold=find_column(columns, ("fold",)),
            split="",
            source=find_column(columns, [name for name in SOURCE_COLUMNS if name != file]),
        )

    def with_split(self, table: CellTable, path: Path) -> tuple[_Columns, list[str]]:
        """Returns the columns with that of a named split, where the table has one, and notes."""
        for name in (self.fold,) if self.fold else SPLIT_COLUMNS:
            values = {cells[name] for _, cells in table.rows if name in cells} - {""}
            parts = {split_of_name(value) for value in values}
            if name == "split" and values and not any(parts):
                shown = ", ".join(sorted(values)[:MAX_NAMED])
                return self, [f'{path}: column "split" holds {shown}: not used. A column of folds is called "fold".']
            if name == "split" and values:
                return replace(self, split=name), []
            if "train" in parts and all(parts) and len(parts) > 1:
                return replace(self, split=name, fold=""), [f'{path}: column "{name}" is read as a split.']
        return self, []

    def unused(self, table: CellTable, path: Path) -> list[str]:
        """Notes further columns of classes or recordings that group the clips otherwise than those that are used."""
        notes = []
        for what, used, names in (
            ("classes", self.class_name, [name for name in CLASS_COLUMNS if name not in NUMBER_COLUMNS]),
            ("recordings", self.source, SOURCE_COLUMNS),
        ):
            others = [name for name in names if name in table.columns and name not in (used, self.file)]
            pairs = {name: {(cells.get(used, ""), cells.get(name, "")) for _, cells in table.rows} for name in others}
            n_used = len({cells.get(used, "") for _, cells in table.rows})
            others = [
                name for name in others if not n_used == len(pairs[name]) == len({other for _, other in pairs[name]})
            ]
            if used and others:
                notes.append(f'{path}: column "{used}" says the {what}; not used: {", ".join(others)}.')
        return notes

    def missing(self, table: CellTable, options: ReadOptions) -> list[str]:
        found = f"Found: {', '.join(table.columns)}"
        problems = []
        if not self.file:
            problems.append(f"has no column with the file names ({', '.join(FILE_COLUMNS)}). {found}")
        if not self.class_name and options.need_classes:
            ways = "name another table with --table NAME, or read the folders alone with --table none"
            problems.append(f"has no column with the classes ({', '.join(CLASS_COLUMNS)}). {found}; {ways}")
        if options.esc10 and "esc10" not in table.columns:
            problems.append('has no column "esc10", by which --esc10 chooses a part of ESC-50')
        return problems


def rows_of_cells(
    table: CellTable, path: Path, places: Sequence[Path], options: ReadOptions, *, split: str = ""
) -> ReadRows:
    """Reads a table's rows as clips.

    Columns are known by their names, in any case and order: the file (`filename`, `fname`, `file_name`, `file`, `path`,
    `slice_file_name`, `audio`, `clip_id` or `id`), the class (`category`, `class`, `label`, `labels`, `target` or
    `primary_label`; a numeric `target` or `classID` beside a name orders the classes), `fold` or `split`, and the
    recording (`source`, `src_file`, `fsID`, `group`, `recording_id` or `speaker`). All others are metadata.

    Args:
        table: the cells.
        path: where they were read from, for messages.
        places: folders that the files may be in, the likeliest first.
        options: what the user decided.
        split: the part of a named split that all rows are in, where the table's own folder or name says it.

    Raises:
        DataError: a column is missing, or cells hold several labels.
    """
    columns, notes = _Columns.find(table), list(table.notes)
    columns, split_notes = columns.with_split(table, path)
    notes += split_notes
    notes += columns.unused(table, path)
    missing = columns.missing(table, options)
    if missing:
        raise DataError("\n".join(f"{path} {problem}." for problem in missing))
    rows: list[Row] = []
    bad = list(table.problems)
    names: dict[int, str] = {}
    unlabelled = 0
    for number, (line, cells) in enumerate(table.rows):
        if options.esc10 and cells["esc10"].lower() not in TRUE:
            continue
        row, wrong = _read_row(columns, cells, options, split)
        if wrong == [NO_CLASS] and (split or split_of_name(cells.get(columns.split, ""))) == "test":
            unlabelled += 1
            continue
        bad += [f"line {line}: {text.format(column=columns.class_name)}" for text in wrong]
        if row is None:
            continue
        if table.audio:
            row = replace(row, path=table.audio[number], stored=table.stored[number])
        else:
            file = cells[columns.file]
            found = None if options.audio else find_expected(file, row.fold, places)
            row = replace(row, path=found or places[0].joinpath(*parts_of(file)))
            if found is None:
                names[len(rows)] = file
        rows.append(row)
    if unlabelled:
        notes.append(f"{plural(unlabelled, 'clip')} of the test part without a class: left out.")
    if options.need_classes and not options.whole_labels:
        _refuse_several_labels(path, columns.class_name, {row.class_name for row in rows})
    # A column of numbers orders the classes only where it holds nothing else.
    if any(row.class_number is None for row in rows):
        rows = [replace(row, class_number=None) for row in rows]
    return ReadRows(rows, bad, notes, names)


def _read_row(
    columns: _Columns, cells: dict[str, str], options: ReadOptions, split: str
) -> tuple[Row | None, list[str]]:
    clip_id, file = cells[columns.clip_id], cells[columns.file]
    class_name = cells[columns.class_name] if columns.class_name else ""
    # A name is a number only if it is written as one; a number next to a name may be a float, as pandas writes it.
    reads = number_in_name if columns.class_number == columns.class_name else whole_number
    class_number = reads(cells[columns.class_number]) if columns.class_number else None
    fold = _fold_of_cell(cells[columns.fold]) if columns.fold else NO_FOLD
    problems = []
    if not file or not clip_id:
        problems.append(f'no file name in column "{columns.file if not file else columns.clip_id}"')
    if not class_name and options.need_classes:
        problems.append(NO_CLASS)
    if fold is None or (columns.fold and fold < 0):
        problems.append(f'fold "{cells[columns.fold]}" is not a whole number from 0 up')
    if columns.split and not columns.fold:
        split = split_of_name(cells[columns.split])
        if not split:
            problems.append(f'split "{cells[columns.split]}" is none of {", ".join(SPLIT_FOLDS)}')
    if problems or fold is None:
        return None, problems
    used = {columns.clip_id, columns.file, columns.class_name, columns.fold, columns.source}
    return (
        Row(
            clip_id=clip_id,
            path=Path(file),
            class_name=class_name,
            class_number=class_number,
            fold=fold,
            source=cells[columns.source] if columns.source else "",
            split=split,
            metadata={name: cell for name, cell in cells.items() if name and name not in used},
        ),
        [],
    )


def _fold_of_cell(text: str) -> int | None:
    number = whole_number(text)
    if number is None and fold_of_name(text) != NO_FOLD:
        return fold_of_name(text)
    return number


def find_expected(file: str, fold: int, places: Sequence[Path]) -> Path | None:
    """Returns the file in the first of the places that has it."""
    relative = file.replace("\\", "/")
    for place in places:  # joined as text, which is quicker than paths; an absolute name stands for itself
        for folder in (os.fspath(place), f"{os.fspath(place)}/fold{fold}"):
            candidate = os.path.join(folder, relative)  # noqa: PTH118
            if os.path.isfile(candidate):  # noqa: PTH113
                return Path(os.path.normpath(candidate))
    return None


def _refuse_several_labels(path: Path, column: str, labels: Collection[str]) -> None:
    """Refuses cells that hold several labels, which would become classes of their own."""
    lists = sorted(label for label in labels if label.startswith("[") and label.endswith("]"))
    if lists:
        raise DataError(f'{path}: column "{column}" holds lists such as {lists[0]}; one label a clip is supported.')
    several: list[str] = []
    shared: Counter[str] = Counter()
    for label in labels:
        for separator in ";,|":
            split = {part.strip() for part in label.split(separator)} - {""}
            if len(split) > 1:
                shared.update(split)
                if split & set(labels):
                    several.append(label)
                break
    many = [label for label in labels if any(separator in label for separator in ";,|")]
    if not several and 2 * len(many) > len(labels) and any(n > 1 for n in shared.values()):
        several = many
    if several:
        example = min(several, key=lambda label: (len(label), label))
        raise DataError(
            f'{path}: column "{column}" holds cells of several labels, such as "{example}". Clips of several labels '
            "are not supported: leave one in each cell, or give --whole-labels to take each such cell as one class."
        )
