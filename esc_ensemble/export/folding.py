"""Batch norms put into the convolutions before them: the same network with less to do."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from esc_ensemble.models.bcresnet import SubSpectralNorm
from esc_ensemble.models.frozen_trunk import FrozenTrunk


def fold_norms(module: nn.Module, example: Tensor) -> nn.Module:
    """Gives a copy of a module in eval mode in which a norm right behind a convolution is part of it.

    Which norm stands behind which convolution is seen by running the module: it takes the very tensor that the
    convolution gave. Sub-spectral norms become a factor and a summand for each channel and band.

    Args:
        module: in eval mode; it is left as it is.
        example: what it is run on.
    """
    folded = copy.deepcopy(module)
    seen = _watch(folded, example)
    names = {part: name for name, part in folded.named_modules()}
    for norm, (source, shape) in seen.norms.items():
        if isinstance(norm, SubSpectralNorm):
            _replace(folded, names[norm], BandAffine(norm, n_bands=shape[2]))
        elif isinstance(source, nn.Conv1d | nn.Conv2d) and seen.readers[source] == 1:
            assert isinstance(norm, _BatchNorm)
            _replace(folded, names[source], fuse_conv_bn_eval(source, norm))
            _replace(folded, names[norm], nn.Identity())
    return folded


class BandAffine(nn.Module):
    """What a sub-spectral norm does in eval mode: (B, D, F, L) times and plus a number for each channel and band."""

    factor: Tensor
    summand: Tensor

    def __init__(self, norm: SubSpectralNorm, n_bands: int) -> None:
        super().__init__()
        inner = norm.norm
        assert inner.running_mean is not None and inner.running_var is not None
        factor = inner.weight * (inner.running_var + inner.eps).rsqrt()  # (D·G,)
        summand = inner.bias - factor * inner.running_mean
        for name, values in (("factor", factor), ("summand", summand)):
            by_band = values.detach().view(-1, norm.groups, 1).expand(-1, -1, n_bands // norm.groups)
            self.register_buffer(name, by_band.reshape(1, -1, n_bands, 1).contiguous())

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.factor + self.summand


@dataclass
class _Seen:
    """What was seen of a module's parts as it ran."""

    norms: dict[nn.Module, tuple[nn.Module | None, torch.Size]] = field(default_factory=dict)
    """Norm -> the convolution whose output it took, if any, and the shape of that."""
    readers: dict[nn.Module, int] = field(default_factory=dict)
    """Convolution -> how many parts took its output."""


def _watch(module: nn.Module, example: Tensor) -> _Seen:
    seen = _Seen()
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # kept alive, so that no other tensor gets its number

    def before(part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        source = made.get(id(inputs[0]), (None, None))[0] if inputs else None
        if source is not None:
            seen.readers[source] = seen.readers.get(source, 0) + 1
        if isinstance(part, SubSpectralNorm) or (isinstance(part, _BatchNorm) and id(part) not in inner):
            seen.norms[part] = (source, inputs[0].shape)

    def after(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001 - a hook's shape
        made[id(output)] = (part, output)

    inner = {id(part.norm) for part in module.modules() if isinstance(part, SubSpectralNorm)}
    leaves = [part for part in module.modules() if not list(part.children()) or isinstance(part, SubSpectralNorm)]
    hooks = [part.register_forward_pre_hook(before) for part in leaves]
    hooks += [part.register_forward_hook(after) for part in leaves if isinstance(part, nn.Conv1d | nn.Conv2d)]
    try:
        with torch.inference_mode():
            module(example)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, new)


class InHalf(nn.Module):
    """A module that computes in half precision; what goes in and comes out is in full.

    A frozen trunk takes the waveform in full, since sums over it go beyond the range of half precision.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).half()
        self.casts = not isinstance(module, FrozenTrunk)

    def forward(self, values: Tensor) -> Tensor:
        output = self.module(values.half() if self.casts else values)
        return output.float()  # type: ignore[no-any-return]
