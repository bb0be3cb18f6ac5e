"""Commands that train. Heavy imports stand inside the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from esc_ensemble.cli.shared import read_options, resolve
from esc_ensemble.config import COMMANDS, BaselineConfig, TrainAConfig, TrainAProConfig, TrainBConfig
from esc_ensemble.display import print_table
from esc_ensemble.flags import SETTINGS, FoldFlags, Name, Numbers, TrainingFlags
from esc_ensemble.settings import Settings, read_yaml

if TYPE_CHECKING:
    from esc_ensemble.data.catalog import Catalog
    from esc_ensemble.training.crossval import RunOptions


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


def train_b(
    *,
    how: TrainingFlags,
    run: Name = "b",
    settings: Annotated[TrainBConfig | None, Parameter(name="*", group=SETTINGS)] = None,
) -> None:
    """Train model B, a pretrained wav2vec2, HuBERT or WavLM of which the last blocks learn, fold by fold.

    Its weights come from a folder, the Hugging Face hub or torchaudio (--model.source). What lies below the lowest
    learning block is computed once for each clip and view, and kept on disk.

    Args:
        how: What all trainers can be told.
        run: Name of the run.
        settings: Settings of the training.
    """
    _train(TrainBConfig, run, how, settings)


def baseline(
    *,
    how: FoldFlags,
    run: Name | None = None,
    settings: Annotated[BaselineConfig | None, Parameter(name="*", group=SETTINGS)] = None,
) -> None:
    """Fit a baseline that takes seconds, fold by fold, and write its fold logits: what any network must beat.

    Logistic regression on the mean and standard deviation of MFCCs over time, or with --model.name majority how often
    each class occurs. It can be blended, not exported.

    Args:
        how: What all commands that go through the folds can be told.
        run: Name of the run; the model's name where not given.
        settings: Settings of the baseline.
    """
    resolved = resolve(BaselineConfig, how.config, settings)
    catalog = _catalog(how)
    from esc_ensemble.baseline.run import fit_run  # noqa: PLC0415

    run_dir = how.runs / (run or resolved.model.name)
    metrics = fit_run(
        run_dir,
        resolved,
        catalog,
        folds=how.fold,
        cache_dir=how.cache,
        n_workers=how.workers,
        skip_bad=how.skip_bad,
    )
    _show_run(run_dir, metrics, catalog.fold_label, as_json=how.as_json)


def compare_runs(
    changes: Path,
    /,
    *,
    how: TrainingFlags,
    trainer: Literal["train-a", "train-a-pro", "train-b"] = "train-a",
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
    from esc_ensemble.data.splits import describe_protocol  # noqa: PLC0415
    from esc_ensemble.errors import WorkError, list_problems  # noqa: PLC0415

    kind: type[Any] = COMMANDS[trainer]
    base = read_yaml(how.config) if how.config else {}
    variants = plan(kind, base, read_yaml(changes), seeds, str(how.config or "The base"))
    folder = how.runs / out
    catalog = _catalog(how)
    rows, failures = compare(folder, variants, catalog, _options(how))
    if how.as_json:
        print(json.dumps([vars(row) for row in rows], indent=2))
    else:
        folds = f"{'folds' if len(rows[0].folds) > 1 else 'fold'} {catalog.list_folds(rows[0].folds)}"
        first = next(iter(variants.values()))[0]
        protocol = describe_protocol(catalog, first.data, "epochs fixed beforehand")
        print_table(f"{folder}: {folds} ({protocol})", HEADER, [row.cells() for row in rows])
        print("Intervals hold for other clips, not for other seeds.")
        if len(rows[0].folds) > 1:
            print("Log losses are after cross-fitted temperatures.")
        if len(rows) > 1:
            print(f"Plot: {folder / 'compare.png'}")
    if failures:
        raise WorkError(list_problems("Some changes could not be trained:", failures))


def _train(kind: type[Any], run: str, how: TrainingFlags, settings: Settings | None) -> None:
    resolved = resolve(kind, how.config, settings)
    catalog = _catalog(how)
    from esc_ensemble.training.crossval import train_run  # noqa: PLC0415

    metrics = train_run(how.runs / run, resolved, catalog, _options(how))
    _show_run(how.runs / run, metrics, catalog.fold_label, as_json=how.as_json)


def _catalog(how: FoldFlags) -> Catalog:
    from esc_ensemble.data.catalog import load_catalog, thin_out  # noqa: PLC0415

    catalog = load_catalog(how.data, read_options(how))
    return thin_out(catalog, how.limit) if how.limit else catalog


def _options(how: TrainingFlags) -> RunOptions:
    from esc_ensemble.training.crossval import RunOptions  # noqa: PLC0415

    return RunOptions(
        folds=how.fold,
        cache_dir=how.cache,
        n_workers=how.workers,
        skip_bad=how.skip_bad,
        parallel_folds=how.parallel_folds,
    )


def _show_run(run_dir: Path, metrics: dict[str, Any], label: Callable[[int], str], *, as_json: bool) -> None:
    if not metrics:
        return  # another process of this launch reports
    if as_json:
        print(json.dumps({"run": str(run_dir), **metrics}, indent=2))
        return
    names = list(metrics["mean"])
    rows = [
        [label(int(fold)), *(f"{scores[name]:.4f}" if name in scores else "" for name in names)]
        for fold, scores in metrics["folds"].items()
    ]
    spread = [f"{metrics['mean'][name]:.4f} ± {metrics['std'][name]:.4f}" for name in names]
    print_table(f"{run_dir} ({metrics['protocol']})", ["", *names], [*rows, ["mean ± std", *spread]])
    if any(name.startswith("selection_") for name in names):
        print("Selection scores are optimistic where the selection split chose the epoch.")
