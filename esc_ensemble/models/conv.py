"""A convolution that trains faster on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

SLICE = 8
"""Clips whose maps are copied to another memory format at once: few enough to stay in the cache."""


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with the same weights and values, for wide maps: maps (B, D, F, L) -> (B, D', F', L').

    With channels last, oneDNN is at its fastest forwards and for the gradient of the maps, but takes two to three
    times as long for the gradient of float32 weights as with contiguous maps. Here the weights' gradient alone
    is computed from contiguous copies of a few clips at a time. On a GPU, in half precision, without gradients
    and in exported graphs this is `nn.Conv2d` itself.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not self._gains(maps):
            return super().forward(maps)
        return _ContiguousWeightGradient.apply(  # type: ignore[no-any-return, no-untyped-call]
            maps, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def _gains(self, maps: Tensor) -> bool:
        return (
            torch.is_grad_enabled()
            and self.weight.requires_grad
            and maps.device.type == "cpu"
            and maps.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
            and not maps.is_contiguous()
            and maps.is_contiguous(memory_format=torch.channels_last)
        )


class _ContiguousWeightGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.has_bias = bias is not None
        ctx.settings = settings
        return F.conv2d(maps, weight, bias, *settings)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings

        def gradients(upper: Tensor, lower: Tensor, kernel: Tensor, wanted: list[bool]) -> Any:
            return torch.ops.aten.convolution_backward(
                upper, lower, kernel, None, stride, padding, dilation, False, [0, 0], groups, wanted
            )

        of_maps = gradients(gradient, maps, weight, [True, False, False])[0] if ctx.needs_input_grad[0] else None
        kernel = weight.contiguous()
        of_weight = torch.zeros_like(kernel)
        for upper, lower in zip(torch.split(gradient, SLICE), torch.split(maps, SLICE), strict=True):
            of_weight += gradients(upper.contiguous(), lower.contiguous(), kernel, [False, True, False])[1]
        of_bias = gradient.sum(dim=(0, 2, 3)) if ctx.has_bias else None
        return of_maps, of_weight, of_bias, None, None, None, None
