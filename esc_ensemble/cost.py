"""What a trained run costs where it is used: time of one CPU thread for a clip, and size of its weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from esc_ensemble.blend.costs import Cost, read_costs, write_cost
from esc_ensemble.errors import LogitsError, ModelFileError, list_problems
from esc_ensemble.models.base import digest_weights
from esc_ensemble.models.checkpoint import load_checkpoint
from esc_ensemble.predict import middle
from esc_ensemble.progress import progress

REPEATS = 5


def measure_costs(run_dirs: Sequence[Path]) -> None:
    """Measures runs that have no cost.json, and writes it.

    Raises:
        LogitsError: a run holds no model and says no cost, or a cost.json cannot be used.
        WorkError: a cost.json cannot be written.
    """
    known = read_costs(run_dirs)
    missing = [run_dir for run_dir in run_dirs if run_dir not in known and run_dir.is_dir()]
    if not missing:
        return
    problems = []
    with progress("Measuring costs", len(missing), unit="runs") as advance:
        for run_dir in missing:
            try:
                write_cost(run_dir, measure_cost(run_dir))
            except ModelFileError as error:
                without = not any(run_dir.glob("fold-*/model.json"))
                problems.append(f"{run_dir} holds no model" if without else str(error))
            advance()
    if problems:
        advice = 'Write what such a run costs into its cost.json: {"ms": 1.5, "megabytes": 0.2} (docs/blending.md).'
        raise LogitsError(list_problems("What these members cost cannot be measured:", problems, advice))


def measure_cost(run_dir: Path) -> Cost:
    """Times a run's fold models on one clip, one after the other on one CPU thread, as a blend runs them.

    The median of some repeats counts, the first left out. Weights that fold models share, such as a frozen trunk's,
    count once.

    Raises:
        ModelFileError: the run holds no models, or one is damaged.
    """
    folders = sorted(run_dir.glob("fold-*"))
    if not folders:
        raise ModelFileError(f"{run_dir} holds no fold-*.")
    sizes: dict[str, int] = {}
    ms = 0.0
    for folder in folders:
        model, spec = load_checkpoint(folder)
        for name, module in model.named_children():
            own = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
            sizes[f"{name} {digest_weights(module)}"] = own
        generator = torch.Generator().manual_seed(0)
        waveform = 0.1 * torch.randn(1, spec.data.n_samples, generator=generator)
        heard = middle(waveform, round(spec.data.window_seconds * spec.data.sample_rate))
        ms += _milliseconds(model, heard)
    return Cost(ms=ms, megabytes=sum(sizes.values()) / 1e6)


def _milliseconds(model: torch.nn.Module, waveform: torch.Tensor) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        with torch.inference_mode():
            for _ in range(REPEATS + 1):
                start = time.perf_counter()
                model(waveform)
                times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return 1e3 * statistics.median(times[1:])
