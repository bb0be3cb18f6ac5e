"""Pretraining without labels against transformers' own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, Wav2Vec2ForPreTraining

from esc_ensemble.config import MaskedModelConfig, MaskingConfig
from esc_ensemble.errors import ConfigError
from esc_ensemble.models.backbones import build_backbone, load_weights, read_backbone
from esc_ensemble.models.masked import (
    MaskedWav2Vec2,
    build_masked_model,
    contrastive_logits,
    describe_masked,
    draw_hidden,
    draw_negatives,
    save_backbone,
)
from tests.backbones import save_backbone as save_stand_in

SMALL = MaskedModelConfig(
    conv_size=16, hidden_size=16, n_blocks=2, n_heads=2, feed_forward=32, codewords=8, code_size=8, dropout=0.0
)
MASKING = MaskingConfig(negatives=7, span=4)


@pytest.fixture
def model() -> MaskedWav2Vec2:
    torch.manual_seed(0)
    return build_masked_model(SMALL, describe_masked(SMALL, MASKING, 16000, True)).eval()


@pytest.mark.parametrize("other_negatives", [0, 5])
def test_the_loss_is_transformers_own(model: MaskedWav2Vec2, other_negatives: int) -> None:
    torch.manual_seed(1)
    waveform = torch.randn(3, 16000)
    masking = MASKING.model_copy(update={"other_negatives": other_negatives})
    hidden = draw_hidden(3, model.n_frames(16000), masking)
    negatives = draw_negatives(hidden, masking)
    places = torch.zeros((*hidden.shape, negatives.shape[1]), dtype=torch.int64)
    places[hidden] = negatives
    normalized = (waveform - waveform.mean(1, keepdim=True)) / waveform.std(1, keepdim=True, correction=0)
    with torch.no_grad():
        theirs = model.network(normalized, mask_time_indices=hidden, sampled_negative_indices=places)
        ours = model(waveform, hidden, negatives)
    n_hidden = hidden.sum()
    assert float(ours.contrast) == pytest.approx(float(theirs.contrastive_loss / n_hidden), rel=1e-5)
    assert float(ours.diversity) == pytest.approx(float(theirs.diversity_loss / n_hidden), rel=1e-5)


@given(n_frames=st.integers(5, 60), span=st.integers(1, 12), share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_hidden_frames_come_in_spans_and_negatives_are_other_hidden_frames(
    n_frames: int, span: int, share: float, seed: int
) -> None:
    torch.manual_seed(seed)
    masking = MaskingConfig(span=span, share=share, negatives=3, other_negatives=2)
    try:
        hidden = draw_hidden(4, n_frames, masking)
    except ConfigError:
        assert span < 2 or span >= n_frames
        return
    assert hidden.shape == (4, n_frames)
    for row in hidden.tolist():
        runs = "".join("x" if here else " " for here in row).split()
        assert runs and all(len(run) >= span for run in runs)
    negatives = draw_negatives(hidden, masking)
    assert negatives.shape == (int(hidden.sum()), 3 + 2)
    for (clip, frame), chosen in zip(hidden.nonzero().tolist(), negatives, strict=True):
        assert hidden.flatten()[chosen].all()
        assert (chosen != clip * n_frames + frame).all()
        assert (chosen // n_frames == clip).tolist() == [True] * 3 + [False] * 2


def test_negatives_are_drawn_alike() -> None:
    torch.manual_seed(0)
    hidden = torch.tensor([[True, False, True, True, True], [False, True, False, False, True], [True] * 5])
    drawn = draw_negatives(hidden, MaskingConfig(negatives=9000, other_negatives=9000))[1]  # of frame 2 of clip 0
    own, others = (torch.bincount(part, minlength=15) / 9000 for part in drawn.split(9000))
    np.testing.assert_allclose(own, [1 / 3, 0, 0, 1 / 3, 1 / 3, *[0] * 10], atol=0.02)
    np.testing.assert_allclose(others, [*[0] * 6, 1 / 4, 0, 0, 1 / 4, *[1 / 10] * 5], atol=0.02)


def test_a_negative_of_the_same_codewords_is_out_of_question() -> None:
    guess = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [3.0, 4.0]]])
    target = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [9.0, 9.0]]])
    hidden = torch.tensor([[True, True], [True, False]])
    logits = contrastive_logits(guess, target, hidden, torch.tensor([[1, 2], [0, 2], [1, 0]]))
    assert logits.tolist() == [[1.0, 0.0, -np.inf], [1.0, 0.0, 0.0], [1.0, 0.0, -np.inf]]


def test_what_is_hidden_is_not_heard(model: MaskedWav2Vec2) -> None:
    """Guesses at hidden frames must not change with what is heard there alone."""
    torch.manual_seed(0)
    hidden = torch.ones(1, model.n_frames(16000), dtype=torch.bool)
    with torch.no_grad():
        guesses = [model.network(torch.randn(1, 16000), mask_time_indices=hidden).projected_states for _ in range(2)]
    torch.testing.assert_close(guesses[0], guesses[1])


def test_the_folder_is_a_checkpoint_of_transformers_and_a_source_of_ours(model: MaskedWav2Vec2, tmp_path: Path) -> None:
    save_backbone(tmp_path, model)
    again, told = Wav2Vec2ForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    waveform = torch.randn(1, 16000)
    with torch.no_grad():
        torch.testing.assert_close(
            again.wav2vec2.eval()(waveform).last_hidden_state,
            AutoModel.from_pretrained(tmp_path).eval()(waveform).last_hidden_state,
        )
    backbone = read_backbone(str(tmp_path))
    assert (backbone.n_blocks, backbone.normalize, backbone.sample_rate) == (2, True, 16000)
    network = build_backbone(backbone).eval()
    load_weights(str(tmp_path), network)
    with torch.no_grad():
        expected = model.network.wav2vec2.eval()(waveform).last_hidden_state
        torch.testing.assert_close(network(waveform).last_hidden_state, expected)


def test_it_goes_on_with_a_checkpoint_and_its_codebooks(model: MaskedWav2Vec2, tmp_path: Path) -> None:
    save_backbone(tmp_path, model)
    further = SMALL.model_copy(update={"source": str(tmp_path)})
    again = build_masked_model(further, describe_masked(further, MASKING, 16000, True))
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_what_cannot_be_gone_on_with_is_refused(tmp_path: Path) -> None:
    wavlm = MaskedModelConfig(source=save_stand_in(tmp_path / "wavlm", "wavlm"))
    with pytest.raises(ConfigError, match="is a wavlm"):
        describe_masked(wavlm, MASKING, 16000, True)
    bare = MaskedModelConfig(source=save_stand_in(tmp_path / "bare"))
    with pytest.raises(ConfigError, match="hears 16000 Hz"):
        describe_masked(bare, MASKING, 8000, True)
    with pytest.raises(ConfigError, match="normalize to be true"):
        describe_masked(bare, MASKING, 16000, False)
    fresh = build_masked_model(bare, describe_masked(bare, MASKING, 16000, True))  # codebooks of its own
    assert fresh.network.quantizer.codevectors.isfinite().all()


def test_a_clip_without_room_for_spans_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"masking\.span 4 does not fit into the 3 frames"):
        draw_hidden(2, 3, MaskingConfig())


def test_checkpointing_changes_no_gradient(model: MaskedWav2Vec2) -> None:
    torch.manual_seed(0)
    waveform = torch.randn(2, 16000)
    hidden = draw_hidden(2, model.n_frames(16000), MASKING)
    negatives = draw_negatives(hidden, MASKING)
    model.train()
    grads = []
    for wanted in (False, True):
        model.checkpointing = wanted
        assert model.checkpointing is wanted
        model.zero_grad()
        torch.manual_seed(2)
        model(waveform, hidden, negatives).contrast.backward()
        grads.append(model.network.wav2vec2.encoder.layers[0].attention.q_proj.weight.grad.clone())
    torch.testing.assert_close(grads[0], grads[1])
