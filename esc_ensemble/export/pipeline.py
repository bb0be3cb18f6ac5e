"""A blend to one file: written, compared with torch, scored out of fold, timed, and only then put in its place."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch

from esc_ensemble.config import DataConfig
from esc_ensemble.data.audio import decode
from esc_ensemble.errors import ConfigError, DataError, WorkError
from esc_ensemble.export.evaluate import Accuracy, OofClips, find_oof_clips, measure_accuracy
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.onnx import PART_LOGITS, build_graph, run_onnx, save_onnx, simplify
from esc_ensemble.export.parity import Parity, Probabilities, check_parity, measure_parity, read_clips
from esc_ensemble.export.parts import describe_model, heard_data, load_parts, mixing_of
from esc_ensemble.export.quantize import Calibration, quantize
from esc_ensemble.export.source import find_clips
from esc_ensemble.export.torch_files import run_pt2, run_torchscript, save_pt2, save_torchscript
from esc_ensemble.files import atomic_path
from esc_ensemble.progress import say

Format = Literal["onnx", "torchscript", "pt2"]
Precision = Literal["fp32", "fp16", "int8"]
ENDINGS: dict[Format, str] = {"onnx": "onnx", "torchscript": "torchscript.pt", "pt2": "pt2"}
WORDS: dict[Format, str] = {"onnx": "onnxruntime", "torchscript": "TorchScript", "pt2": "the .pt2 file"}
CALIBRATION_CLIPS = 64
TIMED_ROUNDS = 9


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What a file is to be like, and how it is judged."""

    format: Format = "onnx"
    precision: Precision = "fp32"
    data: Path | None = None
    """Audio of the training data; where the runs' manifests say if None."""
    check_clips: int = 16
    """Clips that the file is compared with torch on."""
    accuracy_clips: int = 400
    """Clips that an ONNX file's accuracy is measured on, each by the models that have not heard it; 0 measures none."""
    max_loss: float = 1.0
    """Percentage points of top-1 that the file may be behind the blend."""

    def check(self) -> None:
        """Refuses what does not go together.

        Raises:
            ConfigError: the precision is ONNX's alone, or could not be judged.
        """
        if self.precision == "fp32":
            return
        if self.format != "onnx":
            raise ConfigError(f"--precision {self.precision} is for --format onnx; {self.format} files are of fp32.")
        if not self.accuracy_clips:
            raise ConfigError(f"What {self.precision} loses must be measured: leave out --accuracy-clips 0.")


@dataclass(frozen=True)
class Exported:
    """A file, and what was found of it."""

    path: Path
    format: Format
    precision: Precision
    megabytes: float
    parity: Parity
    accuracy: Accuracy | None
    """None where it was not measured."""
    ms: float
    """Of one CPU thread for one clip, all models and shifts together."""
    real_time_factor: float
    """The same over the clip's length."""
    metadata: dict[str, Any]
    """What stands in the file beside the network."""

    def to_json(self) -> dict[str, Any]:
        """Gives the same as plain values."""
        accuracy = self.accuracy and {**vars(self.accuracy), "lost_points": self.accuracy.lost_points}
        return {
            "file": str(self.path),
            "format": self.format,
            "precision": self.precision,
            "megabytes": self.megabytes,
            **vars(self.parity),
            "accuracy": accuracy,
            "ms": self.ms,
            "real_time_factor": self.real_time_factor,
        }


def export_blend(blend: Mapping[str, Any], folder: Path, out: Path, options: ExportOptions) -> Exported:
    """Puts a blend with all its models into one file.

    Args:
        blend: from `esc_ensemble.export.source.read_source`.
        folder: the blend's or run's folder, which the members' paths are relative to.
        out: the file; it appears when it has passed.
        options: what it is to be like.

    Raises:
        ConfigError: the options do not go together.
        ModelFileError: a model is missing or damaged, or members do not hear the same waveform.
        DataError: the audio to judge it on is not there.
        WorkError: it is not torch's network (fp32), or loses more than is allowed.
    """
    options.check()
    parts = load_parts(blend, folder)
    fused = FusedBlend(parts, mixing_of(blend)).eval()
    data = heard_data(parts)
    waveforms = read_clips(find_clips(blend, folder, options.data, options.check_clips), data)
    metadata = describe_model(parts, blend) | {"precision": options.precision}
    accuracy = None
    with atomic_path(out) as temporary:
        if options.format == "onnx":
            find = partial(find_oof_clips, blend, folder, options.data)
            model = simplify(build_graph(fused, half=options.precision == "fp16"))
            if options.precision == "int8":
                model = quantize(model, fused, _calibration(find(CALIBRATION_CLIPS), data))
            accuracy = _accuracy(model, fused, blend, find, options)
            save_onnx(model, metadata, temporary)
        else:
            save = save_torchscript if options.format == "torchscript" else save_pt2
            save(fused, metadata, temporary)
        parity = measure_parity(fused, _open(temporary, options.format), waveforms)
        if options.precision == "fp32":
            check_parity(parity, WORDS[options.format])
        if accuracy is not None and not accuracy.lost_points <= options.max_loss:
            raise WorkError(
                f"{out.name} is right on {accuracy.top1:.4f} of {accuracy.n_clips} clips out of fold, the blend on "
                f"{accuracy.blend_top1:.4f}: it loses {accuracy.lost_points:.2f} points, and --max-loss allows "
                f"{options.max_loss:g}, so it was not written. Take --precision fp16 or fp32."
            )
        ms = _milliseconds(temporary, options.format, waveforms[0])
        megabytes = temporary.stat().st_size / 1e6
    factor = ms / 1e3 / metadata["clip_seconds"]
    return Exported(out, options.format, options.precision, megabytes, parity, accuracy, ms, factor, metadata)


def _accuracy(
    model: onnx.ModelProto,
    fused: FusedBlend,
    blend: Mapping[str, Any],
    find: Callable[[int], OofClips],
    options: ExportOptions,
) -> Accuracy | None:
    """Scores a graph; one of full precision, which is torch's network in any case, may do without audio."""
    if not options.accuracy_clips:
        return None
    try:
        clips = find(options.accuracy_clips)
    except DataError as error:
        if options.precision != "fp32":
            raise
        say(f"Note: {error}")
        return None
    return measure_accuracy(run_onnx(model, PART_LOGITS), fused.parts, blend, clips, heard_data(fused.parts))


def _calibration(clips: OofClips, data: DataConfig) -> Calibration:
    def read(number: int) -> np.ndarray:
        return decode(clips.paths[number], data.sample_rate, channel=data.channel)[None]

    return Calibration(read, clips.folds)


def _open(path: Path, kind: Format, threads: int = 0) -> Probabilities:
    if kind == "onnx":
        return run_onnx(path, threads=threads)
    return run_torchscript(path) if kind == "torchscript" else run_pt2(path)


def _milliseconds(path: Path, kind: Format, clip: np.ndarray) -> float:
    """Times a file on one clip and one CPU thread: the median of some rounds, the first two left out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        hear, seconds = _open(path, kind, threads=1), []
        for _ in range(TIMED_ROUNDS + 2):
            start = time.perf_counter()
            hear(clip[None])
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return 1e3 * statistics.median(seconds[2:])
