"""The rules that the arrays of one logits file keep; `logits` applies them at every write and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from esc_ensemble.config.kinds import ShiftMode

SCHEMA = 1
KEYS = (
    "clip_ids",
    "labels",
    "logits",
    "shifts",
    "selection_clip_ids",
    "selection_labels",
    "selection_logits",
    "meta",
)
OPTIONAL_KEYS = ("sources", "selection_sources")
META_TYPES: Mapping[str, type] = {
    "schema": int,
    "class_names": list,
    "fold": int,
    "run": str,
    "config_hash": str,
    "dataset_fingerprint": str,
}
SHIFT_MODES: tuple[str, ...] = get_args(ShiftMode)
MAX_NAMED = 5


def content_problems(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Lists every rule that the arrays of a logits file break.

    Args:
        arrays: all of `KEYS`, and those of `OPTIONAL_KEYS` that the file has.
    """
    meta, problems = _read_meta(arrays["meta"])
    n_classes = len(meta["class_names"]) if not problems else None
    problems += _shift_problems(arrays["shifts"])
    n_shifts = len(arrays["shifts"]) if arrays["shifts"].ndim == 1 else None
    for prefix in ("", "selection_"):
        problems += _part_problems(arrays, prefix, n_shifts, n_classes)
    if arrays["clip_ids"].shape == (0,):
        problems.append("clip_ids is empty")
    return problems + _overlap_problems(arrays)


def _read_meta(text: np.ndarray) -> tuple[dict[str, Any], list[str]]:
    if text.dtype.kind != "U" or text.ndim:
        return {}, [f"meta must be one JSON text, found {text.dtype} of shape {text.shape}"]
    try:
        meta = json.loads(str(text))
    except ValueError as error:
        return {}, [f"meta is not valid JSON ({error})"]
    if not isinstance(meta, dict):
        return {}, [f"meta must be a JSON object, found {meta!r}"]
    problems = [f"meta has no {key}" for key in META_TYPES if key not in meta]
    problems += [
        f"meta: {key} must be a {kind.__name__}, found {meta[key]!r}"
        for key, kind in META_TYPES.items()
        if key in meta and type(meta[key]) is not kind  # isinstance would let True pass as a fold
    ]
    if problems:
        return meta, problems
    if meta["schema"] != SCHEMA:
        problems.append(f"its schema version is {meta['schema']}, this program reads {SCHEMA}")
    names = meta["class_names"]
    if not names or not all(isinstance(name, str) and name for name in names):
        problems.append("meta: class_names must hold at least one name, each a text that is not empty")
    elif len(set(names)) != len(names):
        problems.append(f"meta: class_names repeats {_named({n for n in names if names.count(n) > 1})}")
    if meta.get("shift_mode", "cyclic") not in SHIFT_MODES:
        problems.append(f"meta: shift_mode must be {' or '.join(SHIFT_MODES)}, found {meta['shift_mode']!r}")
    if meta.get("shared_recordings", "") not in ("", "leave-out", "keep"):
        problems.append(f"meta: shared_recordings must be leave-out or keep, found {meta['shared_recordings']!r}")
    if not meta["run"]:
        problems.append("meta: run is empty")
    return meta, problems


def _shift_problems(shifts: np.ndarray) -> list[str]:
    if shifts.dtype != np.float32 or shifts.ndim != 1:
        return [f"shifts must be float32 of shape (S,), found {shifts.dtype} of shape {shifts.shape}"]
    problems = []
    if not np.isfinite(shifts).all():
        problems.append("shifts holds NaN or infinity")
    if 0.0 not in shifts:
        problems.append(f"shifts must hold 0.0, found {shifts.tolist()}")
    if len(np.unique(shifts)) != len(shifts):
        problems.append(f"shifts holds a value twice: {shifts.tolist()}")
    return problems


def _part_problems(
    arrays: Mapping[str, np.ndarray], prefix: str, n_shifts: int | None, n_classes: int | None
) -> list[str]:
    clip_ids = arrays[f"{prefix}clip_ids"]
    if clip_ids.dtype.kind != "U" or clip_ids.ndim != 1:
        return [f"{prefix}clip_ids must be str of shape (N,), found {clip_ids.dtype} of shape {clip_ids.shape}"]
    names, counts = np.unique(clip_ids, return_counts=True)
    problems = []
    if (counts > 1).any():
        problems.append(f"{prefix}clip_ids repeats {_named(names[counts > 1])}")
    if "" in names:
        problems.append(f"{prefix}clip_ids holds an empty name")
    problems += _label_problems(arrays[f"{prefix}labels"], f"{prefix}labels", len(clip_ids), n_classes)
    problems += _logit_problems(arrays[f"{prefix}logits"], prefix, clip_ids, n_shifts, n_classes)
    sources = arrays.get(f"{prefix}sources")
    if sources is not None and (sources.dtype.kind != "U" or sources.shape != clip_ids.shape):
        problems.append(
            f"{prefix}sources must be str of shape {clip_ids.shape}, found {sources.dtype} of shape {sources.shape}"
        )
    return problems


def _label_problems(labels: np.ndarray, key: str, n_clips: int, n_classes: int | None) -> list[str]:
    if labels.dtype != np.int64 or labels.shape != (n_clips,):
        return [f"{key} must be int64 of shape {(n_clips,)}, found {labels.dtype} of shape {labels.shape}"]
    if n_classes is None:
        return []
    wrong = labels[(labels < -1) | (labels >= n_classes)]
    if wrong.size:
        return [f"{key} must lie in -1..{n_classes - 1}, found {_named(np.unique(wrong))}"]
    return []


def _logit_problems(
    logits: np.ndarray, prefix: str, clip_ids: np.ndarray, n_shifts: int | None, n_classes: int | None
) -> list[str]:
    wanted = ("S" if n_shifts is None else n_shifts, len(clip_ids), "C" if n_classes is None else n_classes)
    fits = logits.ndim == 3 and all(
        isinstance(want, str) or size == want for size, want in zip(logits.shape, wanted, strict=True)
    )
    if logits.dtype != np.float32 or not fits:
        return [
            f"{prefix}logits must be float32 of shape ({', '.join(map(str, wanted))}), "
            f"found {logits.dtype} of shape {logits.shape}"
        ]
    broken = ~np.isfinite(logits).all(axis=(0, 2))  # (S, N, C) -> (N,)
    if broken.any():
        return [f"{prefix}logits holds NaN or infinity for {_named(clip_ids[broken])}"]
    return []


def _overlap_problems(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The selection split may choose temperatures only if it shares no clip and no source with the test."""
    problems = []
    for key in ("clip_ids", "sources"):
        test, selection = arrays.get(key), arrays.get(f"selection_{key}")
        # Arrays of another kind are named by the rules above; here they only must not be compared.
        if test is None or selection is None or not test.dtype.kind == selection.dtype.kind == "U":
            continue
        both = np.intersect1d(test, selection)
        if both.size:
            problems.append(f"{key} of the test part stand in the selection part too: {_named(both)}")
    return problems


def _named(values: Any) -> str:
    ordered = sorted(values)
    more = f" and {len(ordered) - MAX_NAMED} more" if len(ordered) > MAX_NAMED else ""
    return ", ".join(str(value) for value in ordered[:MAX_NAMED]) + more
