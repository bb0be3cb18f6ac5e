"""The fast convolution against torch's own."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from esc_ensemble.models.conv import SLICE, Conv2d


def channels_last(what: Any) -> Any:
    return what.to(memory_format=torch.channels_last)


def gradients(layer: nn.Module, maps: Tensor) -> list[Tensor]:
    """What the layer gives, then the gradients of the maps, the weights and the bias for a random loss."""
    maps = maps.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = layer(maps)
    upper = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    out.backward(upper)
    return [out.detach(), *(part.grad for part in (maps, *layer.parameters()) if part.grad is not None)]


@given(
    n_clips=st.integers(1, 2 * SLICE + 1),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.sampled_from([1, 3, (5, 3)]),
    how=st.fixed_dictionaries(
        {
            "groups": st.sampled_from([1, 2]),
            "stride": st.sampled_from([1, 2, (1, 2)]),
            "padding": st.integers(0, 2),
            "dilation": st.integers(1, 2),
            "bias": st.booleans(),
        }
    ),
)
@settings(deadline=None)
def test_values_and_gradients_are_torchs(
    n_clips: int, channels: tuple[int, int], kernel: int | tuple[int, int], how: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    n_in, n_out = (n * how["groups"] for n in channels)
    layer = Conv2d(n_in, n_out, kernel, **how)
    exact = nn.Conv2d(n_in, n_out, kernel, **how).double()
    exact.load_state_dict(layer.state_dict())
    maps = torch.randn(n_clips, n_in, 10, 11)
    found = gradients(channels_last(layer), channels_last(maps))
    expected = gradients(exact, maps.double())
    assert len(found) == len(expected) == 3 + how["bias"]
    for ours, torchs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), torchs, rtol=1e-4, atol=1e-3)


def test_the_fast_path_is_taken_where_it_gains_and_only_there() -> None:
    layer = channels_last(Conv2d(2, 3, 3))
    maps = channels_last(torch.randn(2, 2, 8, 8))

    def fast(out: Tensor) -> bool:
        return "ContiguousWeightGradient" in type(out.grad_fn).__name__

    assert fast(layer(maps))
    assert not fast(layer(maps.contiguous()))
    with torch.no_grad():
        assert not fast(layer(maps))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not fast(layer(maps))
    assert not fast(layer.double()(maps.double()))


def test_it_exports_as_a_plain_convolution() -> None:
    layer = channels_last(Conv2d(2, 3, 3))
    maps = channels_last(torch.randn(2, 2, 8, 8))
    exported = torch.export.export(layer, (maps,))
    assert [node.target for node in exported.graph.nodes if node.op == "call_function"] == [
        torch.ops.aten.conv2d.default
    ]
