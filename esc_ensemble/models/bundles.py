"""torchaudio's pretrained bundles, described and named as transformers' models are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esc_ensemble.errors import ConfigError, ModelFileError, did_you_mean
from esc_ensemble.progress import say

BUNDLE_PREFIX = "torchaudio:"
BUNDLES = {
    "WAV2VEC2_BASE": "wav2vec2",
    "WAV2VEC2_LARGE": "wav2vec2",
    "WAV2VEC2_LARGE_LV60K": "wav2vec2",
    "WAV2VEC2_XLSR53": "wav2vec2",
    "HUBERT_BASE": "hubert",
    "HUBERT_LARGE": "hubert",
    "WAVLM_BASE": "wavlm",
    "WAVLM_BASE_PLUS": "wavlm",
    "WAVLM_LARGE": "wavlm",
}
"""torchaudio's bundles, and the family that each belongs to."""


def _bundle(source: str) -> tuple[str, Any]:
    name = source.removeprefix(BUNDLE_PREFIX)
    if name not in BUNDLES:
        raise ConfigError(f'torchaudio has no bundle "{name}" that is known here.{did_you_mean(name, BUNDLES)}')
    import torchaudio  # noqa: PLC0415

    return name, getattr(torchaudio.pipelines, name)


def describe_bundle(source: str) -> tuple[dict[str, Any], bool, int]:
    """What a bundle says of its network: transformers' configuration, whether it wants waveforms normalised, its rate.

    Raises:
        ConfigError: there is no such bundle.
    """
    name, bundle = _bundle(source)
    said = bundle._params
    convolutions = said["extractor_conv_layer_config"]
    architecture = {
        "model_type": BUNDLES[name],
        "feat_extract_norm": said["extractor_mode"].removesuffix("_norm"),
        "conv_dim": [dim for dim, _, _ in convolutions],
        "conv_kernel": [kernel for _, kernel, _ in convolutions],
        "conv_stride": [stride for _, _, stride in convolutions],
        "conv_bias": said["extractor_conv_bias"],
        "hidden_size": said["encoder_embed_dim"],
        "feat_proj_dropout": said["encoder_projection_dropout"],
        "num_conv_pos_embeddings": said["encoder_pos_conv_kernel"],
        "num_conv_pos_embedding_groups": said["encoder_pos_conv_groups"],
        "num_hidden_layers": said["encoder_num_layers"],
        "num_attention_heads": said["encoder_num_heads"],
        "attention_dropout": said["encoder_attention_dropout"],
        "intermediate_size": said["encoder_ff_interm_features"],
        "activation_dropout": said["encoder_ff_interm_dropout"],
        "hidden_dropout": said["encoder_dropout"],
        "do_stable_layer_norm": said["encoder_layer_norm_first"],
    }
    if BUNDLES[name] == "wavlm":
        architecture["num_buckets"] = said["encoder_num_buckets"]
        architecture["max_bucket_distance"] = said["encoder_max_distance"]
    return architecture, bool(bundle._normalize_waveform), int(bundle.sample_rate)


def bundle_weights(source: str) -> dict[str, Tensor]:
    """Reads a bundle's weights, as tensors only, under the names of transformers' models."""
    return names_of_transformers(torch.load(bundle_file(source), map_location="cpu", weights_only=True))


def bundle_file(source: str) -> Path:
    """Gives a bundle's file in torch hub's folder ($TORCH_HOME), downloaded where it is not there yet.

    Raises:
        ModelFileError: it is not there and cannot be downloaded.
    """
    _, bundle = _bundle(source)
    path = Path(torch.hub.get_dir()) / "checkpoints" / bundle._path
    url = f"https://download.pytorch.org/torchaudio/models/{bundle._path}"
    if not path.exists():
        say(f"Downloading {url} to {path.parent}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            raise ModelFileError(
                f"The weights of {source} are not at {path}, and {url} cannot be reached ({error}). "
                f"Download that file elsewhere and put it there, or set TORCH_HOME to a folder with hub/checkpoints/"
                f"{bundle._path} in it (on Kaggle, one below /kaggle/input)."
            ) from error
    return path


def names_of_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives weights of torchaudio's wav2vec2-like models the names that transformers' have."""
    named: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        key = re.sub(r"^encoder\.feature_projection\.", "feature_projection.", name)
        key = re.sub(r"^encoder\.transformer\.", "encoder.", key)
        key = key.replace("conv.weight_g", "conv.parametrizations.weight.original0")
        key = key.replace("conv.weight_v", "conv.parametrizations.weight.original1")
        key = key.replace("attention.attention.", "attention.")
        packed = re.fullmatch(r"(.*attention\.)in_proj_(weight|bias)", key)
        if packed:
            for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                named[f"{packed[1]}{part}_proj.{packed[2]}"] = chunk
        else:
            named[key] = tensor
    return named
