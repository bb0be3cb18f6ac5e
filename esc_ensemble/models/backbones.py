"""Pretrained speech and audio backbones: where their weights come from, and what they say of themselves.

A source is a folder with a transformers checkpoint, a model id of the Hugging Face hub, or `torchaudio:NAME` for one
of torchaudio's bundles. All give weights under the names of transformers' models. Weights are never unpickled beyond
tensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging import ERROR, getLogger
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from esc_ensemble.errors import EscError, ModelFileError
from esc_ensemble.home import expand_home
from esc_ensemble.models.bundles import BUNDLE_PREFIX, bundle_file, bundle_weights, describe_bundle
from esc_ensemble.progress import say

FAMILIES = (
    *("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio"),
    *("sew", "wav2vec2-conformer"),
)
"""Values of `model_type` whose models have a convolutional encoder, a projection, and a stack of blocks."""
EAGER = ("wavlm", "wav2vec2-conformer", "sew")
"""Families whose attention has to be asked to be plain: WavLM has no other, the others export no other."""
NEVER_TRAINED = ("masked_spec_embed",)
"""Weights that only pretraining uses: checkpoints may lack them."""
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
EXAMPLE = "facebook/wav2vec2-base"
SAMPLE_RATE = 16000
"""Rate in Hz of a checkpoint that does not say."""

HOW_TO_GET = (
    "Needed is a folder with config.json and model.safetensors (or pytorch_model.bin), and preprocessor_config.json "
    "where there is one: `hf download {name} --local-dir FOLDER` on a machine with internet, then "
    "--model.source FOLDER. On Kaggle, add these files as a dataset or model and give its folder below /kaggle/input."
)


@dataclass(frozen=True)
class Backbone:
    """What a source says of a network; with its settings, enough to build it again without the source."""

    architecture: Mapping[str, Any]
    """transformers' configuration as plain values, `model_type` among them."""
    normalize: bool
    """Whether waveforms are to have mean 0 and variance 1, as its pretraining did."""
    sample_rate: int
    """In Hz."""

    @property
    def n_blocks(self) -> int:
        """Number of transformer blocks."""
        return int(self.architecture["num_hidden_layers"])

    def least_samples(self, n_frames: int = 1) -> int:
        """Number of samples of the shortest waveform that its convolutions turn into so many frames."""
        n_samples = n_frames * int(self.architecture.get("squeeze_factor", 1))  # SEW averages frames
        kernels, strides = self.architecture["conv_kernel"], self.architecture["conv_stride"]
        for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
            n_samples = (n_samples - 1) * stride + kernel
        return n_samples

    def to_json(self) -> dict[str, Any]:
        """Gives the plain values that `from_json` reads."""
        return {
            "architecture": dict(self.architecture),
            "normalize": self.normalize,
            "sample_rate": self.sample_rate,
        }

    @classmethod
    def from_json(cls, values: Any, origin: str) -> Backbone:
        """Reads what `to_json` wrote.

        Raises:
            ModelFileError: a value is missing or of the wrong kind, or the network is of no family known here.
        """
        try:
            architecture, normalize, rate = values["architecture"], values["normalize"], values["sample_rate"]
            sound = isinstance(architecture, dict) and isinstance(normalize, bool) and int(rate) > 0
            family = architecture["model_type"]
        except (KeyError, TypeError, ValueError):
            sound, family = False, ""
        if not sound or family not in FAMILIES:
            raise ModelFileError(f"{origin}: the description of the backbone is damaged.")
        return cls(architecture, normalize, int(rate))


