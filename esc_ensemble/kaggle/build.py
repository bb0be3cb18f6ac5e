"""The folder that is uploaded: the kernel with the package inside, the model's data set, and the metadata of both."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esc_ensemble.data.folders import whole_folder
from esc_ensemble.errors import ConfigError, ModelFileError, WorkError
from esc_ensemble.files import write_json, write_text
from esc_ensemble.infer import METADATA_KEY, Classifier
from esc_ensemble.kaggle.metadata import (
    DATASET_METADATA,
    DEFAULT_GPU,
    KERNEL_METADATA,
    DatasetMetadata,
    KernelMetadata,
    check_all,
    choose_licence,
)
from esc_ensemble.kaggle.package import KERNEL_FILE, embed, pack, package_folder, read_kernel

KERNEL_FOLDER, DATASET_FOLDER = "kernel", "dataset"
ENDINGS = (".onnx", ".torchscript.pt")
"""Of the models that the kernel can hear with, the one to take first first."""
MOST_BYTES = 1_000_000
"""Kaggle refuses larger kernels: "The kernel source must be less than 1 megabytes in size"."""
TRAINED_ON = re.compile(r"^Trained on (.+?) \(fingerprint", re.MULTILINE)
WHEELS = ("onnxruntime",)
KAGGLE_PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What the upload is to be like."""

    owner: str
    """Name on Kaggle."""
    title: str = ""
    """Of the kernel; follows from the model's name where empty."""
    dataset_title: str = ""
    """Of the model's data set; the kernel's and "model" where empty."""
    licence: str = ""
    """Of the model's data set; that of the training data, where it is known, if empty."""
    private: bool = True
    gpu: bool = False
    machine_shape: str = ""
    """Which GPU; the smallest T4 where empty."""
    internet: bool = False
    competitions: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    """Other data sets to attach, such as training data."""
    wheels: bool = False
    """Put onnxruntime's wheel beside the model."""
    constants: Mapping[str, Any] | None = None
    """Settings at the top of the kernel to change."""


