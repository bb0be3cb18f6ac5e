from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from esc_ensemble.export.folding import BandAffine, InHalf, fold_norms
from esc_ensemble.export.fused import Trunk
from esc_ensemble.models.bcresnet import SubSpectralNorm
from esc_ensemble.models.frozen_trunk import FrozenTrunk
from esc_ensemble.models.registry import MODELS, ModelSpec, build_model
from tests.backbones import save_backbone
from tests.tiny import tiny_b, tiny_spec

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def used(module: nn.Module) -> nn.Module:
    """With statistics and weights as training leaves them."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, NORMS):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0.0, 0.5)
            part.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(part.weight, 1.0, 0.2)
            nn.init.normal_(part.bias, 0.0, 0.2)
    return module.eval()


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"wave_backbone"}))
@torch.no_grad()
def test_a_folded_trunk_says_the_same_without_a_norm(name: str) -> None:
    torch.manual_seed(0)
    model = used(build_model(tiny_spec(name)))
    trunk = Trunk(model)  # type: ignore[arg-type]
    features = model.frontend(0.1 * torch.randn(3, 8000))  # type: ignore[operator]
    before, expected = {key: value.clone() for key, value in trunk.state_dict().items()}, trunk(features)
    folded = fold_norms(trunk, features[:1])
    torch.testing.assert_close(folded(features), expected, rtol=1e-4, atol=1e-5)
    assert not [part for part in folded.modules() if isinstance(part, (*NORMS, SubSpectralNorm))]
    assert all(torch.equal(before[key], value) for key, value in trunk.state_dict().items())  # left as it was


@torch.no_grad()
def test_a_conformers_norms_are_folded_too(tmp_path: Path) -> None:
    spec = ModelSpec.of(tiny_b(save_backbone(tmp_path / "backbone", "wav2vec2-conformer")), ("a", "b"))
    model = used(build_model(spec))
    trunk = Trunk(model)  # type: ignore[arg-type]
    features = model.frontend(0.1 * torch.randn(2, 16000))  # type: ignore[operator]
    folded = fold_norms(trunk, features)
    torch.testing.assert_close(folded(features), trunk(features), rtol=1e-4, atol=1e-5)


class Shared(nn.Module):
    """A convolution whose output the norm does not have for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        out = self.conv(maps)
        return self.norm(out) + self.act(out)


@torch.no_grad()
def test_a_convolution_that_others_hear_stays_as_it_is() -> None:
    module, maps = used(Shared()), torch.randn(2, 1, 8, 8)
    folded = fold_norms(module, maps)
    torch.testing.assert_close(folded(maps), module(maps))


@torch.no_grad()
def test_a_sub_spectral_norm_is_a_factor_and_a_summand_a_band() -> None:
    norm = used(SubSpectralNorm(6, groups=5))
    maps = torch.randn(2, 6, 20, 7)
    torch.testing.assert_close(BandAffine(norm, 20)(maps), norm(maps), rtol=1e-5, atol=1e-5)  # type: ignore[arg-type]


@torch.no_grad()
def test_half_precision_inside_full_outside(tmp_path: Path) -> None:
    spec = ModelSpec.of(tiny_b(save_backbone(tmp_path / "backbone", "wavlm")), ("a", "b"))
    model = build_model(spec).eval()
    assert isinstance(model.frontend, FrozenTrunk)
    waveform = 0.1 * torch.randn(2, 40000)
    states = InHalf(model.frontend)(waveform)
    assert states.dtype == torch.float32
    torch.testing.assert_close(states, model.frontend(waveform), rtol=0.05, atol=0.05)
    assert next(model.frontend.parameters()).dtype == torch.float32  # left as it was
    half = InHalf(Trunk(model))
    torch.testing.assert_close(half(states), Trunk(model)(states), rtol=0.05, atol=0.05)
