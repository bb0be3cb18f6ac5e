"""The command line: one short function a command, no logic. Heavy imports stand inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from esc_ensemble import __version__
from esc_ensemble.config import COMMANDS, BlendConfig, TrainAConfig, TrainAProConfig
from esc_ensemble.display import percent, print_table
from esc_ensemble.flags import SETTINGS, Count, CountOrAll, Flag, Json, Name, Numbers, TrainingFlags
from esc_ensemble.progress import say
from esc_ensemble.settings import Settings, build, merge, read_yaml, to_yaml

app = App(
    name="esc-ens",
    version=__version__,
    help="Train, blend and ship ensembles for environmental sound classification.",
    help_epilogue="Commands with a result take --json, for machines, on stdout; --debug shows tracebacks.",
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # cyclopts would leave without a word; `main` says what to do next
)
data_app = App(name="data", help="Look at, download or make a data set.")
app.command(data_app)


@app.command
def quickstart(
    *,
    data: Path | None = None,
    out: Path = Path("quickstart"),
    clips: Count = 400,
    esc10: Flag = False,
    n_folds: int = 0,
    skip_bad: Flag = False,
    as_json: Json = False,
) -> None:
    """Walk the whole way in a few minutes: data, training, blend, export, inference.

    Args:
        data: A data set (folder or CSV). Without it, ten synthetic sounds are made.
        out: Folder for everything that is made.
        clips: Use at most this many clips, spread evenly over classes and folds.
        esc10: Keep only ESC-50's ten classes marked esc10.
        n_folds: Make this many folds by source, where the data has none.
        skip_bad: Leave out clips that cannot be decoded.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.quickstart import run_quickstart  # noqa: PLC0415

    result = run_quickstart(data, out, max_clips=clips, esc10=esc10, n_folds=n_folds, skip_bad=skip_bad)
    if as_json:
        print(json.dumps(result.to_json(), indent=2))
        return
    print_table(*result.score_table())
    print(result.blend.reason)
    print_table(*result.file_table())
    print(f"The one-file model differs from torch by at most {result.parity.max_difference:.1e}.")


