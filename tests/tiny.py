"""The smallest settings that go the whole way, and small things made with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from esc_ensemble.config import AugmentConfig, BackboneConfig, TrainAConfig, TrainBConfig
from esc_ensemble.models.backbones import Backbone
from esc_ensemble.models.registry import MODELS, ModelSpec
from esc_ensemble.settings import build, merge, to_yaml

SETTINGS: dict[str, Any] = {
    "shift_seconds": [-0.1, 0.0, 0.1],
    "data": {"sample_rate": 8000, "clip_seconds": 1.0, "selection_fraction": 0.0},
    "frontend": {"n_fft": 512, "window": 400, "hop": 640, "n_mels": 16, "f_max": 4000.0},
    "augment": {"time_mask_max": 4, "frequency_mask_max": 4},
    "model": {"widths": [8, 16]},
    "train": {
        "epochs": 2,
        "batch_size": 16,
        "precision": "fp32",
        "device": "cpu",
        "threads": 1,
        "schedule": "onecycle",
        "patience": 0,
    },
}
N_CLASSES = 3
# A wav2vec2-like network of four blocks.
BACKBONE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
# Every random change switched off.
NO_AUGMENT: dict[str, Any] = {
    name: 0.0 for name, field in AugmentConfig.model_fields.items() if (field.description or "").startswith("Prob")
}


def tiny_config(**over: Any) -> TrainAConfig:
    return build(TrainAConfig, merge(SETTINGS, over), "tiny")


def tiny_spec(name: str = "spec_cnn", **over: Any) -> ModelSpec:
    """The spec of a registered model, made small where its settings have widths."""
    kind, _ = MODELS[name]
    values: dict[str, Any] = {"name": name}
    if "widths" in kind.model_fields:
        values["widths"] = SETTINGS["model"]["widths"]
    if "scale" in kind.model_fields:
        values["scale"] = 1
        over = merge({"frontend": {"n_mels": 40}}, over)
    config = tiny_config(**over | {"model": {}})
    model = build(kind, merge(values, over.get("model", {})), "tiny")
    class_names = tuple(f"class {n}" for n in range(N_CLASSES))
    if kind is BackboneConfig:
        backbone = Backbone({"model_type": "wav2vec2", **BACKBONE}, normalize=True, sample_rate=config.data.sample_rate)
        return ModelSpec(model, None, config.data, class_names, backbone)
    return ModelSpec(model, config.frontend, config.data, class_names)


def write_config(path: Path, **over: Any) -> Path:
    path.write_text(to_yaml(tiny_config(**over)))
    return path


def tiny_b(source: str, **over: Any) -> TrainBConfig:
    """The smallest settings of model B on a backbone at `source`, at 16 kHz."""
    values = {
        "shift_seconds": [0.0, 0.1],
        "data": {"clip_seconds": 1.0},
        "augment": {"time_mask_max": 4, "frequency_mask_max": 4},
        "frontend": {"views": 2},
        "train": {"epochs": 3, "precision": "fp32", "device": "cpu", "threads": 1},
        "model": {"source": source, "unfreeze": 2, "attention_size": 8},
    }
    return build(TrainBConfig, merge(values, over), "tiny")
