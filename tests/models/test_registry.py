"""The contract that every registered model keeps."""

from __future__ import annotations

import pytest
import torch

from esc_ensemble.config import SpecCnnConfig
from esc_ensemble.errors import ModelFileError
from esc_ensemble.models.base import AudioClassifier
from esc_ensemble.models.registry import MODELS, ModelSpec, build_model
from tests.tiny import N_CLASSES, tiny_spec

every_model = pytest.mark.parametrize("name", sorted(MODELS))


def made(name: str, learnable: bool = False) -> AudioClassifier:
    torch.manual_seed(0)
    return build_model(tiny_spec(name, frontend={"pcen": {"learnable": learnable}}))


def noise(n_clips: int, n_samples: int = 8000) -> torch.Tensor:
    return 0.1 * torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(1))


@every_model
def test_waveforms_become_finite_logits_by_way_of_embeddings(name: str) -> None:
    model = made(name).eval()
    embedding = model.forward_features(model.frontend(noise(3)))
    assert embedding.shape == (3, model.embedding_size)
    logits = model.forward_head(embedding)
    assert logits.shape == (3, N_CLASSES) == (3, model.n_classes)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert torch.equal(logits, model(noise(3)))
    assert model.sample_rate == 8000


@every_model
@pytest.mark.parametrize("learnable", [False, True])
def test_every_trainable_parameter_gets_a_gradient(name: str, learnable: bool) -> None:
    model = made(name, learnable).train()
    torch.nn.functional.cross_entropy(model(noise(8)), torch.arange(8) % N_CLASSES).backward()
    trained = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    for key, parameter in trained.items():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.any(), key


@every_model
@pytest.mark.parametrize("n_samples", [2600, 8001, 12345, 40000])
def test_clips_may_have_another_length_than_in_training(name: str, n_samples: int) -> None:
    assert torch.isfinite(made(name).eval()(noise(2, n_samples))).all()


@every_model
def test_a_clip_alone_gives_the_same_as_in_a_batch_of_16(name: str) -> None:
    model = made(name).eval()
    with torch.inference_mode():
        together = model(noise(16))
        alone = torch.cat([model(clip[None]) for clip in noise(16)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


@every_model
def test_an_exported_graph_gives_the_same_for_any_number_of_clips_of_any_length(name: str) -> None:
    model, any_size = made(name).eval(), torch.export.Dim.DYNAMIC
    exported = torch.export.export(model, (noise(2),), dynamic_shapes={"waveform": {0: any_size, 1: any_size}})
    graph = exported.module(check_guards=False)  # pooling guards the parity of its input, and ONNX keeps no guards
    with torch.inference_mode():
        for n_clips, n_samples in ((1, 8000), (3, 3072), (3, 3712), (2, 21111)):  # 12, 5, 6 and 33 frames
            waves = noise(n_clips, n_samples)
            torch.testing.assert_close(graph(waves), model(waves), rtol=1e-4, atol=1e-4)


@every_model
def test_eval_is_deterministic_and_draws_no_random_number(name: str) -> None:
    model = made(name).eval()
    state = torch.random.get_rng_state()
    assert torch.equal(model(noise(2)), model(noise(2)))
    assert torch.equal(torch.random.get_rng_state(), state)


@every_model
def test_dropout_works_in_training(name: str) -> None:
    model = made(name).train()
    assert not torch.equal(model(noise(4)), model(noise(4)))


@every_model
def test_a_silent_clip_gives_finite_logits(name: str) -> None:
    assert torch.isfinite(made(name).eval()(torch.zeros(2, 8000))).all()


@every_model
def test_one_seed_gives_one_network(name: str) -> None:
    first, second = made(name).state_dict(), made(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_model
def test_a_spec_survives_json(name: str) -> None:
    spec = tiny_spec(name)
    assert ModelSpec.from_json(spec.to_json(), "here") == spec


def test_the_reference_cnn_is_the_one_that_is_described() -> None:
    spec = tiny_spec("spec_cnn_reference", model={"widths": [32, 64, 96, 128]})
    spec = ModelSpec(spec.model, spec.frontend, spec.data, tuple(f"class {n}" for n in range(10)))
    model = build_model(spec)
    convolutions = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels, conv.kernel_size) for conv in convolutions] == [
        (2, 32, (5, 5)),
        (32, 32, (3, 3)),
        (32, 64, (3, 3)),
        (64, 96, (3, 3)),
        (96, 128, (3, 3)),
    ]
    assert {conv.stride for conv in convolutions} == {(1, 1)}
    # weights + batch norm + squeeze-excitation (down and up with biases)
    stem = 2 * 32 * 25 + 2 * 32
    stages = [
        32 * 32 * 9 + 2 * 32 + (32 * 8 + 8) + (8 * 32 + 32),
        32 * 64 * 9 + 2 * 64 + (64 * 8 + 8) + (8 * 64 + 64),
        64 * 96 * 9 + 2 * 96 + (96 * 12 + 12) + (12 * 96 + 96),
        96 * 128 * 9 + 2 * 128 + (128 * 16 + 16) + (16 * 128 + 128),
    ]
    head = 128 * 10 + 10
    assert sum(p.numel() for p in model.parameters()) == stem + sum(stages) + head == 205430
    assert model.embedding_size == 128


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    values = tiny_spec().to_json() | {"name": "spec_cn"}
    with pytest.raises(ModelFileError, match=r'here: there is no model "spec_cn"\. Did you mean "spec_cnn"\?'):
        ModelSpec.from_json(values, "here")


def test_every_name_of_model_as_settings_is_registered() -> None:
    names = SpecCnnConfig.model_fields["name"].annotation.__args__  # type: ignore[union-attr]
    assert set(names) <= set(MODELS)
