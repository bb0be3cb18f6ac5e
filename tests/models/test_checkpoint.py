from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from esc_ensemble.errors import ConfigError, ModelFileError
from esc_ensemble.models.checkpoint import load_checkpoint, read_spec, save_checkpoint
from esc_ensemble.models.registry import MODELS, build_model
from tests.tiny import tiny_spec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spec = tiny_spec()
    save_checkpoint(tmp_path, build_model(spec), spec, fold=3, run="here")
    return tmp_path


def change_json(folder: Path, **values: Any) -> None:
    path = folder / "model.json"
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "drop"}))


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("learnable", [False, True])
def test_a_model_comes_back_with_bit_equal_logits(tmp_path: Path, name: str, learnable: bool) -> None:
    spec = tiny_spec(name, frontend={"pcen": {"learnable": learnable}})
    model = build_model(spec)
    waves = 0.1 * torch.randn(8, 8000)
    model.train()(waves)  # moves the running statistics
    save_checkpoint(tmp_path, model, spec, fold=1, run="here")
    state = torch.random.get_rng_state()
    loaded, loaded_spec = load_checkpoint(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not loaded.training
    assert loaded_spec == spec
    assert torch.equal(loaded(waves), model.eval()(waves))


def test_model_json_says_where_the_weights_are_from(folder: Path) -> None:
    content = json.loads((folder / "model.json").read_text())
    assert (content["run"], content["fold"], content["name"]) == ("here", 3, "spec_cnn")
    assert content["class_names"] == ["class 0", "class 1", "class 2"]
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_weights_cut_short_are_refused(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelFileError, match=r"model\.safetensors is damaged"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFileError, match=f"{name} does not exist"):
        load_checkpoint(folder)


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    change_json(folder, arguments={"name": "spec_cnn", "widths": [8, 24], "dropout": 0.0})
    with pytest.raises(ModelFileError, match=r"model\.safetensors does not fit"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"schema": 2}, "schema"),
        ({"schema": "drop"}, "schema"),
        ({"name": "spec_cn"}, "Did you mean"),
        ({"name": ["spec_cnn"]}, "no model"),
        ({"frontend": "drop", "data": "drop"}, "lacks frontend, data"),
        ({"class_names": None}, "class_names"),
        ({"class_names": []}, "class_names"),
    ],
)
def test_a_model_json_that_is_not_ours_is_refused(folder: Path, values: dict[str, Any], text: str) -> None:
    change_json(folder, **values)
    with pytest.raises(ModelFileError, match=rf"model\.json.*{text}"):
        read_spec(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\x00"])
def test_a_damaged_model_json_is_refused(folder: Path, text: str) -> None:
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"model\.json"):
        read_spec(folder)


def test_an_unknown_setting_is_named(folder: Path) -> None:
    change_json(folder, arguments={"name": "spec_cnn", "width": [8]})
    with pytest.raises(ConfigError, match=r'model\.json.*\n.*"width".*Did you mean "widths"'):
        read_spec(folder)
