"""A training step of BC-ResNet under each arrangement: memory format, precision, compiled or not.

The arrangement that the trainer uses is marked; wanted is that none is more than 1.3 times as fast.
"""

from __future__ import annotations

from typing import Any

import timing
import torch

from esc_ensemble.config import TrainAProConfig
from esc_ensemble.models.registry import ModelSpec, build_model
from esc_ensemble.settings import build, merge, read_yaml
from esc_ensemble.training.device import build_accelerator, choose_precision
from esc_ensemble.training.step import TrainingStep


def main() -> None:
    options = timing.parser(__doc__, repeats=5, data=False)
    options.add_argument("--batch-size", type=int, default=16)
    options.add_argument("--scale", type=float, default=8.0, help="of BC-ResNet")
    options.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options.add_argument("--config", help="YAML file of train-a-pro's settings")
    arguments = options.parse_args()
    over = {
        "model": {"scale": arguments.scale},
        "train": {
            "device": arguments.device,
            "threads": timing.n_threads(arguments),
            "batch_size": arguments.batch_size,
        },
    }
    config = build(TrainAProConfig, merge(read_yaml(arguments.config) if arguments.config else {}, over), "options")
    device = build_accelerator(config.train).device
    ours = (config.train.channels_last, choose_precision(config.train.precision, use_cpu=device.type == "cpu"), False)
    precisions = ["fp32", "bf16"] if device.type == "cuda" or ours[1] == "bf16" else ["fp32"]
    arrangements = [
        (channels_last, precision, compiled)
        for channels_last in (True, False)
        for precision in precisions
        for compiled in (False, True)
    ]
    times = timing.take_turns({_name(a, ours): make_step(config, *a) for a in arrangements}, arguments.repeats)
    fastest = min(found.median for found in times.values())
    figures: dict[str, Any] = {}
    for name, found in times.items():
        figures[f"{name}, ms per clip"] = found.median / arguments.batch_size * 1e3
    figures["ours / the fastest (wanted <= 1.3)"] = times[_name(ours, ours)].median / fastest
    timing.print_result("training_step", figures, arguments)


def _name(arrangement: tuple[bool, str, bool], ours: tuple[bool, str, bool]) -> str:
    channels_last, precision, compiled = arrangement
    name = f"{'channels last' if channels_last else 'contiguous'}, {precision}{', compiled' if compiled else ''}"
    return f"* {name}" if arrangement == ours else name


def make_step(config: TrainAProConfig, channels_last: bool, precision: str, compiled: bool) -> timing.Round:
    """Prepares one forward and backward pass with the optimiser's step left out: it is the same for all."""
    train = config.train.model_copy(update={"channels_last": channels_last})
    accelerator = build_accelerator(config.train)
    device = accelerator.device
    torch.manual_seed(0)
    model = build_model(ModelSpec(config.model, config.frontend, config.data, tuple("abcdefghij")))
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(device).to(memory_format=memory_format).train()  # type: ignore[call-overload]
    if compiled:
        model.forward_features = torch.compile(model.forward_features)  # type: ignore[method-assign]
    step = TrainingStep(model, config.augment, config.mix, train)
    n_samples = round(config.data.clip_seconds * config.data.sample_rate)
    waveform = 0.1 * torch.randn(train.batch_size, n_samples, device=device)
    targets = torch.eye(10, device=device)[torch.arange(train.batch_size) % 10]

    def work() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = step(waveform, targets, "mixup")
        loss.backward()
        model.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return timing.timed(work)


if __name__ == "__main__":
    main()