@dataclass(frozen=True)
class Built:
    """What was made."""

    folder: Path
    kernel: KernelMetadata
    dataset: DatasetMetadata | None
    """None where no model is attached."""
    files: tuple[tuple[str, int], ...]
    """Path below the folder, and bytes."""
    notes: tuple[str, ...]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Gives header and rows: a line a file."""
        return ["file", "kB"], [[name, f"{n_bytes / 1e3:.1f}"] for name, n_bytes in self.files]

    def to_json(self) -> dict[str, Any]:
        """Gives the same as plain values."""
        return {
            "folder": str(self.folder),
            "kernel": self.kernel.to_json(),
            "dataset": self.dataset and self.dataset.to_json(),
            "files": dict(self.files),
            "notes": list(self.notes),
        }


def build_folder(model: str | None, out: Path, options: BuildOptions, exports: Path = Path("exports")) -> Built:
    """Makes `out/kernel` and, with a model, `out/dataset`; an earlier upload folder there is replaced.

    Args:
        model: name of an export, or one of its files; None builds a kernel that trains.
        out: the folder.
        options: what it is to be like.
        exports: where exports are.

    Raises:
        ConfigError: Kaggle would refuse it, or options do not go together.
        ModelFileError: there is no such export.
        WorkError: wheels cannot be had, or the disk is full.
    """
    files = find_model(model, exports) if model is not None else []
    if options.wheels and not files:
        raise ConfigError("--wheels brings onnxruntime for an attached .onnx file: leave it out with --no-model.")
    name = _base_name(files[0]) if files else "training"
    title = options.title or f"ESC ensemble {name}"
    dataset, notes = _describe_dataset(files, title, options)
    datasets = (*([dataset.id] if dataset else []), *options.datasets)
    kernel = KernelMetadata(
        owner=options.owner,
        title=title,
        code_file=KERNEL_FILE,
        private=options.private,
        gpu=options.gpu,
        machine_shape=options.machine_shape or (DEFAULT_GPU if options.gpu else ""),
        internet=options.internet,
        datasets=datasets,
        competitions=options.competitions,
    )
    check_all(kernel, dataset)
    if not (datasets or options.competitions):
        notes.append(
            "nothing is attached: name the competition (--competition) or data sets (--dataset), or do so there"
        )
    source = make_kernel(options.constants or {})
    _check_place(out)
    with whole_folder(out) as folder:
        _write_kernel(folder / KERNEL_FOLDER, source, kernel)
        if dataset is not None:
            _write_dataset(folder / DATASET_FOLDER, files, dataset)
            if options.wheels:
                download_wheels(folder / DATASET_FOLDER)
        listed = tuple(
            (path.relative_to(folder).as_posix(), path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        )
    return Built(out, kernel, dataset, listed, tuple(notes))


def find_model(name: str, exports: Path) -> list[Path]:
    """Gives the files of an export that a kernel can use, ONNX first, then its card.

    Args:
        name: of the export, or the path of one of its files, which then is the only model.
        exports: where exports are.

    Raises:
        ModelFileError: there is none, or it was not made by `esc-ens export`.
    """
    given = Path(name)
    if name.endswith(ENDINGS):
        models = [given] if given.is_file() else [exports / name]
    else:
        models = [path for ending in ENDINGS if (path := exports / f"{name}{ending}").is_file()]
    absent = [str(path) for path in models if not path.is_file()]
    if absent or not models:
        raise ModelFileError(
            f"{absent[0] if absent else exports / name} is no exported model (.onnx or .torchscript.pt). Make one: "
            f"esc-ens export NAME --format all --exports {exports}"
        )
    for path in models:
        read_metadata(path)
    card = models[0].with_name(f"{_base_name(models[0]).removesuffix('.fp16').removesuffix('.int8')}.md")
    return [*models, *([card] if card.is_file() else [])]


def read_metadata(path: Path) -> dict[str, Any]:
    """Reads what `esc-ens export` wrote into a model, without torch.

    Raises:
        ModelFileError: it was not made by it.
    """
    if path.suffix == ".onnx":
        return Classifier(path, threads=1, device="cpu").metadata
    try:
        with zipfile.ZipFile(path) as archive:
            inside = next(each for each in archive.namelist() if each.endswith(f"/extra/{METADATA_KEY}"))
            metadata: dict[str, Any] = json.loads(archive.read(inside))
    except (zipfile.BadZipFile, OSError, StopIteration, ValueError) as error:
        raise ModelFileError(
            f"{path} was not made by `esc-ens export --format torchscript`. Export it again."
        ) from error
    return metadata


def make_kernel(constants: Mapping[str, Any]) -> str:
    """Gives the kernel's source with the package inside and settings changed.

    Raises:
        ConfigError: a setting is unknown or cannot be, or the source is larger than Kaggle takes.
    """
    budget = constants.get("TIME_BUDGET", 1.0)
    if not 0.0 < budget < math.inf:
        raise ConfigError(f"--time-budget is {budget:g}: seconds must be above 0.")
    source = read_kernel()
    for name, value in constants.items():
        line = re.compile(rf"^{re.escape(name)} = [^#\n]*(?=  #|$)", re.MULTILINE)
        source, n_changed = line.subn(f"{name} = {value!r}", source, count=1)
        if not n_changed:
            raise ConfigError(f"{KERNEL_FILE} has no setting {name}.")
    source = embed(source, pack(package_folder()))
    n_bytes = len(source.encode())
    if n_bytes >= MOST_BYTES:
        raise ConfigError(f"{KERNEL_FILE} with the package inside has {n_bytes} bytes; Kaggle takes {MOST_BYTES}.")
    return source


def download_wheels(folder: Path) -> None:
    """Downloads the wheels that the kernel may need, for Kaggle's Python.

    Raises:
        WorkError: pip cannot get them.
    """
    platforms = [flag for platform in PLATFORMS for flag in ("--platform", platform)]
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--implementation", "cp"),
        *("--python-version", KAGGLE_PYTHON, *platforms, "--dest", str(folder), "--quiet", *WHEELS),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise WorkError(f"pip could not download {', '.join(WHEELS)} for Kaggle: {reason}. Leave out --wheels.")


def _describe_dataset(files: list[Path], title: str, options: BuildOptions) -> tuple[DatasetMetadata | None, list[str]]:
    """Gives the model's data set and what is to be said of it."""
    if not files:
        return None, []
    metadata, card = read_metadata(files[0]), files[-1] if files[-1].suffix == ".md" else None
    found = TRAINED_ON.search(card.read_text(encoding="utf-8")) if card else None
    licence, note = choose_licence(options.licence, found[1] if found else "")
    notes = []
    if not any(path.name.endswith(".onnx") for path in files):
        notes.append("there is no .onnx file: the kernel takes torch, which starts slower")
    elif not options.wheels and not any(path.name.endswith(ENDINGS[1]) for path in files):
        notes.append(
            "onnxruntime may be missing on Kaggle: add the TorchScript file, esc-ens export NAME --format torchscript, "
            "or bring its wheel with --wheels"
        )
    classes = ", ".join(metadata["class_names"][:20])
    more = f" and {len(metadata['class_names']) - 20} more" if len(metadata["class_names"]) > 20 else ""
    description = (
        f"An ensemble that names sounds, in one file, made by esc_ensemble: waveform (B, T) at "
        f"{metadata['sample_rate']} Hz in, probabilities out. Classes: {classes}{more}. "
        f"{f'Trained on {found[1]}. ' if found else ''}{note}".strip()
    )
    dataset = DatasetMetadata(
        owner=options.owner,
        title=options.dataset_title or f"{title} model",
        licence=licence,
        subtitle=f"Sound classifier, {len(metadata['class_names'])} classes, one file",
        description=description,
    )
    return dataset, notes


def _base_name(model: Path) -> str:
    return next(model.name.removesuffix(ending) for ending in ENDINGS if model.name.endswith(ending))


def _check_place(out: Path) -> None:
    """Refuses to replace what is no upload folder."""
    if (
        out.exists()
        and not (out / KERNEL_FOLDER / KERNEL_METADATA).is_file()
        and (not out.is_dir() or any(out.iterdir()))
    ):
        raise ConfigError(f"{out} is there and is no upload folder. Name another one with --out.")


def _write_kernel(folder: Path, source: str, kernel: KernelMetadata) -> None:
    write_text(folder / KERNEL_FILE, source)
    write_json(folder / KERNEL_METADATA, kernel.to_json())


def _write_dataset(folder: Path, files: list[Path], dataset: DatasetMetadata) -> None:
    folder.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, folder / path.name)
    write_json(folder / DATASET_METADATA, dataset.to_json())