def read_backbone(source: str) -> Backbone:
    """Reads what a source says of its network, without its weights.

    Raises:
        ModelFileError: the source cannot be found, or holds a network of no family known here.
    """
    if source.startswith(BUNDLE_PREFIX):
        return Backbone(*describe_bundle(source))
    with _told(source):
        from transformers import AutoConfig  # noqa: PLC0415 - two seconds that only these models need

        place = _place(source)
        if not Path(place).is_dir():
            say(f"Asking the Hugging Face hub, or its cache, for {source}")
        config = AutoConfig.from_pretrained(place)
    family = config.model_type
    if family not in FAMILIES:
        raise ModelFileError(
            f'{source} holds a model of type "{family}", which does not hear waveforms in the way that is needed here. '
            f"Known types: {', '.join(FAMILIES)}."
        )
    hears = _read_preprocessor(source)
    # Group norm in the first layer makes a network deaf to level; those with layer norms were trained on normalised
    # waveforms. Both WavLM-base checkpoints were not.
    plain = family == "wavlm" and config.feat_extract_norm == "group"
    return Backbone(
        architecture=config.to_diff_dict() | {"num_hidden_layers": config.num_hidden_layers},
        normalize=bool(hears.get("do_normalize", not plain)),
        sample_rate=int(hears.get("sampling_rate", SAMPLE_RATE)),
    )


def require_weights(source: str) -> None:
    """Makes sure, before any work, that a folder has a file of weights, and that a bundle's are on disk.

    Raises:
        ModelFileError: they are not, and cannot be downloaded.
    """
    if source.startswith(BUNDLE_PREFIX):
        bundle_file(source)
    elif expand_home(source).is_dir() and not any((expand_home(source) / name).exists() for name in WEIGHT_FILES):
        raise ModelFileError(f"{source} has no file of weights. {HOW_TO_GET.format(name=EXAMPLE)}")


def build_backbone(backbone: Backbone) -> nn.Module:
    """Builds transformers' network with fresh random weights.

    It drops no layers, masks nothing by itself, and has no dropout inside attention.

    Raises:
        ModelFileError: the description does not make a network.
    """
    from transformers import AutoModel  # noqa: PLC0415

    return _build(backbone, AutoModel.from_config, {"apply_spec_augment": False, "mask_time_prob": 0.0})


def build_masked(backbone: Backbone) -> nn.Module:
    """Builds transformers' wav2vec2 with codebooks, as it is pretrained, with fresh random weights.

    Raises:
        ModelFileError: the description does not make a network.
    """
    from transformers import Wav2Vec2ForPreTraining  # noqa: PLC0415

    # It hides what it is told to hide; without a probability it would have no embedding for that.
    return _build(backbone, Wav2Vec2ForPreTraining, {"apply_spec_augment": True, "mask_time_prob": 0.5})


def _build(backbone: Backbone, kind: Callable[[Any], nn.Module], over: dict[str, Any]) -> nn.Module:
    from huggingface_hub.errors import StrictDataclassError  # noqa: PLC0415
    from transformers import AutoConfig  # noqa: PLC0415

    values = dict(backbone.architecture)
    family = values.pop("model_type")
    quiet: dict[str, Any] = {
        "layerdrop": 0.0,
        "mask_feature_prob": 0.0,
        "attention_dropout": 0.0,  # with it a CPU has no fused attention
    }
    if family in EAGER:
        quiet["attn_implementation"] = "eager"
    try:
        return kind(AutoConfig.for_model(family, **values | quiet | over))
    except (TypeError, ValueError, RuntimeError, AttributeError, ZeroDivisionError, StrictDataclassError) as error:
        raise ModelFileError(f"The backbone cannot be built from its description: {error}") from error


def load_weights(source: str, network: nn.Module) -> None:
    """Puts the source's weights into `network`, which `build_backbone` made from the same source.

    Raises:
        ModelFileError: the weights are missing or damaged, or do not fill the network.
    """
    with _told(source):
        weights = bundle_weights(source) if source.startswith(BUNDLE_PREFIX) else _checkpoint_weights(source)
    _fill(network, weights, source)


def load_masked_weights(source: str, network: Any) -> None:
    """Puts the source's weights into what `build_masked` made from it; its codebooks too, where it has them.

    Raises:
        ModelFileError: the weights are missing or damaged, or do not fill the network.
    """
    load_weights(source, network.wav2vec2)
    if source.startswith(BUNDLE_PREFIX):
        return
    from transformers import Wav2Vec2ForPreTraining  # noqa: PLC0415

    with _told(source):
        found = _checkpoint_weights(source, Wav2Vec2ForPreTraining)
    mine = network.state_dict()
    network.load_state_dict({name: found.get(name, tensor) for name, tensor in mine.items()})


