"""Commands that turn runs into one blend, one file, and predictions. Heavy imports stand inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from esc_ensemble.cli.shared import find_folder, resolve
from esc_ensemble.config import BlendConfig
from esc_ensemble.display import percent, print_table
from esc_ensemble.flags import SETTINGS, Count, CountOrAll, Flag, Json, Name
from esc_ensemble.progress import say


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
    """Calibrate and weigh runs from their fold logits alone; scores are cross-fitted.

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
    print(f"{result.reason} {result.summary()}")
    for warning in result.warnings:
        print(f"Warning: {warning}")
    if result.comparisons:
        print_table("Chosen weights against", *result.comparison_table())
    print_table("Members", *result.member_table())


def export(
    source: str,
    /,
    *,
    format: Literal["onnx", "torchscript"] = "onnx",  # noqa: A002 - the flag's name
    out: Path | None = None,
    tta: Flag = False,
    data: Path | None = None,
    check_clips: Count = 16,
    runs: Path = Path("runs"),
    submissions: Path = Path("submissions"),
    exports: Path = Path("exports"),
    as_json: Json = False,
) -> None:
    """Put a blend, or a run, into one file that takes a waveform and gives probabilities.

    Args:
        source: Name or folder of a blend or a run.
        format: Kind of file.
        out: The file; exports/NAME.onnx or NAME.torchscript.pt where not given.
        tta: For a run, put its time shifts inside. A blend made with --tta has them already.
        data: Audio that the file is compared with torch on; the training data where not given.
        check_clips: Number of clips to compare on.
        runs: Folder of all runs.
        submissions: Folder of all blends.
        exports: Folder of all exports.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.export.fused import load_parts  # noqa: PLC0415
    from esc_ensemble.export.onnx import export_onnx  # noqa: PLC0415
    from esc_ensemble.export.source import find_clips, read_source  # noqa: PLC0415
    from esc_ensemble.export.torchscript import export_torchscript  # noqa: PLC0415

    folder = find_folder(source, submissions, runs)
    content = read_source(folder, tta=tta)
    clips = find_clips(content, folder, data, check_clips)
    say(f"Exporting {folder} as {format}; this takes a moment a model")
    write, ending = (export_onnx, "onnx") if format == "onnx" else (export_torchscript, "torchscript.pt")
    path, parity = write(load_parts(content, folder), content, clips, out or exports / f"{folder.name}.{ending}")
    if as_json:
        print(json.dumps({"file": str(path), **vars(parity)}))
        return
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    print(f"Largest difference from torch on {parity.n_clips} clips: {parity.max_difference:.1e}")


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


def infer(
    model: Path,
    /,
    *paths: Path,
    out: Path | None = None,
    sample_submission: Path | None = None,
    tta: Flag = False,
    top: Count = 3,
    batch_size: Count = 16,
    threads: CountOrAll = 0,
    skip_bad: Flag = False,
    as_json: Json = False,
) -> None:
    """Name the sounds in audio files with onnxruntime; torch is not needed.

    Args:
        model: File made by `esc-ens export`.
        paths: Audio files, and folders that are searched for them.
        out: Write predictions to this .csv or .json file.
        sample_submission: A competition's sample_submission.csv: --out (submission.csv where not given) is written so.
        tta: Average over time shifts, where the file was exported without them.
        top: Classes to show for each file.
        batch_size: Files heard at a time.
        threads: CPU threads; 0 takes the free cores.
        skip_bad: Leave out files that cannot be read.
        as_json: Print predictions as JSON on stdout.
    """
    import numpy as np  # noqa: PLC0415

    from esc_ensemble.errors import DataError  # noqa: PLC0415
    from esc_ensemble.infer import Classifier, find_audio, to_json, write_predictions  # noqa: PLC0415
    from esc_ensemble.progress import progress  # noqa: PLC0415
    from esc_ensemble.submission import Form, check_submission, write_submission  # noqa: PLC0415

    if not paths:
        raise DataError("Name audio files or folders: esc-ens infer MODEL.onnx PATH [PATH ...].")
    files = find_audio(paths)
    classifier = Classifier(model, threads)
    form = Form(classifier.class_names, classifier.class_numbers, sample_submission)
    check_submission([file.as_posix() for file in files], form)
    predictions = []
    with progress("Hearing", len(files)) as advance:
        for prediction in classifier.predict(files, batch_size=batch_size, skip_bad=skip_bad, tta=tta):
            predictions.append(prediction)
            advance()
    if sample_submission:
        out = out or Path("submission.csv")
        probabilities = np.array([prediction.probabilities for prediction in predictions])
        probabilities = probabilities.reshape(-1, len(classifier.class_names))  # also where none is left
        write_submission(out, [prediction.path.as_posix() for prediction in predictions], probabilities, form)
    elif out:
        write_predictions(out, predictions, top)
    if out:
        say(f"{len(predictions)} predictions in {out}")
    if as_json:
        print(json.dumps([to_json(prediction, top) for prediction in predictions], indent=2, ensure_ascii=False))
    elif not out:
        rows = [[str(p.path), *(f"{name} {percent(share)}" for name, share in p.top(top))] for p in predictions]
        ranks = [f"top {rank + 1}" for rank in range(min(top, len(classifier.class_names)))]
        print_table(str(model), ["file", *ranks], rows)
