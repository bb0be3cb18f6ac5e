"""`esc-ens infer`: a command line of its own, so that it runs where nothing but the `infer` extra is installed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from esc_ensemble.arguments import Parser, at_least, share
from esc_ensemble.data.audio import read_header
from esc_ensemble.display import percent, print_table
from esc_ensemble.errors import ConfigError, DataError
from esc_ensemble.files import check_writable
from esc_ensemble.infer.classifier import Classifier, Prediction, find_audio
from esc_ensemble.infer.output import to_json, write_predictions, write_timeline
from esc_ensemble.infer.windows import count_windows
from esc_ensemble.progress import progress, say
from esc_ensemble.submission import Form, check_submission, write_submission

MUCH_LONGER = 1.2
"""Than the training's clips; up to here little but silence is lost."""


def parser() -> argparse.ArgumentParser:
    """Gives the command's flags."""
    flags = Parser("infer", "Name the sounds in audio files with onnxruntime; torch is not needed.")
    flags.add_argument("model", type=Path, help="file made by `esc-ens export`")
    flags.add_argument("paths", nargs="*", help="audio files, and folders that are searched; - reads paths from stdin")
    out = flags.add_argument_group("output")
    out.add_argument("--out", type=Path, help="write predictions to this .csv or .json file")
    out.add_argument("--timeline", type=Path, help="write what is heard in each window to this .csv; implies --windows")
    out.add_argument("--top", type=at_least(1), default=3, help="classes to name for each file (3)")
    out.add_argument("--threshold", type=share, default=0.0, help="name no class that is less probable than this (0)")
    out.add_argument(
        "--sample-submission",
        type=Path,
        help="a competition's sample: --out, or submission.csv, is written in its form",
    )
    out.add_argument(
        "--labels",
        choices=("names", "numbers", "probabilities"),
        help="what is written next to the ids of --sample-submission; read off the sample where not given",
    )
    out.add_argument("--json", action="store_true", help="print predictions as JSON on stdout")
    hear = flags.add_argument_group("hearing")
    hear.add_argument("--windows", action="store_true", help="hear all of long recordings, stretch by stretch")
    hear.add_argument("--overlap", type=share, default=0.5, help="part of a window that the next one hears too (0.5)")
    hear.add_argument(
        "--channel",
        type=at_least(0),
        help="of files with several: 0 averages them, 1 takes the first alone, 2 the second (as in training)",
    )
    hear.add_argument("--tta", action="store_true", help="insist on a file that averages over time shifts")
    hear.add_argument("--skip-bad", action="store_true", help="leave out files that cannot be read, and say which")
    work = flags.add_argument_group("machine")
    work.add_argument("--batch-size", type=at_least(1), default=16, help="waveforms at a time (16)")
    work.add_argument("--threads", type=at_least(0), default=0, help="CPU threads of the model; 0 takes the free cores")
    work.add_argument("--workers", type=at_least(0), default=0, help="threads that decode; 0 takes the free cores")
    work.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one"
    )
    return flags


def run(tokens: Sequence[str]) -> None:
    """Does what the flags ask for.

    Raises:
        EscError: a flag, the model or a file cannot be used.
    """
    flags = parser().parse_args(tokens)
    windows = flags.windows or flags.timeline is not None
    if flags.overlap >= 1.0:
        raise ConfigError(f"--overlap is {flags.overlap:g}: windows must move on, so it has to be below 1.")
    if flags.labels and not flags.sample_submission:
        raise ConfigError("--labels is for the form of a submission: pass --sample-submission too, or leave it out.")
    files = find_audio(_named(flags.paths))
    _check_places(flags, files)
    classifier = Classifier(flags.model, flags.threads, flags.device, channel=flags.channel)
    if flags.tta and not classifier.metadata["tta"]:
        raise ConfigError(
            f"{flags.model} was exported without time shifts. Put them inside: blend with --tta and export that, or "
            "esc-ens export RUN --tta."
        )
    form = Form(classifier.class_names, classifier.class_numbers, flags.sample_submission, flags.labels)
    check_submission([file.as_posix() for file in files], form)
    predictions = []
    total = sum(_n_windows(file, classifier, flags.overlap) for file in files) if windows else len(files)
    with progress("Hearing", total, unit="windows" if windows else "files") as advance:
        for prediction in classifier.predict(
            files,
            batch_size=flags.batch_size,
            skip_bad=flags.skip_bad,
            windows=windows,
            overlap=flags.overlap,
            workers=flags.workers,
            on_window=advance,
        ):
            predictions.append(prediction)
            if not windows:
                advance()
    n_long = sum(each.seconds > MUCH_LONGER * classifier.clip_seconds and not each.windows for each in predictions)
    if n_long:
        say(
            f"{n_long} of {len(predictions)} files are longer than the {classifier.clip_seconds:g} s that the model "
            "hears at once: their middle was heard. --windows hears all of them."
        )
    _write(flags, classifier, form, predictions, files)