def _fill(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    wanted = network.state_dict()
    absent = [name for name in wanted if name not in weights and name not in NEVER_TRAINED]
    if absent:
        raise ModelFileError(
            f"{source} lacks {len(absent)} of the network's {len(wanted)} weights, such as {absent[0]}: "
            "it is a checkpoint of another network than its config.json says, or not a whole one."
        )
    for name, tensor in wanted.items():
        if name in weights and weights[name].shape != tensor.shape:
            _refuse_shape(source, name, tuple(weights[name].shape), tuple(tensor.shape))
    network.load_state_dict({name: weights.get(name, tensor) for name, tensor in wanted.items()})


def _refuse_shape(source: str, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    raise ModelFileError(
        f"{source}: {name} has the shape {found}, its description asks for {wanted}: "
        "the two belong to different networks."
    )


# --- folders and the hub


def _place(source: str) -> str:
    """The source as transformers wants it. A path that is not there is told at once, and not asked of the hub."""
    path = expand_home(source)
    if path.is_dir():
        if (path / "manifest.json").exists() and not (path / "config.json").exists():  # a run of ours
            raise ModelFileError(
                f"{source} is a run, but holds no backbone. A run of `esc-ens pretrain wav2vec2` does once it is "
                "finished; one of `esc-ens pretrain train-b` is given as --init."
            )
        return str(path)
    if path.exists():
        raise ModelFileError(f"{source} is a file; --model.source wants the folder that it is in.")
    if source.startswith((".", "~", os.sep)) or source.count("/") != 1:
        beside = Path("runs", source)
        hint = f" Did you mean {beside}?" if beside.is_dir() else ""
        raise ModelFileError(f"{source} does not exist.{hint} {HOW_TO_GET.format(name=EXAMPLE)}")
    return source


def _read_preprocessor(source: str) -> dict[str, Any]:
    """What `preprocessor_config.json` says; nothing where there is none, as after `model.save_pretrained`."""
    from transformers.utils import cached_file  # noqa: PLC0415

    found = cached_file(
        _place(source),
        "preprocessor_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if found is None:
        return {}
    try:
        values = json.loads(Path(found).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{found} cannot be read: {error}.") from error
    return values if isinstance(values, dict) else {}


def _checkpoint_weights(source: str, kind: Any = None) -> dict[str, Tensor]:
    """A transformers checkpoint's weights under the names of one of its classes, the bare model's if not told."""
    from transformers import AutoModel  # noqa: PLC0415

    network, told = (kind or AutoModel).from_pretrained(
        _place(source), dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
    )
    for name, found, wanted in told["mismatched_keys"]:
        _refuse_shape(source, name, tuple(found), tuple(wanted))
    missing = set(told["missing_keys"])
    return {name: tensor for name, tensor in network.state_dict().items() if name not in missing}


@contextmanager
def _told(source: str) -> Iterator[None]:
    """Turns what can go wrong with other people's files and networks into one message."""
    from huggingface_hub.errors import StrictDataclassError  # noqa: PLC0415

    name = source if source.count("/") == 1 and not Path(source).exists() else EXAMPLE
    try:
        with _quiet():
            yield
    except EscError:
        raise
    except (SafetensorError, UnpicklingError, EOFError) as error:
        raise ModelFileError(f"The weights of {source} are damaged ({error}). Copy or download them again.") from error
    except (OSError, ValueError, KeyError, RuntimeError, StrictDataclassError) as error:
        said = str((isinstance(error, StrictDataclassError) and error.__cause__) or error).strip()
        first = said.splitlines()[0] if said else type(error).__name__
        raise ModelFileError(
            f"No backbone could be read from {source}: {first}\n{HOW_TO_GET.format(name=name)}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences transformers' bars and advice, and the hub's tale of its attempts."""
    from transformers.utils import logging  # noqa: PLC0415

    hub = getLogger("huggingface_hub")
    levels = logging.get_verbosity(), hub.level
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub.setLevel(ERROR)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(levels[0])
        hub.setLevel(levels[1])
        if bars:
            logging.enable_progress_bar()
