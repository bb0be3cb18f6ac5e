"""The logits file: the contract between trainers and blender, written and checked without any model.

One `.npz` a fold, no pickle inside, so that any framework can write it:

    clip_ids (N,) str           the clips of the fold held out as test
    labels (N,) int64           their class numbers, -1 where unknown
    logits (S, N, C) float32    for each time shift, clip and class
    shifts (S,) float32         seconds of each time shift, 0.0 among them
    selection_clip_ids, selection_labels, selection_logits    the same for the selection split; N may be 0
    sources, selection_sources (N,) str                       optional: the recording each clip was cut from
    meta () str                 JSON: schema, class_names, fold, run, config_hash, dataset_fingerprint, and optionally
                                shift_mode: "cyclic" (what leaves at one end comes in at the other) or "zero", and
                                shared_recordings: "leave-out" or "keep"
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from esc_ensemble.config.kinds import ShiftMode
from esc_ensemble.errors import LogitsError, list_problems
from esc_ensemble.files import atomic_path
from esc_ensemble.logits_rules import KEYS, OPTIONAL_KEYS, SCHEMA, content_problems

FILE_NAME = "logits.npz"
# What numpy and zipfile raise on a file that is cut short, damaged, pickled, or not an archive at all.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
)


@dataclass(frozen=True, eq=False)
class LogitsPart:
    """Logits of one group of clips from one fold's model."""

    clip_ids: np.ndarray
    """(N,) str."""
    labels: np.ndarray
    """(N,) int64, -1 where unknown."""
    logits: np.ndarray
    """(S, N, C) float32."""
    sources: np.ndarray | None = None
    """(N,) str, the recording each clip was cut from; None makes each clip its own source."""


@dataclass(frozen=True, eq=False)
class FoldLogits:
    """Everything one logits file holds."""

    test: LogitsPart
    """The clips of the fold that this model never saw."""
    selection: LogitsPart
    """The clips split off for early stopping and temperature; N is 0 where there are none."""
    shifts: np.ndarray
    """(S,) float32 seconds, 0.0 among them."""
    class_names: tuple[str, ...]
    """C names in the order of the logits' last axis."""
    fold: int
    """Number of the official fold held out as test."""
    run: str
    """Name of the run."""
    config_hash: str
    """Hash of the run's resolved config."""
    dataset_fingerprint: str
    """Fingerprint of the data the run was trained on."""
    shift_mode: ShiftMode = "cyclic"
    """What a shift does with what it moves over the clip's end."""
    shared_recordings: str = ""
    """Where folds share recordings: leave-out if clips of the test fold's recordings were not trained on, else keep."""


@dataclass(frozen=True, eq=False)
class RunLogits:
    """All folds of one run: every clip's logits from the one model that held its fold out."""

    name: str
    """Name of the run."""
    path: Path
    """The run's folder."""
    folds: tuple[FoldLogits, ...]
    """One a fold, by rising fold number."""
    clip_ids: np.ndarray
    """(N,) str, fold after fold."""
    labels: np.ndarray
    """(N,) int64."""
    fold_of_clip: np.ndarray
    """(N,) int64, the fold that holds each clip as test."""
    sources: np.ndarray
    """(N,) str; the clip id itself where the file names no source."""
    logits: np.ndarray
    """(S, N, C) float32."""

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """Numbers of the run's folds, rising."""
        return tuple(fold.fold for fold in self.folds)

    @property
    def class_names(self) -> tuple[str, ...]:
        """C class names."""
        return self.folds[0].class_names

    @property
    def shifts(self) -> np.ndarray:
        """(S,) float32 seconds."""
        return self.folds[0].shifts

    @property
    def shift_mode(self) -> ShiftMode:
        """What a shift does with what it moves over the clip's end."""
        return self.folds[0].shift_mode

    @property
    def shared_recordings(self) -> str:
        """What became of recordings that folds share; empty where folds share none, or the run does not say."""
        return self.folds[0].shared_recordings


