"""Inference with the exported file: onnxruntime against eager torch, and the cold start of `esc-ens infer`.

The blend is five folds of the default model with random weights: as fast as trained ones. Both hear one clip
at a time; decoding is not counted. The cold start is a whole process, from its start to its end, with the
prediction of one clip on its standard output.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch

from esc_ensemble.config import TrainAConfig
from esc_ensemble.data.catalog import Catalog, load_catalog
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.parts import load_parts, mixing_of
from esc_ensemble.export.pipeline import ExportOptions, export_blend
from esc_ensemble.infer import Classifier
from esc_ensemble.models.checkpoint import save_checkpoint
from esc_ensemble.models.registry import ModelSpec, build_model

COMMAND = "import sys; from esc_ensemble.__main__ import main; sys.exit(main())"
N_CLIPS = 8


def main() -> None:
    options = timing.parser(__doc__, repeats=10)
    options.add_argument("--starts", type=int, default=5, help="cold starts")
    options.set_defaults(threads=1)
    arguments = options.parse_args()
    threads = timing.n_threads(arguments)
    torch.set_num_threads(threads)
    with timing.data_folder(arguments) as data, tempfile.TemporaryDirectory() as scratch:
        catalog = load_catalog(data)
        blend = save_random_blend(Path(scratch) / "run", catalog)
        parts = load_parts(blend, Path(scratch))
        paths = [clip.path for clip in catalog.clips[:N_CLIPS]]
        judged = ExportOptions(data=data, check_clips=N_CLIPS, accuracy_clips=0)
        done = export_blend(blend, Path(scratch), Path(scratch) / "blend.onnx", judged)
        onnx = done.path
        classifier = Classifier(onnx, threads)
        fused = FusedBlend(parts, mixing_of(blend)).eval()
        waveforms = [classifier.read(path)[None] for path in paths]
        times = timing.take_turns(
            {
                "onnxruntime": timing.timed(lambda: [classifier.listen(waveform) for waveform in waveforms]),
                "torch": timing.timed(lambda: _listen_torch(fused, waveforms)),
            },
            arguments.repeats,
        )
        start = timing.timed(lambda: _infer(onnx, paths[0], threads))
        starts = timing.take_turns({"cold start": start}, arguments.starts)["cold start"]
        size = onnx.stat().st_size
    ms = {name: 1e3 * found.median / N_CLIPS for name, found in times.items()}
    figures: dict[str, Any] = {
        "models in the file": len(parts),
        "file, MB": size / 1e6,
        "largest difference": done.parity.max_difference,
        **{f"{name}, ms per clip": value for name, value in ms.items()},
        "torch / onnxruntime": ms["torch"] / ms["onnxruntime"],
        "cold start, s (wanted <= 2)": starts.median,
        "cold start, best, s": starts.best,
    }
    timing.print_result("onnx_inference", figures, arguments)


def save_random_blend(run: Path, catalog: Catalog) -> dict[str, Any]:
    """Saves a checkpoint for each fold and gives the content of a blend.json over them."""
    config = TrainAConfig()
    spec = ModelSpec(config.model, config.frontend, config.data, catalog.class_names)
    torch.manual_seed(0)
    folds = list(catalog.fold_numbers)
    for fold in folds:
        save_checkpoint(run / f"fold-{fold}", build_model(spec), spec, fold=fold, run=run.name)
    member = {
        "run": run.name,
        "path": run.name,
        "folds": folds,
        "temperatures": {str(fold): 1.0 for fold in folds},
        "weight": 1.0,
        "class_weights": None,
        "shifts": [0.0],
        "shift_weights": [1.0],
        "shift_mode": "cyclic",
        "stored_shifts": [0.0],
    }
    return {
        "name": "random",
        "class_names": list(catalog.class_names),
        "combiner": "geometric",
        "temperature": 1.0,
        "bias": None,
        "tta": False,
        "members": [member],
        "scores": [],
        "dataset_fingerprint": catalog.fingerprint,
    }


@torch.inference_mode()
def _listen_torch(fused: FusedBlend, waveforms: Sequence[np.ndarray]) -> None:
    for waveform in waveforms:
        fused(torch.from_numpy(waveform))


def _infer(onnx: Path, clip: Path, threads: int) -> None:
    command = [sys.executable, "-c", COMMAND, "infer", str(onnx), str(clip), "--threads", str(threads), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert clip.name in done.stdout


if __name__ == "__main__":
    main()