@data_app.command
def info(
    data: Path,
    /,
    *,
    esc10: Flag = False,
    n_folds: int = 0,
    check: Flag = False,
    as_json: Json = False,
) -> None:
    """Show a data set's classes and folds, and audit it.

    Args:
        data: Folder in ESC-50's or UrbanSound8K's layout, folder of class folders, or CSV.
        esc10: Keep only ESC-50's ten classes marked esc10.
        n_folds: Make this many folds by source, where the data has none.
        check: Decode every clip too, as training would.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.config import DataConfig  # noqa: PLC0415
    from esc_ensemble.data.cache import build_cache  # noqa: PLC0415
    from esc_ensemble.data.catalog import load_catalog  # noqa: PLC0415
    from esc_ensemble.data.summary import summarise  # noqa: PLC0415

    catalog = load_catalog(data, esc10=esc10, n_folds=n_folds)
    if check:
        build_cache(catalog, DataConfig())
    summary = summarise(catalog)
    if as_json:
        print(json.dumps(summary.to_json(), indent=2, ensure_ascii=False))
    else:
        print_table(*summary.table())


@data_app.command
def fetch(name: Literal["esc50", "esc10", "urbansound8k"], /, *, out: Path = Path("data")) -> None:
    """Download an official data set; a broken download goes on where it stopped.

    Args:
        name: Which one.
        out: Folder to put it in.
    """
    from esc_ensemble.data.download import fetch as fetch_archive  # noqa: PLC0415

    print(fetch_archive(name, out))


@data_app.command
def synth(out: Path, /, *, clips_per_class: int = 20, n_folds: int = 5, seed: int = 0) -> None:
    """Make a small data set of ten synthetic sounds, in ESC-50's layout.

    Args:
        out: Folder to make.
        clips_per_class: Clips of each sound.
        n_folds: Folds.
        seed: Start of the random numbers.
    """
    from esc_ensemble.data.synthetic import make_synthetic  # noqa: PLC0415

    print(make_synthetic(out, clips_per_class=clips_per_class, n_folds=n_folds, seed=seed))


@app.command
def train_a(
    *,
    how: TrainingFlags,
    run: Name = "a",
    settings: Annotated[TrainAConfig | None, Parameter(name="*", group=SETTINGS)] = None,
) -> None:
    """Train model A, a compact spectrogram CNN, fold by fold, and write its fold logits.

    A run that was stopped, in whatever way, goes on where it was when the same command is given again.

    Args:
        how: What all trainers can be told.
        run: Name of the run.
        settings: Settings of the training.
    """
    _train(TrainAConfig, run, how, settings)


@app.command
def train_a_pro(
    *,
    how: TrainingFlags,
    run: Name = "a-pro",
    settings: Annotated[TrainAProConfig | None, Parameter(name="*", group=SETTINGS)] = None,
) -> None:
    """Train model A Pro, BC-ResNet, fold by fold, and write its fold logits.

    A run that was stopped, in whatever way, goes on where it was when the same command is given again.

    Args:
        how: What all trainers can be told.
        run: Name of the run.
        settings: Settings of the training.
    """
    _train(TrainAProConfig, run, how, settings)


@app.command(name="compare")
def compare_runs(
    changes: Path,
    /,
    *,
    how: TrainingFlags,
    trainer: Literal["train-a", "train-a-pro"] = "train-a",
    out: Name = "compare",
    seeds: Numbers = (0,),
) -> None:
    """Train a base and single changes of it on the same folds and seeds; show what each change gives.

    The base is the defaults, or what --config says. Runs that are there already are not trained again, so a change
    can be added to the file later; the table holds what the file holds.

    Args:
        changes: YAML file: a name for each change, and under it the settings that differ from the base.
        how: What all trainers can be told.
        trainer: Whose settings these are.
        out: Name of the comparison; its runs, table and plot go into a folder of this name under runs.
        seeds: Seeds, such as 0,1.
    """
    from esc_ensemble.compare import HEADER, compare, plan  # noqa: PLC0415
    from esc_ensemble.errors import WorkError, list_problems  # noqa: PLC0415

    kind = TrainAConfig if trainer == "train-a" else TrainAProConfig
    base = read_yaml(how.config) if how.config else {}
    variants = plan(kind, base, read_yaml(changes), seeds, str(how.config or "The base"))
    folder = how.runs / out
    rows, failures = compare(folder, variants, _catalog(how.data, how.esc10, how.n_folds), **_training(how))
    if how.as_json:
        print(json.dumps([vars(row) for row in rows], indent=2))
    else:
        folds = ", ".join(map(str, rows[0].folds))
        print_table(f"{folder}: folds {folds}", HEADER, [row.cells() for row in rows])
        print("Intervals hold for other clips, not for other seeds.")
        if len(rows[0].folds) > 1:
            print("Log losses are after cross-fitted temperatures.")
        if len(rows) > 1:
            print(f"Plot: {folder / 'compare.png'}")
    if failures:
        raise WorkError(list_problems("Some changes could not be trained:", failures))


@app.command
def blend(
    *members: str,
    out: Name = "blend",
    config: Path | None = None,
    runs: Path = Path("runs"),
    submissions: Path = Path("submissions"),
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
        as_json: Print blend.json on stdout.
        settings: Settings of the blend.
    """
    from esc_ensemble.blend.ensemble import blend_runs  # noqa: PLC0415
    from esc_ensemble.errors import LogitsError  # noqa: PLC0415

    if not members:
        raise LogitsError("Name the runs to blend: esc-ens blend RUN [RUN ...].")
    resolved = _resolve(BlendConfig, config, settings)
    folder = submissions / out
    result = blend_runs([_folder(name, runs) for name in members], resolved, folder)
    if as_json:
        print((folder / "blend.json").read_text(encoding="utf-8"))
        return
    print_table(str(folder), *result.score_table())
    print(result.reason)
    print_table("Members", *result.member_table())


