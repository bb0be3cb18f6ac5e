"""An exported `.onnx` file: finding and opening it, and what it says of itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from esc_ensemble.cores import free_cores
from esc_ensemble.data.audio import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from esc_ensemble.errors import ConfigError, ModelFileError

METADATA_KEY = "esc_ensemble"
METADATA_SCHEMA = 2
METADATA_NEEDED = ("class_names", "sample_rate", "clip_seconds", "n_samples", "tta", "members")
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
Device = Literal["auto", "cpu", "cuda"]


def check_place(model: Path) -> None:
    """Refuses what cannot be a model's file, and says which one may have been meant.

    Raises:
        ModelFileError: there is no such file, or it may not be read.
    """
    if model.is_dir():
        raise ModelFileError(f"Model {model} is a folder. Name the .onnx file that `esc-ens export` made.")
    if model.suffix in (".pt", ".pt2"):
        raise ModelFileError(f"{model} is a file for torch. Name the .onnx file: `esc-ens export` makes one.")
    if not model.is_file():
        near = (model.with_name(f"{model.name}.onnx"), Path("exports", f"{model.name}.onnx"))
        meant = next((f" Did you mean {path}?" for path in near if path.is_file()), "")
        raise ModelFileError(f"Model {model} does not exist.{meant or ' Make one with `esc-ens export BLEND`.'}")
    if not os.access(model, os.R_OK):
        raise ModelFileError(f"Model {model} cannot be opened: permission denied.")


def open_session(model: Path, threads: int, device: Device, lasting: bool) -> Any:
    """Opens a file with onnxruntime, as `Classifier` was told to.

    Raises:
        ModelFileError: it is no ONNX model.
        ConfigError: onnxruntime is not there, or a GPU is asked for that it does not have.
    """
    # From its import on it would write events to the user's cache and send them to its makers (1.29 and later).
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime  # noqa: PLC0415 - so that reading `Prediction`s needs no runtime
    except ImportError as error:
        raise ConfigError('onnxruntime is not installed. Install it: pip install "esc_ensemble[infer]"') from error

    available = onnxruntime.get_available_providers()
    if device == "cuda" and PROVIDERS[0] not in available:
        raise ConfigError(
            "--device is cuda, but this onnxruntime has no GPU: pip install onnxruntime-gpu, or leave it out."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(threads or free_cores(), os.cpu_count() or 1)
    options.log_severity_level = 3
    options.enable_mem_pattern = not lasting  # it keeps a plan of memory for every length that it has seen
    providers = [name for name in PROVIDERS if name in available and (device != "cpu" or name != PROVIDERS[0])]
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=providers)
    except Exception as error:
        raise ModelFileError(f"{model} cannot be read as an ONNX model: {error}") from error


def read_metadata(session: Any, model: Path) -> dict[str, Any]:
    """Gives what `esc-ens export` wrote into a file beside the network.

    Raises:
        ModelFileError: there is nothing, it is damaged, or it does not fit the network.
    """
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
    if not _fits(session, metadata):
        raise ModelFileError(f"{model} is damaged: its metadata is not that of its network. Export it again.")
    return metadata


def _fits(session: Any, metadata: dict[str, Any]) -> bool:
    """Whether metadata can be, and belongs to a network."""
    names, rate, n_samples = metadata["class_names"], metadata["sample_rate"], metadata["n_samples"]
    outputs = {each.name: each.shape for each in session.get_outputs()}
    return (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and isinstance(rate, int)
        and MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE
        and isinstance(n_samples, int)
        and n_samples > 0
        and [each.name for each in session.get_inputs()] == ["waveform"]
        and "probabilities" in outputs
        and (outputs["probabilities"][-1] == len(names) or not isinstance(outputs["probabilities"][-1], int))
    )
