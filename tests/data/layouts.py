"""Data sets in the layouts that people have, made small: one function each writes it into a folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 8000
LABELS = ("bark", "rain", "siren")


def sound(*name: object) -> np.ndarray:
    """A fifth of a second that no other name has."""
    rng = np.random.default_rng(abs(hash(("sound", *map(str, name)))) % 2**32)
    tone = np.sin(2 * np.pi * rng.uniform(150, 3000) * np.arange(RATE // 5) / RATE)
    return np.asarray(0.4 * tone + 0.02 * rng.standard_normal(len(tone)))


def wav(path: Path, *name: object, wave: np.ndarray | None = None, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(*(name or (path.as_posix()[-60:],))) if wave is None else wave, RATE, **how)
    return path


def write_table(
    path: Path, rows: Sequence[Mapping[str, object]], *, encoding: str = "utf-8", separator: str = ","
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def esc50_rows(ending: str = "wav") -> list[dict[str, object]]:
    """Three classes in five folds; one recording has clips of two classes in folds 2 and 3."""
    rows = []
    for fold in range(1, 6):
        for target, label in zip((0, 10, 42), LABELS, strict=True):
            for take in "AB":
                source = "777" if (fold, label, take) in ((2, "bark", "A"), (3, "rain", "A")) else f"{fold}{target:02d}"
                name = f"{fold}-{source}-{take}-{target}.{ending}"
                rows.append(
                    {"filename": name, "fold": fold, "target": target, "category": label, "esc10": label != "siren"}
                    | {"src_file": source, "take": take}
                )
    return rows


def urbansound_rows() -> list[dict[str, object]]:
    rows = []
    for fold in (1, 2, 3):
        for number, label in ((3, "dog_bark"), (1, "car_horn")):
            for piece in range(2):
                source = "900" if (fold, number) in ((1, 3), (2, 1)) else f"{fold}0{number}"
                rows.append(
                    {
                        "slice_file_name": f"{source}-{number}-{fold}-{piece}.wav",
                        "fsID": source,
                        "start": 0.0,
                        "end": 0.2,
                    }
                    | {"salience": 1 + piece, "fold": fold, "classID": number, "class": label}
                )
    return rows


def official_esc50(root: Path) -> Path:
    for row in esc50_rows():
        wav(root / "audio" / str(row["filename"]))
    write_table(root / "meta" / "esc50.csv", esc50_rows())
    return root


def kaggle_esc50(root: Path) -> Path:
    for row in esc50_rows():
        for folder in ("", "16000", "44100"):
            wav(root / "audio" / "audio" / folder / str(row["filename"]), row["filename"])
    write_table(root / "esc50.csv", esc50_rows())
    return root


def official_urbansound(root: Path) -> Path:
    for row in urbansound_rows():
        wav(root / "audio" / f"fold{row['fold']}" / str(row["slice_file_name"]))
    write_table(root / "metadata" / "UrbanSound8K.csv", urbansound_rows())
    return root


def kaggle_urbansound(root: Path) -> Path:
    for row in urbansound_rows():
        wav(root / f"fold{row['fold']}" / str(row["slice_file_name"]))
    write_table(root / "UrbanSound8K.csv", urbansound_rows())
    return root


def split_folders(root: Path) -> Path:
    for split, n in (("train", 6), ("val", 2), ("test", 2)):
        for label in LABELS:
            for number in range(n):
                wav(root / split / label / f"{label}{split}{number}x.wav")
    return root


def fold_folders(root: Path) -> Path:
    for fold in (1, 2, 3):
        for label in LABELS:
            for number in range(3):
                wav(root / f"fold{fold}" / label / f"{label}{fold}{number}x.wav")
    return root


def audiofolder(root: Path) -> Path:
    rows = []
    for split, n in (("train", 6), ("test", 2)):
        for label in LABELS:
            for number in range(n):
                rows.append({"file_name": f"{split}/{label}-{number}{split}x.wav", "label": label})
                wav(root / str(rows[-1]["file_name"]))
    write_table(root / "metadata.csv", rows)
    return root


def audiofolder_json(root: Path) -> Path:
    for split, n in (("train", 6), ("validation", 2), ("test", 2)):
        lines = []
        for label in LABELS:
            for number in range(n):
                name = f"{label}-{number}{split}x.wav"
                wav(root / split / name, split, name)
                lines.append(json.dumps({"file_name": name, "label": label, "note": {"take": number}}))
        (root / split / "metadata.jsonl").write_text("\n".join(lines))
    return root


def speech_commands(root: Path) -> Path:
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for word in ("yes", "no", "off"):
        for speaker in range(8):
            name = f"{word}/{speaker:08x}_nohash_{speaker % 2}.wav"
            wav(root / name)
            if speaker in (5, 6):
                lists["validation_list.txt" if speaker == 5 else "testing_list.txt"].append(name)
    for name in ("running_tap", "white_noise"):
        wav(root / "_background_noise_" / f"{name}.wav")
    for file, names in lists.items():
        (root / file).write_text("\n".join(names) + "\n")
    return root


def recording_folders(root: Path) -> Path:
    for label in LABELS:
        for recording in range(6):
            for piece in range(3):
                wav(root / label / f"rec{recording}{label}" / f"{piece:05d}.wav")
    return root


def class_folders(root: Path) -> Path:
    for label in LABELS:
        for recording in range(6):
            for piece in range(2):
                wav(root / label / f"{label}{recording}x-{piece}.wav")
    return root


def competition_table(root: Path) -> Path:
    rows = []
    for label in LABELS:
        for number in range(6):
            rows.append({"fname": f"{label[0]}{number}x.wav", "label": label, "speaker": f"s{number}"})
            wav(root / "audio_train" / str(rows[-1]["fname"]))
    write_table(root / "train.csv", rows)
    (root / "class_names.csv").write_text("n,name\n0,bark\n")
    return root


def encoded(path: Path) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, sound(path.name), RATE, format="FLAC")
    return content.getvalue()


def parquet(root: Path, n_shards: int = 2) -> Path:
    """`ashraq/esc50`: a column `audio` of {bytes, path} beside the official columns."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet as pq  # noqa: PLC0415

    rows = esc50_rows()
    (root / "data").mkdir(parents=True)
    for number in range(n_shards):
        part = rows[number * len(rows) // n_shards : (number + 1) * len(rows) // n_shards]
        columns: dict[str, Any] = {name: [row[name] for row in part] for name in rows[0]}
        columns["audio"] = [
            {"bytes": encoded(Path(str(row["filename"]))), "path": str(row["filename"])} for row in part
        ]
        shard = root / "data" / f"train-{number:05d}-of-{n_shards:05d}.parquet"
        pq.write_table(pa.table(columns), shard, row_group_size=4)
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    made.__name__: made
    for made in (
        *(official_esc50, kaggle_esc50, official_urbansound, kaggle_urbansound, split_folders, fold_folders),
        *(audiofolder, audiofolder_json, speech_commands, recording_folders, class_folders, competition_table, parquet),
    )
}
WITHOUT_FOLDS = ("competition_table",)
"""Of these the number of folds has to be given."""
