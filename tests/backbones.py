"""Stand-ins for published backbones: transformers checkpoints with random weights, in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from tests.tiny import BACKBONE


def make_backbone(family: str, **over: Any) -> Any:
    """A small network of a family with random weights, as transformers builds it."""
    torch.manual_seed(0)
    if family == "sew":  # which has a convolution more between any two
        over = {"conv_dim": [16] * 13} | over
    return AutoModel.from_config(AutoConfig.for_model(family, **BACKBONE | over)).eval()


def save_backbone(folder: Path, family: str = "wav2vec2", **over: Any) -> str:
    """Saves such a network and gives its folder as a source."""
    return save(make_backbone(family, **over), folder)


def save_base(folder: Path, family: str) -> str:
    """Saves a network of a family with the real shapes of its base model."""
    torch.manual_seed(0)
    return save(AutoModel.from_config(AutoConfig.for_model(family)), folder)


def save(network: Any, folder: Path) -> str:
    logging.disable_progress_bar()
    network.save_pretrained(folder)
    return str(folder)
