"""Model B against transformers and torchaudio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchaudio
from torch import Tensor
from torchaudio.models.wav2vec2.utils import import_huggingface_model
from transformers import AutoFeatureExtractor, AutoModel, Wav2Vec2FeatureExtractor

from esc_ensemble.config import BackboneConfig, BackboneTrainConfig
from esc_ensemble.errors import ConfigError
from esc_ensemble.models.backbones import FAMILIES, Backbone, build_backbone, load_weights, read_backbone
from esc_ensemble.models.frozen_trunk import normalize_waveform, run_blocks
from esc_ensemble.models.pooling import FramePool
from esc_ensemble.models.wave_backbone import WaveBackbone
from tests.backbones import save_backbone, save_base

LARGE: dict[str, Any] = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}


def load(source: str, **over: Any) -> WaveBackbone:
    backbone = read_backbone(source)
    network = build_backbone(backbone)
    load_weights(source, network)
    config = BackboneConfig(**{"source": source, "unfreeze": 2, **over})
    return WaveBackbone(config, backbone, network, backbone.sample_rate, n_classes=3).eval()


def noise(n_clips: int = 2, n_samples: int = 12000) -> Tensor:
    return 0.1 * torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(1)) + 0.02


def all_states(model: WaveBackbone, waveform: Tensor) -> list[Tensor]:
    """Hidden states (B, L, D) of the frozen and of the unfrozen blocks."""
    states = model.frontend(waveform).transpose(2, 3)  # (B, S, D, L) -> (B, S, L, D)
    outputs = run_blocks(model.blocks, states[:, -1], model.positions(states[:, -1]))
    if outputs:
        outputs[-1] = model.layer_norm(outputs[-1])
    return [*states.unbind(1), *outputs]


@pytest.mark.parametrize("unfreeze", [0, 2, 4])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_hidden_states_are_those_of_transformers(family: str, large: bool, unfreeze: int, tmp_path: Path) -> None:
    if family in ("data2vec-audio", "sew", "wav2vec2-conformer") and large:
        pytest.skip("has one form only")
    source = save_backbone(tmp_path, family, **(LARGE if large else {}))
    model = load(source, unfreeze=unfreeze)
    waveform = normalize_waveform(noise(), torch.tensor([12000, 12000])) if model.frontend.normalize else noise()
    theirs = AutoModel.from_pretrained(source).eval()(waveform, output_hidden_states=True)
    ours = all_states(model, noise())
    assert len(ours) == len(theirs.hidden_states) == 5
    # The last of the large models stands before their last norm in `hidden_states`, which ours is behind.
    last = theirs.hidden_states[-1] if family == "sew" else theirs.last_hidden_state  # SEW's is spread over all frames
    for own, their in zip(ours, [*theirs.hidden_states[:-1], last], strict=True):
        torch.testing.assert_close(own, their, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("squeeze", [2, 3])
@torch.inference_mode()
def test_a_sew_whose_features_are_projected_and_squeezed(squeeze: int, tmp_path: Path) -> None:
    source = save_backbone(tmp_path, "sew", conv_dim=[16] * 12 + [24], squeeze_factor=squeeze)
    model = load(source)
    waveform = normalize_waveform(noise(), torch.tensor([12000, 12000]))
    theirs = AutoModel.from_pretrained(source).eval()(waveform, output_hidden_states=True)
    for own, their in zip(all_states(model, noise()), theirs.hidden_states, strict=True):
        torch.testing.assert_close(own, their, rtol=0.0, atol=1e-5)
    padded = torch.cat([noise(1, 8000), torch.zeros(1, 4000)], dim=1)
    heard = model.frontend(padded)[0, -1].ne(0.0).any(dim=0).sum()
    assert heard == model.frontend.feature_extractor(padded[:, :8000]).shape[2] // squeeze


@pytest.mark.parametrize(("name", "family"), [("WAV2VEC2_BASE", "wav2vec2"), ("WAVLM_BASE_PLUS", "wavlm")])
@torch.inference_mode()
def test_a_bundle_of_torchaudio_gives_torchaudios_features(
    name: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_base(tmp_path / "transformers", family)
    bundle = getattr(torchaudio.pipelines, name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / bundle._path
    path.parent.mkdir(parents=True)
    torch.save(import_huggingface_model(AutoModel.from_pretrained(source)).state_dict(), path)
    waveform = noise(1, 16000)
    theirs, _ = bundle.get_model().extract_features(waveform)
    model = load(f"torchaudio:{name}", unfreeze=4)
    for own, their in zip(all_states(model, waveform)[1:], theirs, strict=True):
        torch.testing.assert_close(own, their, rtol=0.0, atol=1e-4)
    assert not model.frontend.normalize
    same = load(source, unfreeze=4).frontend(noise(1, 16000))
    if not read_backbone(source).normalize:
        torch.testing.assert_close(model.frontend(noise(1, 16000)), same, rtol=0.0, atol=1e-4)


@torch.inference_mode()
def test_waveforms_are_normalised_as_transformers_does_it_padding_left_out(tmp_path: Path) -> None:
    waveform = noise(2, 6000)
    waveform[1, 4000:] = 0.0
    theirs = Wav2Vec2FeatureExtractor(do_normalize=True, padding_value=0.0, return_attention_mask=True)(
        [waveform[0].numpy(), waveform[1, :4000].numpy()], sampling_rate=16000, padding=True, return_tensors="pt"
    )["input_values"]
    torch.testing.assert_close(normalize_waveform(waveform, torch.tensor([6000, 4000])), theirs)


@torch.inference_mode()
def test_frames_after_the_sound_are_zero_and_not_pooled(tmp_path: Path) -> None:
    model = load(save_backbone(tmp_path, **LARGE))
    waveform = noise(2, 12000)
    waveform[1, 8000:] = 0.0
    states = model.frontend(waveform)
    n_heard = model.frontend.feature_extractor(waveform[1:, :8000]).shape[2]
    assert (states[1, :, :, n_heard:] == 0.0).all()
    assert (states[1, :, :, :n_heard] != 0.0).any(dim=1).all()
    assert (states[0] != 0.0).any(dim=1).all()
    frames, mask = torch.randn(1, 4, 9), torch.arange(9)[None] < 6
    for kind in ("attention", "mean", "statistics"):
        pool = FramePool(kind, 4, 8)
        torch.testing.assert_close(pool(frames, mask), pool(frames[:, :, :6], mask[:, :6]))


def test_poolings_are_what_they_are_called() -> None:
    frames, mask = torch.randn(3, 4, 7), torch.ones(3, 7, dtype=torch.bool)
    torch.testing.assert_close(FramePool("mean", 4, 8)(frames, mask), frames.mean(dim=2))
    expected = torch.cat([frames.mean(dim=2), frames.std(dim=2, correction=0)], dim=1)
    torch.testing.assert_close(FramePool("statistics", 4, 8)(frames, mask), expected)
    attention = FramePool("attention", 4, 8)
    for parameter in attention.score[2].parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(attention(frames, mask), frames.mean(dim=2))  # all frames alike: the mean


@torch.inference_mode()
def test_layers_are_added_by_a_softmax(tmp_path: Path) -> None:
    model = load(save_backbone(tmp_path), pooling="mean")
    model.layer_weights.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5]))
    states = torch.stack(all_states(model, noise()))  # (S, B, L, D)
    expected = (states * model.layer_weights.softmax(dim=0)[:, None, None, None]).sum(dim=0).mean(dim=1)
    torch.testing.assert_close(model.forward_features(model.frontend(noise())), expected)
    last = load(save_backbone(tmp_path), pooling="mean", fuse="last")
    assert last.frontend(noise()).shape[1] == 1
    torch.testing.assert_close(last.forward_features(last.frontend(noise())), states[-1].mean(dim=1))


@torch.inference_mode()
def test_frames_are_averaged_above_the_frozen_blocks(tmp_path: Path) -> None:
    source = save_backbone(tmp_path, "wavlm")
    plain, pooled = load(source).frontend(noise()), load(source, frame_pool=2).frontend(noise())
    n_frames = plain.shape[3]
    assert n_frames % 2 == 1
    assert pooled.shape[3] == (n_frames + 1) // 2
    torch.testing.assert_close(pooled[..., :-1], plain[..., :-1].unflatten(3, (-1, 2)).mean(dim=4))
    torch.testing.assert_close(pooled[..., -1], plain[..., -1])
    model = load(source, frame_pool=2)
    any_size = torch.export.Dim.DYNAMIC
    shapes = {"waveform": {0: any_size, 1: any_size}}
    exported = torch.export.export(model, (noise(),), dynamic_shapes=shapes).module(check_guards=False)
    for waveform in (noise(1), noise(3, 9000), noise(3, 9320)):
        torch.testing.assert_close(exported(waveform), model(waveform), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm"])
def test_only_the_last_blocks_pooling_and_head_learn(family: str, tmp_path: Path) -> None:
    model = load(save_backbone(tmp_path, family)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert not any(module.training for module in model.frontend.modules())
    assert all(module.training for module in model.blocks.modules())
    groups = model.parameter_groups(BackboneTrainConfig())
    optimizer = torch.optim.SGD([parameter for group in groups for parameter in group.parameters], lr=0.1)
    torch.nn.functional.cross_entropy(model(noise(4)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.partition(".")[0] for name in changed} == {"blocks", "layer_weights", "pool", "head"}
    assert {name.split(".")[1] for name in changed if name.startswith("blocks")} == {"0", "1"}


def test_rates_fall_from_block_to_block_and_blocks_thaw_from_the_top(tmp_path: Path) -> None:
    model = load(save_backbone(tmp_path), unfreeze=3)
    train = BackboneTrainConfig(learning_rate=1e-2, backbone_rate=1e-3, layer_decay=0.5, thaw_epochs=2)
    groups = model.parameter_groups(train)
    assert [group.name for group in groups] == ["pooling, head", "block 4", "block 3", "block 2"]
    assert [group.learning_rate for group in groups] == [1e-2, 1e-3, 5e-4, 2.5e-4]
    assert [group.first_epoch for group in groups] == [0, 2, 4, 6]
    named = {id(parameter) for group in groups for parameter in group.parameters}
    assert named == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def test_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = load(save_backbone(tmp_path, "wavlm", hidden_dropout=0.3)).train()
        model.checkpointing = checkpointing
        torch.manual_seed(3)
        model(noise(3)).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize(
    ("rate", "unfreeze", "message"),
    [(8000, 2, r"sample_rate is 8000, but .* hears 16000 Hz"), (16000, 5, r"unfreeze is 5, but .* has 4 blocks")],
)
def test_settings_that_the_backbone_cannot_follow_are_refused(
    rate: int, unfreeze: int, message: str, tmp_path: Path
) -> None:
    source = save_backbone(tmp_path)
    backbone = read_backbone(source)
    with pytest.raises(ConfigError, match=message):
        config = BackboneConfig(source=source, unfreeze=unfreeze)
        WaveBackbone(config, backbone, build_backbone(backbone), rate, n_classes=3)


def test_what_the_preprocessor_says_is_followed(tmp_path: Path) -> None:
    source = save_backbone(tmp_path)
    assert read_backbone(source).normalize  # nothing said: as most checkpoints want it
    Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=8000).save_pretrained(tmp_path)
    assert AutoFeatureExtractor.from_pretrained(source).do_normalize is False
    said = read_backbone(source)
    assert (said.normalize, said.sample_rate) == (False, 8000)
    assert not read_backbone(save_backbone(tmp_path / "wavlm", "wavlm")).normalize
    assert Backbone.from_json(said.to_json(), "here") == said
