"""Audio files to named predictions with onnxruntime alone: no torch, nothing but the `.onnx` file.

from esc_ensemble.infer import Classifier

classifier = Classifier(Path("exports/blend.onnx"))
for prediction in classifier.predict([Path("dog.wav")]):
    print(prediction.path, prediction.top(3))
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.cores import free_cores
from esc_ensemble.data.audio import AUDIO_SUFFIXES, prepare
from esc_ensemble.errors import DataError, ModelFileError, list_problems
from esc_ensemble.files import atomic_path
from esc_ensemble.progress import say

METADATA_KEY = "esc_ensemble"
METADATA_SCHEMA = 1
PROBABILITY_FLOOR = 1e-12
METADATA_NEEDED = ("class_names", "sample_rate", "n_samples", "fit", "trim_db", "tta", "members")
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


@dataclass(frozen=True)
class Prediction:
    """What the model hears in one file."""

    path: Path
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    """(C,) float32, summing to 1."""

    def top(self, k: int) -> list[tuple[str, float]]:
        """Gives the `k` likeliest classes with their probabilities, the likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.class_names[number], float(self.probabilities[number])) for number in order]


class Classifier:
    """An exported blend, ready to hear files.

    Args:
        model: the `.onnx` file.
        threads: CPU threads; 0 takes the cores this process may use.

    Raises:
        ModelFileError: the file is missing, not ONNX, or was not exported by esc_ensemble.
    """

    def __init__(self, model: Path, threads: int = 0) -> None:
        import onnxruntime  # noqa: PLC0415 - so that reading `Prediction`s needs no runtime

        if not model.is_file():
            raise ModelFileError(f"Model {model} does not exist. Make one with `esc-ens export BLEND`.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or free_cores()
        options.log_severity_level = 3
        available = onnxruntime.get_available_providers()
        providers = [name for name in PROVIDERS if name in available]
        try:
            self.session = onnxruntime.InferenceSession(str(model), options, providers=providers)
        except Exception as error:
            raise ModelFileError(f"{model} cannot be read as an ONNX model: {error}") from error
        self.metadata = _read_metadata(self.session, model)
        self.class_names: tuple[str, ...] = tuple(self.metadata["class_names"])
        # The data set's own; files of earlier versions do not say.
        self.class_numbers: tuple[int, ...] = tuple(self.metadata.get("class_numbers", ()))
        self.sample_rate: int = self.metadata["sample_rate"]

    def listen(self, waveforms: np.ndarray) -> np.ndarray:
        """Gives probabilities (B, C) of waveforms (B, T), float32 in [-1, 1] at `sample_rate`."""
        probabilities = self.session.run(["probabilities"], {"waveform": waveforms.astype(np.float32, copy=False)})
        return np.asarray(probabilities[0])

    def prepare(self, path: Path) -> np.ndarray:
        """Reads a file as the waveform (T,) that the model was trained to hear.

        Raises:
            DataError: the file is missing or is not sound audio.
        """
        meta = self.metadata
        return prepare(path, meta["sample_rate"], meta["n_samples"], meta["fit"], meta["trim_db"])

    def predict(
        self, paths: Sequence[Path], *, batch_size: int = 16, skip_bad: bool = False, tta: bool = False
    ) -> Iterator[Prediction]:
        """Hears files one batch after the other; decoding runs ahead in threads.

        Args:
            paths: audio files.
            batch_size: files at a time.
            skip_bad: leave out files that cannot be read, and say which, instead of raising.
            tta: average over the training run's time shifts, where the file was exported without them.

        Raises:
            DataError: names every file that cannot be read, also those in batches still to come.
        """
        listen = self.listen_shifted if tta and not self.metadata["tta"] else self.listen
        with ThreadPoolExecutor(free_cores()) as pool:
            for start in range(0, len(paths), batch_size):
                chosen = paths[start : start + batch_size]
                heard = list(pool.map(self._try_prepare, chosen))
                bad = [str(result) for result in heard if isinstance(result, DataError)]
                if bad and not skip_bad:
                    rest = pool.map(self._try_prepare, paths[start + batch_size :])
                    bad += [str(result) for result in rest if isinstance(result, DataError)]
                    raise DataError(
                        list_problems("These files cannot be heard:", bad, "Leave them out with --skip-bad.")
                    )
                if bad:
                    say(list_problems("Left out:", bad))
                good = [
                    (path, waveform)
                    for path, waveform in zip(chosen, heard, strict=True)
                    if isinstance(waveform, np.ndarray)
                ]
                if good:
                    probabilities = listen(np.stack([waveform for _, waveform in good]))
                    for (path, _), row in zip(good, probabilities, strict=True):
                        yield Prediction(path, self.class_names, row)

    def _try_prepare(self, path: Path) -> np.ndarray | DataError:
        try:
            return self.prepare(path)
        except DataError as error:
            return error

    def listen_shifted(self, waveforms: np.ndarray) -> np.ndarray:
        """Gives probabilities (B, C) of waveforms (B, T), averaged over the training runs' time shifts.

        Log-probabilities are averaged. For a geometric blend whose members share their shifts this equals a
        file exported with the shifts inside.
        """
        shifts = sorted(
            {
                (shift, member.get("shift_mode", "cyclic"))  # files of earlier versions know but one
                for member in self.metadata["members"]
                for shift in member["stored_shifts"]
            }
        )
        shifted = np.concatenate([_shift(waveforms, round(shift * self.sample_rate), mode) for shift, mode in shifts])
        log_probs = np.log(np.maximum(self.listen(shifted), PROBABILITY_FLOOR))  # (S·B, C)
        mean = np.exp(log_probs.reshape(len(shifts), len(waveforms), -1).mean(axis=0))  # (S·B, C) -> (B, C)
        return mean / mean.sum(axis=1, keepdims=True)


def _shift(waveforms: np.ndarray, shift: int, mode: str) -> np.ndarray:
    """Moves waveforms (B, T) later by `shift` samples, as `esc_ensemble.predict.shift_samples` does."""
    if mode == "cyclic":
        return np.roll(waveforms, shift, axis=1)
    moved = np.zeros_like(waveforms)
    n_kept = max(0, waveforms.shape[1] - abs(shift))
    moved[:, max(shift, 0) : max(shift, 0) + n_kept] = waveforms[:, max(-shift, 0) : max(-shift, 0) + n_kept]
    return moved


def find_audio(paths: Iterable[Path]) -> list[Path]:
    """Gives the named files, and all audio files below the named folders, in order of name.

    Raises:
        DataError: a path does not exist, or there is no audio at all.
    """
    found: list[Path] = []
    problems = []
    for path in paths:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file())
            if not files:
                problems.append(f"{path}: no audio file in this folder ({', '.join(sorted(AUDIO_SUFFIXES))})")
            found += files
        elif path.exists():
            found.append(path)
        else:
            problems.append(f"{path}: no such file or folder")
    if problems:
        raise DataError(list_problems("Nothing was heard:", problems))
    return list(dict.fromkeys(found))