def describe_shared_rules(rules: Mapping[str, str]) -> str:
    """Says in a sentence what became of recordings that folds share; empty where folds share none.

    Args:
        rules: `shared_recordings` of each run, by name.
    """
    left_out = [name for name, rule in rules.items() if rule == "leave-out"]
    kept = [name for name, rule in rules.items() if rule == "keep"]
    parts = [f"left out of training by {', '.join(left_out)}"] if left_out else []
    parts += [f"trained on by {', '.join(kept)} (the protocol of published figures)"] if kept else []
    return f"Recordings with clips in several folds: {'; '.join(parts)}." if parts else ""


def logits_path(run_dir: Path, fold: int) -> Path:
    """Gives the place of a fold's logits file in a run folder."""
    return run_dir / f"fold-{fold}" / FILE_NAME


def seconds_of(shifts: np.ndarray) -> list[float]:
    """Gives shifts as they were typed: stored as float32, six digits give back the number."""
    return [round(float(shift), 6) for shift in shifts]


def shift_places(stored: np.ndarray, wanted: Sequence[float]) -> list[int]:
    """Gives where shifts in seconds stand among those stored; all must be there."""
    seconds = seconds_of(stored)
    return [seconds.index(round(float(shift), 6)) for shift in wanted]


def empty_part(n_shifts: int, n_classes: int) -> LogitsPart:
    """Gives a part without clips, for runs without a selection split."""
    return LogitsPart(
        clip_ids=np.empty(0, dtype=np.str_),
        labels=np.empty(0, dtype=np.int64),
        logits=np.empty((n_shifts, 0, n_classes), dtype=np.float32),
    )


def write_logits(path: Path, fold_logits: FoldLogits) -> None:
    """Writes one fold's logits atomically. Equal content gives equal bytes.

    Raises:
        LogitsError: the content breaks a rule that a reader would refuse; nothing is written.
        WorkError: the file cannot be written.
    """
    arrays = _to_arrays(fold_logits)
    problems = content_problems(arrays)
    if problems:
        raise LogitsError(list_problems(f"Logits for {path} break the contract; nothing was written:", problems))
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **arrays)


def read_logits(path: Path) -> FoldLogits:
    """Reads and checks one logits file.

    Raises:
        LogitsError: the file is missing, unreadable, or breaks rules; it and each of them are named.
    """
    arrays, problems = _load(path)
    problems = problems or content_problems(arrays)
    if problems:
        raise LogitsError(
            list_problems(f"Logits file {path} cannot be used:", problems, "Delete it and run its trainer again.")
        )
    meta = json.loads(str(arrays["meta"]))
    return FoldLogits(
        test=_part(arrays, ""),
        selection=_part(arrays, "selection_"),
        shifts=arrays["shifts"],
        class_names=tuple(meta["class_names"]),
        fold=meta["fold"],
        run=meta["run"],
        config_hash=meta["config_hash"],
        dataset_fingerprint=meta["dataset_fingerprint"],
        shift_mode=meta.get("shift_mode", "cyclic"),
        shared_recordings=meta.get("shared_recordings", ""),
    )


def read_run(run_dir: Path) -> RunLogits:
    """Reads every `fold-*/logits.npz` of a run and checks the folds against each other.

    Raises:
        LogitsError: there is no logits file, one cannot be used, or two do not fit together.
    """
    paths = sorted(run_dir.glob(f"fold-*/{FILE_NAME}"))
    if not paths:
        if (run_dir / "sources.json").exists():
            raise LogitsError(
                f"{run_dir} is a pretraining, which has no folds. Train first: give it as --init, or a wav2vec2 "
                "as --model.source to train-b."
            )
        found = "holds no fold-*/logits.npz" if run_dir.is_dir() else "does not exist"
        raise LogitsError(
            f"Run folder {run_dir} {found}. Train it first: esc-ens train-a --run {run_dir.name} "
            "(or the trainer you want)."
        )
    by_path = {path: read_logits(path) for path in paths}
    problems = _run_problems(run_dir, by_path)
    if problems:
        raise LogitsError(list_problems(f"The folds of run {run_dir} do not fit together:", problems))
    return join_folds(run_dir, sorted(by_path.values(), key=lambda fold: fold.fold))


