"""What each augmentation makes of a clip: sound and log-mel picture, by the code and settings of training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esc_ensemble.augment.mixing import mix_features, mix_waveforms
from esc_ensemble.augment.waveform import augment_waveform
from esc_ensemble.config import AugmentConfig, MixConfig, TrainAConfig
from esc_ensemble.features.frontend import SpectrogramFrontend
from esc_ensemble.features.specaugment import bend_bands, spec_augment
from esc_ensemble.report.clips import audio_uri, axes, limits, narrowed, png_uri, to_bytes

N_DRAWS, N_MIXES = 4, 16
"""Random draws of each augmentation, of which the one that changes the clip most is shown, and of each mix, of which
the one nearest to equal parts is."""
SPEC_SETTINGS = ("time_masks", "time_mask_max", "frequency_masks", "frequency_mask_max")


def probabilities(config: AugmentConfig | MixConfig) -> dict[str, float]:
    """Returns the probability in training of each augmentation or mix, by the name of its setting."""
    described = {name: field.description or "" for name, field in type(config).model_fields.items()}
    return {name: getattr(config, name) for name, text in described.items() if text.startswith("Probability")}


def front_end(config: TrainAConfig) -> SpectrogramFrontend:
    """Builds the front end of the settings, with both channels whether or not the network sees both."""
    both = config.frontend.model_copy(update={"channels": ("logmel", "pcen")})
    return SpectrogramFrontend(both, config.data.sample_rate).eval()


@torch.inference_mode()
def augmented(
    waveform: np.ndarray,
    partner: np.ndarray | None,
    names: tuple[str, str],
    config: TrainAConfig,
    frontend: SpectrogramFrontend,
    *,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Applies each augmentation alone, with probability 1, and each mix, and draws what comes out.

    Args:
        waveform: (T,) float32.
        partner: the clip to mix with, (T,); None leaves out the mixes.
        names: the classes of the two.
        config: the settings of training.
        frontend: makes features of waveforms.
        seed: start of the random numbers.

    Yields:
        First the clip itself, then each augmentation and mix: `name`, `note` with settings and labels, `media` for the
        player, with sound where the waveform changes.
    """
    clip = torch.from_numpy(np.ascontiguousarray(waveform))[None]  # (1, T)
    original = frontend(clip)
    between = limits(narrowed(original[0, 0].numpy()))
    rate = config.data.sample_rate

    seconds = round(len(waveform) / rate, 4)

    def shown(name: str, note: str, new: Tensor, features: Tensor, *, sounds: bool) -> dict[str, Any]:
        picture = {"title": "log-mel", "uri": png_uri(to_bytes(narrowed(features[0].numpy()), between))}
        media = {"pictures": [picture], "seconds": seconds, "own": seconds, **axes(frontend, features.shape[2], rate)}
        media["audio"] = audio_uri(new.numpy(), rate) if sounds else ""
        return {"name": name, "note": note, "media": media}

    yield shown("unchanged", "", clip[0], original[0], sounds=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        all_off = dict.fromkeys(probabilities(config.augment), 0.0)
        for name, probability in probabilities(config.augment).items():
            alone = config.augment.model_copy(update={**all_off, name: 1.0})
            new = augment_waveform(clip.repeat(N_DRAWS, 1), alone, rate)  # (1, T) -> (draws, T)
            features = spec_augment(bend_bands(frontend(new), alone), alone)
            most = int((features - original).abs().mean(dim=(1, 2, 3)).argmax())
            title = "SpecAugment" if name == "spec_probability" else name
            note = _describe(config.augment, name, probability)
            yield shown(title, note, new[most], features[most], sounds=not torch.equal(new[most], clip[0]))
        if partner is None:
            return
        pair = torch.stack([clip[0], torch.from_numpy(np.ascontiguousarray(partner))])  # (2, T)
        for name, probability in probabilities(config.mix).items():
            best: tuple[float, Tensor, Tensor, list[float]] | None = None
            for _ in range(N_MIXES):  # a clip may be its own partner
                mixed, targets = mix_waveforms(pair, torch.eye(2), name, config.mix, rate)
                features, targets = mix_features(frontend(mixed), targets, name, config.mix)
                apart = float((targets[0, 0] - targets[0, 1]).abs())
                if best is None or apart < best[0]:
                    best = apart, mixed[0], features[0], targets[0].tolist()
            assert best is not None
            _, new, mixed_features, target = best
            label = ", ".join(f"{title} {share:.2f}" for title, share in zip(names, target, strict=True))
            note = f"{_describe(config.mix, name, probability)}; label: {label}"
            yield shown(name, note, new, mixed_features, sounds=not torch.equal(new, clip[0]))


def _describe(config: AugmentConfig | MixConfig, name: str, probability: float) -> str:
    """Returns the probability and the other settings of an augmentation or a mix, as text."""
    others = [each for each in probabilities(config) if each != name and name in each]
    fields = [
        field
        for field in type(config).model_fields
        if field.startswith(f"{name}_") and not field.startswith(tuple(f"{each}_" for each in others))
    ]
    values = {field: getattr(config, field) for field in (SPEC_SETTINGS if name == "spec_probability" else fields)}
    settings = [
        f"{field} {' to '.join(f'{each:g}' for each in value) if isinstance(value, tuple) else f'{value:g}'}"
        for field, value in values.items()
    ]
    return ", ".join([f"probability {probability:g}" if probability else "off in training", *settings])
