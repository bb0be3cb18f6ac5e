"""A blend in one graph against the naive graph of the same blend, in onnxruntime, clip by clip.

The naive graph is what one gets by exporting every model by itself: each fold's model hears each time shift alone,
silence cut, shifted and made a spectrogram anew. The fused one computes what is shared once, and all shifts together.
Both are simplified alike and give the same probabilities, which is checked. Weights are random: as fast as trained
ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import onnx
import onnxruntime
import timing
import torch

from esc_ensemble.config import TrainAConfig, TrainAProConfig, TrainerConfig
from esc_ensemble.export.folding import fold_norms
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.graph import DYNAMIC, Graph, Piece, trace_piece
from esc_ensemble.export.onnx import build_graph, simplify
from esc_ensemble.export.parts import Mixing, Part
from esc_ensemble.models.registry import ModelSpec, build_model

SHIFTS = (-0.25, -0.1, 0.0, 0.1, 0.25)
N_CLASSES = 10


def main() -> None:
    options = timing.parser(__doc__, repeats=20)
    options.add_argument("--folds", type=int, default=5, help="fold models of each of A and A Pro")
    options.add_argument("--no-tta", action="store_true", help="no time shifts")
    options.set_defaults(threads=1)
    arguments = options.parse_args()
    threads = timing.n_threads(arguments)
    shifts = (0.0,) if arguments.no_tta else SHIFTS
    torch.manual_seed(0)
    parts = random_parts([TrainAConfig(), TrainAProConfig()], arguments.folds, shifts)
    fused = simplify(build_graph(FusedBlend(parts, Mixing("geometric")).eval()))
    naive = simplify(naive_graph(parts))
    sessions = {name: session(model, threads) for name, model in (("fused", fused), ("naive", naive))}
    clip = {"waveform": 0.1 * np.random.default_rng(0).standard_normal((1, 160_000)).astype(np.float32)}
    answers = [each.run(["probabilities"], clip)[0] for each in sessions.values()]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)
    rounds = {name: timing.timed(partial(each.run, ["probabilities"], clip)) for name, each in sessions.items()}
    times = timing.take_turns(rounds, arguments.repeats)
    figures: dict[str, Any] = {
        "models, shifts": f"{len(parts)}, {len(shifts)}",
        **{f"{name}, ms a clip": 1e3 * found.median for name, found in times.items()},
        **{f"{name}, file, MB": model.ByteSize() / 1e6 for name, model in (("fused", fused), ("naive", naive))},
        "naive / fused (wanted >= 1.5)": times["naive"].median / times["fused"].median,
    }
    timing.print_result("fused_graph", figures, arguments)


def random_parts(configs: Sequence[TrainerConfig], n_folds: int, shifts: Sequence[float]) -> list[Part]:
    """Gives models of each kind with random weights, all of equal weight."""
    names = tuple(f"class {number}" for number in range(N_CLASSES))
    specs = [ModelSpec.of(config, names) for config in configs for _ in range(n_folds)]
    share = tuple(1.0 / len(shifts) for _ in shifts)
    return [Part(build_model(spec).eval(), spec, 1.0, 1.0 / len(specs), tuple(shifts), share) for spec in specs]


def naive_graph(parts: Sequence[Part]) -> onnx.ModelProto:
    """Gives a graph in which every part hears every shift by itself."""
    singles = list(chain.from_iterable(map(one_by_one, parts)))
    graph = Graph("naive")
    traced: dict[object, Piece] = {}
    logits, seen = [], torch.zeros(2, singles[0].spec.data.n_samples + 13)
    for number, single in enumerate(singles):
        alone = FusedBlend([single], Mixing("geometric")).eval()
        features = alone.listening(seen)[0]
        trunk = fold_norms(alone.trunks[0], features)
        kind, shift = single.spec.name, single.shift_seconds
        if (kind, shift) not in traced:
            traced[kind, shift] = trace_piece(alone.listening, [seen], [{0: DYNAMIC, 1: DYNAMIC}], ["heard"])
        if kind not in traced:
            traced[kind] = trace_piece(trunk, [features], [{0: DYNAMIC}], ["logits"])
        (heard,) = graph.add(traced[kind, shift], alone.listening, ["waveform"], f"listening{number}/")
        (said,) = graph.add(traced[kind], trunk, [heard], f"part{number}/")
        logits.append(graph.reshape(said, [1, -1, N_CLASSES], f"part{number}/"))
    combination = FusedBlend(singles, Mixing("geometric")).combination
    examples = [torch.zeros(1, 2, N_CLASSES) for _ in logits]
    piece = trace_piece(combination, examples, [{1: DYNAMIC}] * len(logits), ["probabilities", "part_logits"])
    graph.rename(graph.add(piece, combination, logits, "combination/")[0], "probabilities")
    return graph.model({"waveform": ["batch", "samples"]}, {"probabilities": ["batch", N_CLASSES]})


def one_by_one(part: Part) -> list[Part]:
    """Gives the part once for each shift: of log-probabilities a share for each is as their mean beforehand."""
    assert isinstance(part.weight, float)
    return [
        replace(part, shift_seconds=(shift,), shift_weights=(1.0,), weight=part.weight * share)
        for shift, share in zip(part.shift_seconds, part.shift_weights, strict=True)
    ]


def session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """Opens a model on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