def join_folds(run_dir: Path, folds: Sequence[FoldLogits]) -> RunLogits:
    """Returns the run of these folds, which fit together and are ordered by number; its clips are their test clips."""
    tests = [fold.test for fold in folds]
    return RunLogits(
        name=folds[0].run,
        path=run_dir,
        folds=tuple(folds),
        clip_ids=np.concatenate([test.clip_ids for test in tests]),
        labels=np.concatenate([test.labels for test in tests]),
        fold_of_clip=np.repeat([fold.fold for fold in folds], [len(test.clip_ids) for test in tests]),
        sources=np.concatenate([test.clip_ids if test.sources is None else test.sources for test in tests]),
        logits=np.concatenate([test.logits for test in tests], axis=1),
    )


def _run_problems(run_dir: Path, by_path: dict[Path, FoldLogits]) -> list[str]:
    first_path, first = next(iter(by_path.items()))
    problems = [
        f"{path.relative_to(run_dir)} says it is fold {fold.fold}"
        for path, fold in by_path.items()
        if path != logits_path(run_dir, fold.fold)
    ]
    for field in ("class_names", "run", "dataset_fingerprint", "config_hash", "shift_mode", "shared_recordings"):
        problems += [
            f"{path.relative_to(run_dir)} has another {field} than {first_path.relative_to(run_dir)}"
            for path, fold in by_path.items()
            if getattr(fold, field) != getattr(first, field)
        ]
    problems += [
        f"{path.relative_to(run_dir)} has shifts {fold.shifts.tolist()}, "
        f"{first_path.relative_to(run_dir)} has {first.shifts.tolist()}"
        for path, fold in by_path.items()
        if not np.array_equal(fold.shifts, first.shifts)
    ]
    clip_ids, counts = np.unique(np.concatenate([fold.test.clip_ids for fold in by_path.values()]), return_counts=True)
    for clip_id in clip_ids[counts > 1]:
        holders = [str(path.relative_to(run_dir)) for path, fold in by_path.items() if clip_id in fold.test.clip_ids]
        problems.append(f"clip {clip_id} is a test clip of {' and '.join(holders)}")
    return problems


def _to_arrays(fold_logits: FoldLogits) -> dict[str, np.ndarray]:
    meta = {
        "schema": SCHEMA,
        "class_names": list(fold_logits.class_names),
        "fold": fold_logits.fold,
        "run": fold_logits.run,
        "config_hash": fold_logits.config_hash,
        "dataset_fingerprint": fold_logits.dataset_fingerprint,
        "shift_mode": fold_logits.shift_mode,
    }
    if fold_logits.shared_recordings:
        meta["shared_recordings"] = fold_logits.shared_recordings
    arrays = {"shifts": np.ascontiguousarray(fold_logits.shifts)}
    for prefix, part in (("", fold_logits.test), ("selection_", fold_logits.selection)):
        arrays[f"{prefix}clip_ids"] = _strings(part.clip_ids)
        arrays[f"{prefix}labels"] = np.ascontiguousarray(part.labels)
        arrays[f"{prefix}logits"] = np.ascontiguousarray(part.logits)
        if part.sources is not None:
            arrays[f"{prefix}sources"] = _strings(part.sources)
    arrays["meta"] = np.array(json.dumps(meta, sort_keys=True, ensure_ascii=False))
    return arrays


def _strings(values: np.ndarray | Sequence[str]) -> np.ndarray:
    # Built anew from the texts: an array's own dtype may be wider than its longest text, or object.
    return np.array([str(value) for value in values], dtype=np.str_)


def _part(arrays: dict[str, np.ndarray], prefix: str) -> LogitsPart:
    return LogitsPart(
        clip_ids=arrays[f"{prefix}clip_ids"],
        labels=arrays[f"{prefix}labels"],
        logits=arrays[f"{prefix}logits"],
        sources=arrays.get(f"{prefix}sources"),
    )


def _load(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Gives the file's arrays, or what keeps them from being read."""
    if not path.is_file():
        return {}, ["there is no such file"]
    arrays: dict[str, np.ndarray] = {}
    problems: list[str] = []
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            return {}, ["it holds a single array, not the named arrays of an .npz"]
        with archive:
            for key in (*KEYS, *OPTIONAL_KEYS):
                if key in archive:
                    arrays[key] = archive[key]
                elif key in KEYS:
                    problems.append(f"{key} is missing")
    except UNREADABLE as error:
        problems.append(f"it is no readable .npz without pickled objects ({error})")
    return arrays, problems
