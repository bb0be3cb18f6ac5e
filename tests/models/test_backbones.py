"""Where backbones come from, and what is said when they do not come."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from esc_ensemble.errors import ConfigError, EscError, ModelFileError
from esc_ensemble.models import backbones
from esc_ensemble.models.backbones import Backbone, build_backbone, load_weights, read_backbone
from esc_ensemble.models.bundles import BUNDLES, names_of_transformers
from tests.backbones import make_backbone, save, save_backbone


def load(source: str) -> Any:
    backbone = read_backbone(source)
    network = build_backbone(backbone)
    load_weights(source, network)
    return network


@pytest.mark.parametrize("family", backbones.FAMILIES)
def test_a_folder_gives_its_weights(family: str, tmp_path: Path) -> None:
    network = make_backbone(family)
    loaded = load(save(network, tmp_path)).state_dict()
    assert loaded.keys() | {"masked_spec_embed"} == network.state_dict().keys() | {"masked_spec_embed"}
    for name, tensor in loaded.items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_weights_of_a_pretraining_checkpoint_and_of_older_files_are_found(tmp_path: Path) -> None:
    network = make_backbone("wav2vec2")
    source = save(network, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    old = {
        "wav2vec2."
        + name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor.half()
        for name, tensor in network.state_dict().items()
    }
    torch.save(old | {"quantizer.codevectors": torch.zeros(1, 4, 2)}, tmp_path / "pytorch_model.bin")
    for name, tensor in load(source).state_dict().items():
        torch.testing.assert_close(tensor, network.state_dict()[name].half().float(), msg=name)


def test_no_layer_is_dropped_and_nothing_is_masked(tmp_path: Path) -> None:
    config = load(save_backbone(tmp_path, layerdrop=0.3, mask_time_prob=0.5)).config
    assert (config.layerdrop, config.mask_time_prob, config.apply_spec_augment) == (0.0, 0.0, False)


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def replace_by_bert(folder: Path) -> None:
    shutil.rmtree(folder)
    tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    save(BertModel(tiny), folder)


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (shutil.rmtree, "does not exist.*config.json and model.safetensors.*Kaggle"),
        (lambda folder: (folder / "config.json").unlink(), "config.json.*--model.source"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors.*--model.source"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "damaged"),
        (cut, "damaged"),
        (replace_by_bert, 'a model of type "bert".*Known types: wav2vec2'),
        (lambda folder: change_config(folder, num_hidden_layers=6), "lacks .* encoder.layers.4"),
        (lambda folder: change_config(folder, hidden_size=32), "shape"),
        (lambda folder: change_config(folder, model_type="wavlm"), "lacks"),
        (lambda folder: change_config(folder, num_attention_heads=5), "cannot be built"),
        (lambda folder: change_config(folder, conv_dim=[16]), "convolutional layers is incorrect"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("["), "preprocessor_config.json"),
    ],
)
def test_a_folder_that_holds_no_backbone_is_refused_with_what_is_wanted(
    harm: Any, message: str, tmp_path: Path
) -> None:
    source = save_backbone(tmp_path / "backbone")
    harm(tmp_path / "backbone")
    with pytest.raises(ModelFileError, match=f"(?s){message}"):
        load(source)


def test_a_file_is_refused(tmp_path: Path) -> None:
    source = save_backbone(tmp_path)
    with pytest.raises(ModelFileError, match="wants the folder"):
        read_backbone(f"{source}/config.json")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "run",)

    source = save_backbone(tmp_path / "backbone")
    (tmp_path / "backbone" / "model.safetensors").unlink()
    torch.save({"encoder.layer_norm.weight": Evil()}, tmp_path / "backbone" / "pytorch_model.bin")
    with pytest.raises(ModelFileError):
        load(source)
    assert not (tmp_path / "run").exists()


def test_without_a_network_the_files_and_their_places_are_named(no_network: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        read_backbone("facebook/wav2vec2-base")
    message = str(caught.value)
    for part in (
        "facebook/wav2vec2-base",
        "config.json",
        "model.safetensors",
        "hf download facebook/wav2vec2-base --local-dir",
        "--model.source FOLDER",
        "/kaggle/input",
    ):
        assert part in message, part


def test_without_a_network_a_bundles_file_and_place_are_named(no_network: Path) -> None:
    source = "torchaudio:WAVLM_BASE_PLUS"
    backbone = read_backbone(source)
    assert (backbone.n_blocks, backbone.normalize, backbone.sample_rate) == (12, False, 16000)
    small = make_backbone("wavlm")
    with pytest.raises(ModelFileError) as caught:
        load_weights(source, small)
    message = str(caught.value)
    assert str(no_network / "torch" / "hub" / "checkpoints" / "wavlm_base_plus.pth") in message
    assert "https://download.pytorch.org/torchaudio/models/wavlm_base_plus.pth" in message
    assert "TORCH_HOME" in message


def test_a_bundles_file_that_is_cut_short_is_refused(no_network: Path) -> None:
    path = no_network / "torch" / "hub" / "checkpoints" / "wavlm_base_plus.pth"
    path.parent.mkdir(parents=True)
    torch.save({"x": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match=r"WAVLM_BASE_PLUS"):
        load_weights("torchaudio:WAVLM_BASE_PLUS", make_backbone("wavlm"))


def test_a_bundle_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match='Did you mean "WAVLM_BASE_PLUS"'):
        read_backbone("torchaudio:WAVLM_BASEPLUS")


def test_every_bundle_is_described_as_torchaudio_builds_it() -> None:
    for name in BUNDLES:
        assert read_backbone(f"torchaudio:{name}").n_blocks in (12, 24)


@pytest.mark.parametrize("values", [None, {}, {"architecture": 3}, {"architecture": {}, "normalize": 1}])
def test_a_damaged_description_is_refused(values: Any) -> None:
    with pytest.raises(EscError, match="damaged"):
        Backbone.from_json(values, "model.json")


def test_names_of_torchaudio_become_those_of_transformers() -> None:
    given = {
        "encoder.transformer.layers.0.attention.attention.in_proj_weight": torch.arange(6.0).view(6, 1),
        "encoder.transformer.layers.0.attention.attention.out_proj.bias": torch.ones(2),
        "encoder.transformer.pos_conv_embed.conv.weight_g": torch.ones(1),
        "encoder.feature_projection.layer_norm.bias": torch.ones(2),
        "feature_extractor.conv_layers.0.conv.weight": torch.ones(1),
    }
    found = names_of_transformers(given)
    assert set(found) == {
        *(f"encoder.layers.0.attention.{part}_proj.weight" for part in "qkv"),
        "encoder.layers.0.attention.out_proj.bias",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
        "feature_projection.layer_norm.bias",
        "feature_extractor.conv_layers.0.conv.weight",
    }
    assert found["encoder.layers.0.attention.k_proj.weight"].ravel().tolist() == [2.0, 3.0]