def _n_windows(file: Path, classifier: Classifier, overlap: float) -> int:
    """Gives the windows that a recording will make, as far as its header tells; none of one that cannot be read."""
    try:
        n_samples = round(read_header(file).seconds * classifier.sample_rate)
    except DataError:
        return 0
    return count_windows(n_samples, classifier.n_samples, overlap)


def _check_places(flags: argparse.Namespace, files: Sequence[Path]) -> None:
    """Refuses outputs that cannot be written, or would take the place of something else."""
    taken = {path.resolve() for path in (flags.model, flags.sample_submission, *files) if path is not None}
    for flag, path, endings in (("--out", flags.out, (".csv", ".json")), ("--timeline", flags.timeline, (".csv",))):
        if path is None:
            continue
        check_writable(path)
        if path.suffix.lower() not in endings:
            raise ConfigError(f"{flag} is {path}: it has to end in {' or '.join(endings)}.")
        if path.resolve() in taken:
            raise ConfigError(f"{flag} is {path}, which is read or written for something else already.")
        taken.add(path.resolve())


def _named(paths: Sequence[str]) -> list[Path]:
    """The paths given, with those on stdin in the place of `-`."""
    named: list[str] = []
    for path in paths:
        named += [line.rstrip("\r\n") for line in sys.stdin] if path == "-" else [path]
    named = [path for path in named if path]
    if not named:
        raise DataError(
            "Name audio files or folders: esc-ens infer MODEL.onnx PATH [PATH ...]; - reads them from stdin."
        )
    return [Path(path) for path in named]


def _write(
    flags: argparse.Namespace, classifier: Classifier, form: Form, predictions: list[Prediction], files: Sequence[Path]
) -> None:
    out = flags.out
    if flags.sample_submission:
        out = out or Path("submission.csv")
        probabilities = np.array([prediction.probabilities for prediction in predictions])
        probabilities = probabilities.reshape(-1, len(classifier.class_names))  # also where none is left
        heard = [prediction.path for prediction in predictions]
        skipped = [path.as_posix() for path in sorted({*files} - {*heard})]
        write_submission(out, [path.as_posix() for path in heard], probabilities, form, skipped)
    elif out:
        write_predictions(out, predictions, flags.top, flags.threshold)
    if out:
        say(f"{len(predictions)} predictions in {out}")
    if flags.timeline:
        write_timeline(flags.timeline, predictions, flags.top, flags.threshold)
        say(f"{sum(len(prediction.windows) for prediction in predictions)} windows in {flags.timeline}")
    if flags.json:
        values = [to_json(prediction, flags.top, flags.threshold) for prediction in predictions]
        print(json.dumps(values, indent=2, ensure_ascii=False))
    elif not out and not flags.timeline:
        n_ranks = min(flags.top, len(classifier.class_names))
        rows = []
        for prediction in predictions:
            cells = [f"{name} {percent(p)}" for name, p in prediction.top(n_ranks, flags.threshold)]
            rows.append([str(prediction.path), *cells, *[""] * (n_ranks - len(cells))])
        print_table(str(flags.model), ["file", *(f"top {rank + 1}" for rank in range(n_ranks))], rows)