def write_predictions(path: Path, predictions: Sequence[Prediction], k: int = 3) -> None:
    """Writes predictions atomically: `.json` as a list of objects, else CSV with a row a file.

    CSV columns: file, top1, top1_probability, ... up to `k`, then a probability for each class.
    """
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".json":
            text = json.dumps([to_json(prediction, k) for prediction in predictions], indent=2, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")
            return
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            names = predictions[0].class_names if predictions else ()
            k = min(k, len(names)) if names else k
            ranks = [column for rank in range(1, k + 1) for column in (f"top{rank}", f"top{rank}_probability")]
            writer.writerow(["file", *ranks, *names])
            for prediction in predictions:
                best = [cell for name, p in prediction.top(k) for cell in (name, f"{p:.6f}")]
                writer.writerow([str(prediction.path), *best, *(f"{p:.6f}" for p in prediction.probabilities)])


def to_json(prediction: Prediction, k: int) -> dict[str, Any]:
    """Gives a prediction as plain values: the file, its top `k`, and every class's probability."""
    return {
        "file": str(prediction.path),
        "top": [{"class": name, "probability": round(p, 6)} for name, p in prediction.top(k)],
        "probabilities": {
            name: round(float(p), 6) for name, p in zip(prediction.class_names, prediction.probabilities, strict=True)
        },
    }


def _read_metadata(session: Any, model: Path) -> dict[str, Any]:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelFileError(
            f"{model} has no esc_ensemble metadata (class names, sample rate), so its output cannot be named. "
            "Export it with `esc-ens export`."
        )
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise ModelFileError(f"{model} has damaged esc_ensemble metadata: {error}. Export it again.") from error
    if not isinstance(metadata, dict) or metadata.get("schema") != METADATA_SCHEMA:
        raise ModelFileError(f"{model} was exported with another version of esc_ensemble. Export it again.")
    absent = [key for key in METADATA_NEEDED if key not in metadata]
    if absent:
        raise ModelFileError(f"{model} lacks {', '.join(absent)} in its metadata. Export it again.")
    return metadata
