"""The whole way in a few minutes: data, a small A and A Pro, a blend with TTA, one ONNX file, predictions, a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esc_ensemble.blend.ensemble import blend_runs
from esc_ensemble.blend.result import BlendResult
from esc_ensemble.config import BlendConfig, TrainAConfig, TrainAProConfig, TrainerConfig
from esc_ensemble.data.catalog import load_catalog, thin_out
from esc_ensemble.data.rows import ReadOptions
from esc_ensemble.data.synthetic import make_synthetic
from esc_ensemble.export.command import export_all
from esc_ensemble.export.pipeline import Exported, ExportOptions
from esc_ensemble.export.source import read_source
from esc_ensemble.infer import Classifier
from esc_ensemble.infer.output import write_predictions
from esc_ensemble.progress import say
from esc_ensemble.report import load, write_report
from esc_ensemble.settings import build, merge
from esc_ensemble.training.crossval import RunOptions, train_run

# A pass over the data is two runs of all folds. This many clip visits take about two minutes on two cores.
CLIP_VISITS = 16000
ACCURACY_CLIPS = 100
FEWEST_EPOCHS, MOST_EPOCHS = 4, 20
SETTINGS: dict[str, Any] = {
    "data": {"sample_rate": 16000},
    "frontend": {"n_mels": 40, "n_fft": 512, "window": 512, "hop": 320, "f_max": 8000.0},
    "train": {"learning_rate": 5e-3, "ema_decay": 0.95, "batch_size": 16},
    "mix": {"mixup": 0.5, "between_class": 0.0},
}
MEMBERS: dict[str, tuple[type[TrainerConfig], dict[str, Any]]] = {
    "a": (TrainAConfig, {"model": {"widths": [16, 32, 64, 96]}}),
    "a-pro": (TrainAProConfig, {"model": {"scale": 1.0}, "train": {"batch_size": 8}}),
}


@dataclass(frozen=True)
class QuickstartResult:
    """What came out, and where it lies."""

    blend: BlendResult
    model: Exported
    files: dict[str, Path]

    def score_table(self) -> tuple[str, list[str], list[list[str]]]:
        """Gives title, header and rows of the scores."""
        return ("Scores", *self.blend.score_table())

    def file_table(self) -> tuple[str, list[str], list[list[str]]]:
        """Gives title, header and rows of the files written."""
        return "Files written", ["what", "where"], [[what, str(path)] for what, path in self.files.items()]

    def to_json(self) -> dict[str, Any]:
        """Gives the same as plain values."""
        return {
            "scores": {row.name: row.metrics for row in self.blend.scores},
            "reason": self.blend.reason,
            "export": self.model.to_json(),
            "files": {what: str(path) for what, path in self.files.items()},
        }


def run_quickstart(
    data: Path | None, out: Path, *, max_clips: int = 400, options: ReadOptions | None = None
) -> QuickstartResult:
    """Goes the whole way once, in `out`; what is there from an earlier start is not done again.

    Args:
        data: a data set; None makes a synthetic one.
        out: folder for everything.
        max_clips: a larger set is thinned out to this, evenly over classes and folds.
        options: how the data set is read.

    Raises:
        EscError: any step's own failure.
    """
    if data is None:
        data = make_synthetic(out / "data", clips_per_class=20)
        say(f"No --data given: made ten synthetic sounds in {data}")
    options = options or ReadOptions()
    skip_bad = options.skip_bad
    catalog = thin_out(load_catalog(data, options), max_clips)
    visits_an_epoch = len(catalog.clips) * max(1, len(catalog.test_folds) - 1) * len(MEMBERS)
    epochs = int(np.clip(CLIP_VISITS // visits_an_epoch, FEWEST_EPOCHS, MOST_EPOCHS))
    run_dirs = []
    for name, (kind, own) in MEMBERS.items():
        run_dir = out / "runs" / name
        settings = merge(merge(SETTINGS, own), {"train": {"epochs": epochs}})
        train_run(run_dir, build(kind, settings, "quickstart"), catalog, RunOptions(skip_bad=skip_bad))
        run_dirs.append(run_dir)

    blend_dir = out / "submissions" / "blend"
    result = blend_runs(run_dirs, BlendConfig(tta=True), blend_dir)

    how = ExportOptions(accuracy_clips=ACCURACY_CLIPS)
    exported = export_all(read_source(blend_dir), blend_dir, out / "exports", format="onnx", options=how)
    model = exported.exported[0]
    heard = [clip.path for clip in catalog.clips if clip.fold == catalog.test_folds[0]]
    predictions_path = out / "predictions.csv"
    write_predictions(predictions_path, list(Classifier(model.path).predict(heard, skip_bad=skip_bad)))
    report = write_report(load(blend_dir))
    files = {
        "data": data,
        **{f"run {run_dir.name}": run_dir for run_dir in run_dirs},
        "weights and scores": blend_dir / "blend.json",
        "out-of-fold predictions": blend_dir / "oof.csv",
        "report": report.path,
        "one-file model": model.path,
        "its model card": exported.cards[0],
        "its predictions": predictions_path,
    }
    return QuickstartResult(result, model, files)
