"""BC-ResNet against what is published, and against a plain writing-down of its parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from esc_ensemble.config import BcResNetConfig, DataConfig, FrontendConfig, TrainAProConfig, bc_resnet_bands
from esc_ensemble.errors import ConfigError
from esc_ensemble.models.bcresnet import BcResNet, BroadcastBlock, SubSpectralNorm
from esc_ensemble.models.registry import ModelSpec, build_model
from esc_ensemble.settings import build, check


def made(scale: float, n_classes: int = 12, n_mels: int = 40) -> BcResNet:
    torch.manual_seed(0)
    frontend = FrontendConfig(channels=("logmel",), n_mels=n_mels)
    spec = ModelSpec(BcResNetConfig(scale=scale), frontend, DataConfig(), tuple(map(str, range(n_classes))))
    model = build_model(spec)
    assert isinstance(model, BcResNet)
    return model


@pytest.mark.parametrize(
    ("scale", "published"), [(1, 9.2e3), (1.5, 17.2e3), (2, 27.3e3), (3, 54.2e3), (6, 188e3), (8, 321e3)]
)
def test_sizes_are_those_of_the_paper_for_its_12_classes(scale: float, published: float) -> None:
    count = sum(parameter.numel() for parameter in made(scale).parameters())
    assert count == pytest.approx(published, rel=0.005)


def test_bc_resnet_8_with_50_classes_has_330834_parameters() -> None:
    assert sum(parameter.numel() for parameter in made(8, 50).parameters()) == 330_834


def test_maps_keep_their_time_and_lose_three_halvings_of_bands() -> None:
    model = made(1).eval()
    maps = model.stem(torch.randn(2, 1, 40, 33))
    heights = [maps.shape[2]]
    for block in model.blocks:
        maps = block(maps)
        assert maps.shape[3] == 33
        heights.append(maps.shape[2])
    assert sorted(set(heights), reverse=True) == list(bc_resnet_bands(40)) == [20, 10, 5]
    assert model.classifier(maps).shape == (2, 32, 1, 33)
    assert [block.temporal[0].dilation[1] for block in model.blocks] == [1] * 2 + [2] * 2 + [4] * 4 + [8] * 4  # type: ignore[index,union-attr]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_sub_spectral_norm_is_a_batch_norm_of_each_group_of_bands(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    norm = SubSpectralNorm(3, groups=4)
    nn.init.normal_(norm.norm.weight)
    nn.init.normal_(norm.norm.bias)
    maps = (torch.randn(5, 3, 8, 7) * torch.arange(1, 9)[:, None]).contiguous(memory_format=memory_format)
    found = norm(maps)
    for group in range(4):
        own = slice(group, None, 4)  # channel d of group g is number d·G + g
        expected = F.batch_norm(
            maps[:, :, 2 * group : 2 * group + 2],
            None,
            None,
            norm.norm.weight[own],
            norm.norm.bias[own],
            training=True,
        )
        torch.testing.assert_close(found[:, :, 2 * group : 2 * group + 2], expected)


@pytest.mark.parametrize(("n_in", "n_out", "stride"), [(8, 8, 1), (8, 12, 1), (8, 12, 2)])
def test_a_block_is_what_the_paper_writes(n_in: int, n_out: int, stride: int) -> None:
    torch.manual_seed(0)
    block = BroadcastBlock(n_in, n_out, stride=stride, dilation=2, groups=5, dropout=0.5).eval()
    maps = torch.randn(2, n_in, 20, 9)
    inner = F.relu(block.transition[1](F.conv2d(maps, block.transition[0].weight))) if n_in != n_out else maps  # type: ignore[arg-type]
    inner = F.conv2d(inner, block.frequency.weight, None, (stride, 1), (1, 0), groups=n_out)
    f2 = block.frequency_norm(inner)
    row = f2.mean(dim=2, keepdim=True)
    row = F.conv2d(row, block.temporal[0].weight, None, 1, (0, 2), (1, 2), n_out)  # type: ignore[arg-type]
    row = F.conv2d(F.silu(block.temporal[1](row)), block.temporal[3].weight)  # type: ignore[arg-type]
    expected = F.relu(f2 + row + (maps if n_in == n_out else 0.0))
    torch.testing.assert_close(block(maps), expected)


@pytest.mark.parametrize(
    ("n_mels", "subbands", "text"),
    [
        (64, 5, r"n_mels 64 cannot be cut into model\.subbands 5 after every stride: take 39, 40, 79, 80 bands"),
        (128, 5, r"; with 128 bands, model\.subbands 2 or 4 or 8 fits"),
        (16, 5, "take 39, 40, 79, 80 bands"),
        (1001, 5, "take 999, 1000, 1039, 1040 bands"),
    ],
)
def test_bands_that_cannot_be_cut_are_refused_with_those_that_can(n_mels: int, subbands: int, text: str) -> None:
    values = {"frontend": {"n_mels": n_mels}, "model": {"subbands": subbands}}
    with pytest.raises(ConfigError, match=text):
        check(build(TrainAProConfig, values, "it"), "it")


@pytest.mark.parametrize(("n_mels", "subbands"), [(40, 5), (39, 5), (80, 5), (64, 4), (128, 4)])
def test_bands_that_can_be_cut_work(n_mels: int, subbands: int) -> None:
    config = build(TrainAProConfig, {"frontend": {"n_mels": n_mels}, "model": {"subbands": subbands, "scale": 1}}, "it")
    check(config, "it")
    model = build_model(ModelSpec(config.model, config.frontend, config.data, ("a", "b"))).eval()
    assert model(torch.randn(1, 16000)).shape == (1, 2)


def test_checkpointing_changes_neither_values_nor_gradients_nor_statistics() -> None:
    waves = 0.1 * torch.randn(3, 8000)
    found = []
    for checkpointing in (False, True):
        model = made(1).train()
        model.checkpointing = checkpointing
        torch.manual_seed(1)  # of the channel dropout
        logits = model(waves)
        logits.square().sum().backward()
        found.append([logits, *(p.grad for p in model.parameters()), *model.buffers()])
    for plain, again in zip(*found, strict=True):
        if plain is not None and plain.is_floating_point():  # a counter of batches that nothing reads aside
            torch.testing.assert_close(plain, again, rtol=1e-4, atol=1e-5)
