"""Pieces of networks as ONNX, and how they are joined into one graph.

An exporter takes seconds to trace a network, whatever its weights. So each kind of piece is traced once, and its graph
copied with the weights of every model of that kind. Each copy's nodes have a prefix of their own, by which they are
known later: `part3/...`.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import compose, helper, numpy_helper
from onnxscript import optimizer
from torch import Tensor, nn

from esc_ensemble.errors import WorkError
from esc_ensemble.files import temporary_folder

DYNAMIC = torch.export.Dim.DYNAMIC
OPSET = 18
"""Version of ONNX's operators: the one that torch's exporter writes before any conversion, and the oldest it knows."""


@dataclass(frozen=True)
class Piece:
    """A traced module."""

    model: onnx.ModelProto
    """Its graph; the module's weights are inputs of it, behind those of its forward."""
    n_inputs: int
    """Number of forward's inputs."""


def trace_piece(
    module: nn.Module, examples: Sequence[Tensor], dynamic: Sequence[Mapping[int, object]], outputs: Sequence[str]
) -> Piece:
    """Writes a module as a graph whose inputs are forward's, and after them all its weights by their names.

    Args:
        module: in eval mode.
        examples: an input each.
        dynamic: for each input which of its dimensions may be of any size.
        outputs: names of what comes out.
    """
    with temporary_folder() as folder, _quiet():
        path = folder / "piece.onnx"
        torch.onnx.export(
            module,
            tuple(examples),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=_by_argument(module, dynamic),
            input_names=[f"in{number}" for number in range(len(examples))],
            output_names=list(outputs),
            external_data=False,
            verbose=False,
            optimize=False,  # it would compute with weights, which are to be put in
        )
        model = onnx.load(path)
        model.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in model.graph.initializer
        )
        del model.graph.initializer[:]
        return Piece(optimizer.optimize(model), len(examples))


class Graph:
    """A graph that grows piece by piece; values are known by their names."""

    def __init__(self, name: str) -> None:
        self.proto = onnx.GraphProto(name=name)
        self.opsets: dict[str, int] = {}
        self.ir_version = 0

    def add(self, piece: Piece, weights: nn.Module, inputs: Sequence[str], prefix: str) -> list[str]:
        """Puts a piece in; gives the names of what comes out of it.

        Args:
            piece: traced from a module of this kind.
            weights: whose weights it gets.
            inputs: names of the values that it is fed with.
            prefix: comes before the names of its nodes and weights.
        """
        own = {**dict(weights.named_parameters()), **dict(weights.named_buffers())}
        placed = compose.add_prefix(piece.model, prefix)
        given = [value.name for value in placed.graph.input]
        names = dict(zip(given[: piece.n_inputs], inputs, strict=True))
        for node in placed.graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
        used = {name for node in placed.graph.node for name in node.input}
        for name in given[piece.n_inputs :]:
            if name in used:
                values = own[name.removeprefix(prefix)].detach().cpu().contiguous().numpy()
                self.proto.initializer.append(numpy_helper.from_array(values, name))
        self.proto.node.extend(placed.graph.node)
        self.proto.initializer.extend(placed.graph.initializer)
        for opset in placed.opset_import:
            if self.opsets.setdefault(opset.domain, opset.version) != opset.version:
                raise WorkError(f"The exporter wrote pieces of two versions of ONNX's operators ({opset.domain}).")
        self.ir_version = max(self.ir_version, placed.ir_version)
        return [names.get(value.name, value.name) for value in placed.graph.output]

    def reshape(self, value: str, shape: Sequence[int], prefix: str) -> str:
        """Gives a value another shape, in which one size may be -1."""
        wanted, out = f"{prefix}shape", f"{prefix}reshaped"
        self.proto.initializer.append(numpy_helper.from_array(np.array(shape, dtype=np.int64), wanted))
        self.proto.node.append(helper.make_node("Reshape", [value, wanted], [out], name=f"{prefix}reshape"))
        return out

    def rename(self, old: str, new: str) -> None:
        """Gives a value another name."""
        for node in self.proto.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    def model(
        self, inputs: Mapping[str, Sequence[str | int]], outputs: Mapping[str, Sequence[str | int]]
    ) -> onnx.ModelProto:
        """Gives the whole as a checked model.

        Args:
            inputs: name and shape of each float32 input; sizes that may vary have names.
            outputs: the same of what comes out.
        """
        for given, shapes in ((self.proto.input, inputs), (self.proto.output, outputs)):
            for name, shape in shapes.items():
                given.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape)))
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        model = helper.make_model(self.proto, opset_imports=opsets, ir_version=self.ir_version)
        onnx.checker.check_model(model)
        return model


def _by_argument(module: nn.Module, dynamic: Sequence[Mapping[int, object]]) -> dict[str, Any]:
    """What `torch.export` wants: a mapping by the names of forward's arguments, or one tuple for `*arguments`."""
    arguments = list(inspect.signature(module.forward).parameters.values())
    if len(arguments) == 1 and arguments[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return {arguments[0].name: tuple(dict(each) for each in dynamic)}
    return {argument.name: dict(each) for argument, each in zip(arguments, dynamic, strict=True)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter from telling of every optional package that is not there."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
