"""Commands that turn runs into one blend, one file, and predictions. Heavy imports stand inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from esc_ensemble.cli.shared import find_folder, resolve
from esc_ensemble.config import BlendConfig
from esc_ensemble.display import print_table
from esc_ensemble.flags import SETTINGS, Count, CountOrAll, Flag, Json, Name


def blend(
    *members: str,
    out: Name = "blend",
    config: Path | None = None,
    runs: Path = Path("runs"),
    submissions: Path = Path("submissions"),
    costs: Flag = False,
    as_json: Json = False,
    settings: Annotated[BlendConfig | None, Parameter(name="*", group=SETTINGS)] = None,
) -> None:
    """Calibrate and weigh runs from their fold logits alone; no clip is scored by what was fitted on it.

    Args:
        members: Names of runs, or their folders.
        out: Name of the blend.
        config: YAML file of settings; flags win over it.
        runs: Folder of all runs.
        submissions: Folder of all blends.
        costs: Measure what members cost, and draw the front of what accuracy costs; limits do so too.
        as_json: Print blend.json on stdout.
        settings: Settings of the blend.
    """
    from esc_ensemble.blend.costs import read_costs  # noqa: PLC0415
    from esc_ensemble.blend.ensemble import blend_runs  # noqa: PLC0415
    from esc_ensemble.errors import LogitsError  # noqa: PLC0415

    if not members:
        raise LogitsError("Name the runs to blend: esc-ens blend RUN [RUN ...].")
    resolved = resolve(BlendConfig, config, settings)
    folder = submissions / out
    run_dirs = [find_folder(name, runs) for name in members]
    if costs or resolved.limited:
        from esc_ensemble.cost import measure_costs  # noqa: PLC0415 - torch

        measure_costs(run_dirs)
    result = blend_runs(run_dirs, resolved, folder, read_costs(run_dirs))
    if as_json:
        print((folder / "blend.json").read_text(encoding="utf-8"))
        return
    print_table(str(folder), *result.score_table())
    if result.selection_note:
        print(result.selection_note)
    print(f"{result.reason} {result.summary()}")
    if result.shared_recordings:
        print(result.shared_recordings)
    for warning in result.warnings:
        print(f"Warning: {warning}")
    if result.comparisons:
        print_table("Chosen weights against", *result.comparison_table())
    print_table("Members", *result.member_table())


def export(
    source: str,
    /,
    *,
    format: Literal["onnx", "torchscript", "pt2", "all"] = "onnx",  # noqa: A002 - the flag's name
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    each_member: Flag = False,
    out: Path | None = None,
    tta: Flag = False,
    data: Path | None = None,
    check_clips: Count = 16,
    accuracy_clips: CountOrAll = 400,
    max_loss: float = 1.0,
    runs: Path = Path("runs"),
    submissions: Path = Path("submissions"),
    exports: Path = Path("exports"),
    as_json: Json = False,
) -> None:
    """Put a blend, or a run, into one file that takes a waveform and gives probabilities.

    A model card, NAME.md, stands beside the files and says how good, large and fast they are.

    Args:
        source: Name or folder of a blend or a run.
        format: Kind of file; all writes one of each.
        precision: Of the weights; fp16 halves an ONNX file, int8 (calibrated on training clips) makes it a third.
        each_member: Write a file for each member of a blend too, NAME-RUN.
        out: The file; NAME.onnx, NAME.int8.onnx, NAME.torchscript.pt, NAME.pt2 ... in exports/ where not given.
        tta: For a run, put its time shifts inside. A blend made with --tta has them already.
        data: The training data's audio, which files are judged on; where the runs say where not given.
        check_clips: Number of clips to compare with torch on.
        accuracy_clips: Clips to measure an ONNX file's accuracy on, each by models that have not heard it; 0: none.
        max_loss: Percentage points of top-1 that a file may lose against the blend; more is refused.
        runs: Folder of all runs.
        submissions: Folder of all blends.
        exports: Folder of all exports.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.export.command import export_all  # noqa: PLC0415
    from esc_ensemble.export.pipeline import ExportOptions  # noqa: PLC0415
    from esc_ensemble.export.source import read_source  # noqa: PLC0415

    folder = find_folder(source, submissions, runs)
    options = ExportOptions(
        precision=precision, data=data, check_clips=check_clips, accuracy_clips=accuracy_clips, max_loss=max_loss
    )
    made = export_all(
        read_source(folder, tta=tta), folder, exports, format=format, options=options, out=out, each_member=each_member
    )
    if as_json:
        print(json.dumps(made.to_json()))
        return
    print_table("Files written", *made.table())
    print(f"Model card{'s' if len(made.cards) > 1 else ''}: {', '.join(map(str, made.cards))}")


def predict(
    source: str,
    /,
    *,
    audio: Annotated[tuple[Path, ...], Parameter(negative="", consume_multiple=True)],
    sample_submission: Path | None = None,
    labels: Literal["names", "numbers", "probabilities"] | None = None,
    name: str = "test",
    out: Path | None = None,
    tta: Flag = False,
    skip_bad: Flag = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: CountOrAll = 0,
    cache: Path | None = None,
    workers: CountOrAll = 0,
    runs: Path = Path("runs"),
    submissions: Path = Path("submissions"),
    as_json: Json = False,
) -> None:
    """Predict a competition's unlabelled clips by a blend, or a run, and write submission.csv.

    Every fold model of every member hears each clip. Its logits are kept in the run, so that a start that was stopped
    goes on, and another blend of the same runs takes them from there.

    Args:
        source: Name or folder of a blend or a run.
        audio: Audio files, and folders that are searched for them.
        sample_submission: The competition's sample_submission.csv: its header, ids and order of rows are kept.
        labels: What stands beside the ids; what the sample wants, or names, where not given.
        name: Name of these clips, where there are several such sets.
        out: The submission; submission.csv in the blend's or run's folder where not given.
        tta: For a run, average over its time shifts. A blend made with --tta does so anyway.
        skip_bad: Leave out clips that cannot be decoded; a sample that asks for one is refused.
        device: Where models run; auto takes a GPU where there is one.
        batch_size: Clips at a time; 0 takes as many as suit the model.
        cache: Folder for decoded waveforms; $ESC_ENSEMBLE_CACHE or the user's cache folder where not given.
        workers: Processes that decode; 0 takes the free cores.
        runs: Folder of all runs.
        submissions: Folder of all blends.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.export.source import read_source  # noqa: PLC0415
    from esc_ensemble.testset.options import PredictOptions  # noqa: PLC0415
    from esc_ensemble.testset.predict import predict_test  # noqa: PLC0415

    folder = find_folder(source, submissions, runs)
    result = predict_test(
        read_source(folder, tta=tta, needs_models=False),
        folder,
        audio,
        sample=sample_submission,
        labels=labels,
        out=out,
        options=PredictOptions(
            name=name, device=device, batch_size=batch_size, cache_dir=cache, n_workers=workers, skip_bad=skip_bad
        ),
    )
    if as_json:
        print(json.dumps(result.to_json(), ensure_ascii=False))
        return
    print_table(str(result.submission), *result.table())
    print(f"{len(result.clip_ids)} clips predicted; probabilities in {result.arrays}")


def infer(*tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]) -> None:
    """Name the sounds in audio files with onnxruntime; torch is not needed."""
    from esc_ensemble.infer.command import run  # noqa: PLC0415

    run(tokens)


def serve(*tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]) -> None:
    """Answer HTTP requests: audio in, names of sounds out; torch is not needed."""
    from esc_ensemble.serve.command import run  # noqa: PLC0415

    run(tokens)
