"""Clips and windows shorter than a network's first frame are refused before anything is decoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from esc_ensemble.__main__ import main
from esc_ensemble.config import DataConfig, MaskedModelConfig, MaskingConfig, TrainAConfig, TrainAProConfig
from esc_ensemble.errors import ConfigError
from esc_ensemble.models.backbones import FAMILIES, read_backbone
from esc_ensemble.models.masked import build_masked_model, describe_masked, draw_hidden, draw_negatives, least_frames
from esc_ensemble.models.registry import ModelSpec, build_model
from esc_ensemble.settings import build
from tests.backbones import save_backbone
from tests.tiny import tiny_b, tiny_spec

RATE = 16000


def learns(spec: ModelSpec, n_samples: int) -> bool:
    """Whether a network can take a step on two clips of this length."""
    torch.manual_seed(0)
    model = build_model(spec).train()
    logits = model(0.1 * torch.randn(2, n_samples))
    logits.sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return bool(logits.isfinite().all()) and all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("pooling", ["attention", "statistics"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_least_length_of_a_backbone_is_the_least_that_works(family: str, pooling: str, tmp_path: Path) -> None:
    backbone = read_backbone(save_backbone(tmp_path, family))
    model = {"unfreeze": 2, "attention_size": 8, "pooling": pooling, "frame_pool": 4}
    spec = replace(tiny_spec("wave_backbone", data={"sample_rate": RATE}, model=model), backbone=backbone)
    least = backbone.least_samples()
    assert learns(spec, least)
    with pytest.raises(RuntimeError):
        learns(spec, least - 1)


def test_wav2vec2_needs_400_samples(tmp_path: Path) -> None:
    backbone = read_backbone(save_backbone(tmp_path))
    assert (backbone.least_samples(), backbone.least_samples(2)) == (400, 720)  # 25 ms, and a frame each 20 ms


@pytest.mark.parametrize(
    ("kind", "model", "least"),
    [
        (TrainAConfig, {"widths": [4] * 6}, 512),
        (TrainAConfig, {"name": "spec_cnn_reference", "widths": [4, 4]}, 512 + 3 * 640),
        (TrainAProConfig, {"scale": 1.0}, 512),
    ],
)
def test_the_least_length_for_spectrograms_is_the_least_that_works(
    kind: type[Any], model: dict[str, Any], least: int
) -> None:
    def config(n_samples: int) -> Any:
        values = {
            "data": {"sample_rate": RATE, "clip_seconds": n_samples / RATE},
            "frontend": {"n_fft": 512, "window": 400, "hop": 640, "f_max": 8000.0},
            "model": model,
        }
        return build(kind, values, "it")

    spec = ModelSpec.of(config(least), ("a", "b"))
    assert learns(spec, least)
    with pytest.raises(ConfigError, match=f"set it to {least / RATE:g} or more"):
        config(least - 1)
    with pytest.raises(RuntimeError):
        learns(spec, least - 1)


@pytest.mark.parametrize(
    ("least", "rate", "shortest"), [(400, 16000, "0.025"), (512, 22050, "0.0233"), (1, 192000, "0.0001")]
)
def test_the_length_that_is_named_is_enough(least: int, rate: int, shortest: str) -> None:
    data = DataConfig(sample_rate=rate, clip_seconds=float(shortest))
    assert data.length_conflict(least, "it") == ""
    conflict = DataConfig(sample_rate=rate, clip_seconds=1e-9).length_conflict(least, "it")
    assert conflict.endswith(f"set it to {shortest} or more")


@pytest.mark.parametrize("masking", [MaskingConfig(), MaskingConfig(span=1), MaskingConfig(span=1, share=0.05)])
def test_the_least_number_of_frames_that_can_be_masked(masking: MaskingConfig) -> None:
    least = least_frames(masking)
    assert draw_hidden(2, least, masking).sum() >= 4
    with pytest.raises(ConfigError):
        draw_hidden(2, least - 1, masking)


def test_the_least_length_for_pretraining_works() -> None:
    masking = MaskingConfig(negatives=3, other_negatives=3)
    settings = MaskedModelConfig(conv_size=8, hidden_size=16, n_blocks=1, n_heads=2, feed_forward=16, code_size=8)
    backbone = describe_masked(settings, masking, RATE, True)
    model = build_masked_model(settings, backbone).train()
    n_samples = backbone.least_samples(least_frames(masking))
    assert model.n_frames(n_samples) == least_frames(masking) > model.n_frames(n_samples - 1)
    hidden = draw_hidden(2, model.n_frames(n_samples), masking)
    assert model(torch.randn(2, n_samples), hidden, draw_negatives(hidden, masking)).contrast.isfinite()


@pytest.mark.parametrize("group", ["clip_seconds", "window_seconds"])
def test_a_short_clip_for_a_backbone_is_refused_before_decoding(
    synthetic_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], group: str
) -> None:
    flags = ["--data", synthetic_dir, "--runs", tmp_path / "runs", "--frontend.views", 0]
    flags += ["--model.source", save_backbone(tmp_path / "backbone"), "--model.unfreeze", 1]
    flags += [f"--data.{group.replace('_', '-')}", 0.02]
    assert main(["train-b", *map(str, flags)]) == 2
    message = capsys.readouterr().err
    assert f"data.{group} 0.02 (320 samples" in message
    assert "set it to 0.025 or more" in message
    assert "Decoding" not in message
    assert not (tmp_path / "runs").exists()


def test_the_least_length_passes(tmp_path: Path) -> None:
    source = save_backbone(tmp_path)
    config = tiny_b(source, data={"clip_seconds": 0.025})
    assert ModelSpec.of(config, ("a", "b")).data.n_samples == 400