@app.command
def export(
    source: str,
    /,
    *,
    format: Literal["onnx"] = "onnx",  # noqa: A002 - the flag's name
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
        out: The file; exports/NAME.onnx where not given.
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

    folder = _folder(source, submissions, runs)
    content = read_source(folder, tta=tta)
    clips = find_clips(content, folder, data, check_clips)
    say(f"Exporting {folder} as {format}; this takes a moment a model")
    path, parity = export_onnx(load_parts(content, folder), content, clips, out or exports / f"{folder.name}.{format}")
    if as_json:
        print(json.dumps({"file": str(path), **vars(parity)}))
        return
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    print(f"Largest difference from torch on {parity.n_clips} clips: {parity.max_difference:.1e}")


@app.command
def infer(
    model: Path,
    /,
    *paths: Path,
    out: Path | None = None,
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
        tta: Average over time shifts, where the file was exported without them.
        top: Classes to show for each file.
        batch_size: Files heard at a time.
        threads: CPU threads; 0 takes the free cores.
        skip_bad: Leave out files that cannot be read.
        as_json: Print predictions as JSON on stdout.
    """
    from esc_ensemble.errors import DataError  # noqa: PLC0415
    from esc_ensemble.infer import Classifier, find_audio, to_json, write_predictions  # noqa: PLC0415
    from esc_ensemble.progress import progress  # noqa: PLC0415

    if not paths:
        raise DataError("Name audio files or folders: esc-ens infer MODEL.onnx PATH [PATH ...].")
    files = find_audio(paths)
    classifier = Classifier(model, threads)
    predictions = []
    with progress("Hearing", len(files)) as advance:
        for prediction in classifier.predict(files, batch_size=batch_size, skip_bad=skip_bad, tta=tta):
            predictions.append(prediction)
            advance()
    if out:
        write_predictions(out, predictions, top)
        say(f"{len(predictions)} predictions in {out}")
    if as_json:
        print(json.dumps([to_json(prediction, top) for prediction in predictions], indent=2, ensure_ascii=False))
    elif not out:
        rows = [[str(p.path), *(f"{name} {percent(share)}" for name, share in p.top(top))] for p in predictions]
        ranks = [f"top {rank + 1}" for rank in range(min(top, len(classifier.class_names)))]
        print_table(str(model), ["file", *ranks], rows)


@app.command
def config(command: Literal["train-a", "train-a-pro", "blend"], /) -> None:
    """Print a command's default settings as commented YAML, to edit and give back with --config.

    Args:
        command: Which one.
    """
    print(to_yaml(COMMANDS[command](), comments=True), end="")


def _resolve(kind: type[Any], config_path: Path | None, flags: Settings | None) -> Any:
    """Defaults, then the YAML file, then flags."""
    values = read_yaml(config_path) if config_path else {}
    given = flags.model_dump(exclude_unset=True) if flags else {}
    return build(kind, merge(values, given), str(config_path) if config_path and not given else "The settings")


def _train(kind: type[Any], run: str, how: TrainingFlags, settings: Settings | None) -> None:
    resolved = _resolve(kind, how.config, settings)
    catalog = _catalog(how.data, how.esc10, how.n_folds)
    from esc_ensemble.training.crossval import train_run  # noqa: PLC0415

    metrics = train_run(how.runs / run, resolved, catalog, **_training(how))
    _show_run(how.runs / run, metrics, as_json=how.as_json)


def _training(how: TrainingFlags) -> dict[str, Any]:
    """What `train_run` is told of the flags."""
    return {
        "folds": how.fold,
        "cache_dir": how.cache,
        "n_workers": how.workers,
        "skip_bad": how.skip_bad,
        "parallel_folds": how.parallel_folds,
    }


def _catalog(data: Path, esc10: bool, n_folds: int) -> Any:
    from esc_ensemble.data.catalog import load_catalog  # noqa: PLC0415

    return load_catalog(data, esc10=esc10, n_folds=n_folds)


def _show_run(run_dir: Path, metrics: dict[str, Any], *, as_json: bool) -> None:
    if not metrics:
        return  # another process of this launch reports
    if as_json:
        print(json.dumps({"run": str(run_dir), **metrics}, indent=2))
        return
    names = list(metrics["mean"])
    rows = [[f"fold {fold}", *(f"{scores[name]:.4f}" for name in names)] for fold, scores in metrics["folds"].items()]
    spread = [f"{metrics['mean'][name]:.4f} ± {metrics['std'][name]:.4f}" for name in names]
    print_table(f"{run_dir} ({metrics['protocol']})", ["", *names], [*rows, ["mean ± std", *spread]])


def _folder(name: str, *parents: Path) -> Path:
    """A folder given by its path, or by its name below one of `parents`."""
    candidates = [*(parent / name for parent in parents), Path(name)]
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])
