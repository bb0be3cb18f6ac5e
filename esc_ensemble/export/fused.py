"""A whole blend as one module: waveform in, probabilities out.

    waveform -> Listening: cut, fitted, at each rate, shift and front end -> Trunk, one a part -> Combination

The three are modules of their own, so that an exporter can write each kind of trunk once and copy it for all folds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from esc_ensemble.export.parts import Group, Mixing, Part, group_parts, heard_data
from esc_ensemble.features.fit import FitToLength
from esc_ensemble.features.frontend import SpectrogramFrontend
from esc_ensemble.features.resample import Resample
from esc_ensemble.models.base import AudioClassifier
from esc_ensemble.predict import middle, shift_samples


class FusedBlend(nn.Module):
    """Waveform (B, T) of any length at the blend's rate, the highest of its parts', to probabilities (B, C).

    Nothing is computed twice: parts of one front end, shifts and window share its features, and spectrogram front ends
    that differ in their bands alone share the DFT.
    """

    def __init__(self, parts: Sequence[Part], mixing: Mixing) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.groups = group_parts(parts)
        self.listening = Listening(parts, self.groups)
        self.fronts = nn.ModuleList([_front_after_listening(parts[group.parts[0]].model) for group in self.groups])
        self.trunks = nn.ModuleList([Trunk(part.model) for part in parts])
        self.combination = Combination(parts, mixing)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.combination(*self.logits(waveform))[0]

    def part_logits(self, waveform: Tensor) -> Tensor:
        """Gives each part's logits, the weighted mean over its shifts: (B, T) -> (number of parts, B, C)."""
        return self.combination(*self.logits(waveform))[1]

    def logits(self, waveform: Tensor) -> list[Tensor]:
        """Gives what each part says of each shift, (B, T) -> (S, B, C) for every part in its order."""
        logits: dict[int, Tensor] = {}
        for group, front, heard in zip(self.groups, self.fronts, self.listening(waveform), strict=True):
            features = front(heard)
            for part in group.parts:
                logits[part] = self.trunks[part](features).unflatten(0, (len(group.shifts), -1))
        return [logits[part] for part in range(len(self.trunks))]


class Listening(nn.Module):
    """Waveform (B, T) to what each group of parts hears: features (S·B, channels, F, L), or waveforms (S·B, W)."""

    def __init__(self, parts: Sequence[Part], groups: Sequence[Group]) -> None:
        super().__init__()
        own = heard_data(parts).sample_rate
        self.groups = groups
        self.fitted = list(dict.fromkeys(group.fitted for group in groups))
        self.fits = nn.ModuleList(
            [FitToLength(round(each.clip_seconds * own), each.fit, each.trim_db, own) for each in self.fitted]
        )
        rates = {group.sample_rate for group in groups} - {own}
        self.resamplers = nn.ModuleDict({str(rate): Resample(own, rate) for rate in sorted(rates)})
        self.frontends = nn.ModuleList([parts[group.parts[0]].model.frontend for group in groups])

    def forward(self, waveform: Tensor) -> list[Tensor]:
        sources: dict[object, Tensor] = {}
        shifted: dict[object, Tensor] = {}
        spectra: dict[object, Tensor] = {}
        heard = []
        for group, frontend in zip(self.groups, self.frontends, strict=True):
            source = self._source(waveform, group, sources)
            view = group.view
            if view not in shifted:
                moved = [shift_samples(source, shift, group.mode) for shift in group.shifts]
                shifted[view] = torch.cat([middle(each, group.n_window) for each in moved])  # (B, T) -> (S·B, W)
            if isinstance(frontend, SpectrogramFrontend):
                key = (view, frontend.mel.spectrum_key)
                if key not in spectra:
                    spectra[key] = frontend.mel.spectrum(shifted[view])
                heard.append(frontend.from_spectrum(spectra[key]))
            else:
                heard.append(shifted[view])
        return heard

    def _source(self, waveform: Tensor, group: Group, known: dict[object, Tensor]) -> Tensor:
        """The waveform cut, fitted and at a group's rate, each computed once."""
        if group.fitted not in known:
            known[group.fitted] = self.fits[self.fitted.index(group.fitted)](waveform)
        key = (group.fitted, group.sample_rate)
        if key not in known:
            name = str(group.sample_rate)
            fitted = known[group.fitted]
            known[key] = self.resamplers[name](fitted) if name in self.resamplers else fitted
        return known[key]


class Trunk(nn.Module):
    """Features of one part's front end, (S·B, ...), to its logits (S·B, C)."""

    def __init__(self, model: AudioClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        return self.model.forward_head(self.model.forward_features(features))


class Combination(nn.Module):
    """Logits of all parts, (S, B, C) each, to the blend's probabilities (B, C) and each part's logits (P, B, C).

    For every part the weighted mean over shifts and what it says (its evidence); then the weighted mean over parts, the
    blend's own temperature and a softmax, as `esc_ensemble.blend.combine.blend_probabilities` has it.
    """

    weights: Tensor
    """(P, C)."""
    shift_weights: Tensor
    """(P, largest S), zeros at the end."""
    temperatures: Tensor
    """(P,)."""
    bias: Tensor
    """(C,) or (1,)."""

    def __init__(self, parts: Sequence[Part], mixing: Mixing) -> None:
        super().__init__()
        self.mixing = mixing
        for name, values in {
            "weights": [_row(part.weight, len(part.spec.class_names)) for part in parts],
            "shift_weights": _padded([part.shift_weights for part in parts]),
            "temperatures": [part.temperature for part in parts],
            "bias": mixing.bias or (0.0,),
        }.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    def forward(self, *logits: Tensor) -> tuple[Tensor, Tensor]:
        shares = [self.shift_weights[part, : len(each)] for part, each in enumerate(logits)]
        means = torch.stack([torch.einsum("s,sbc->bc", own, each) for own, each in zip(shares, logits, strict=True)])
        mixed = (self.weights[:, None] * self._evidence(means)).sum(dim=0)  # (P, B, C) -> (B, C)
        if self.mixing.combiner == "arithmetic":
            if self.mixing.temperature == 1.0 and not self.mixing.bias:
                return mixed, means
            mixed = mixed.clamp(min=torch.finfo(mixed.dtype).tiny).log()
        return ((mixed + self.bias) / self.mixing.temperature).softmax(dim=1), means

    def _evidence(self, logits: Tensor) -> Tensor:
        """What parts say, in the form that is averaged (`esc_ensemble.blend.combine.evidence`): (P, B, C) -> same."""
        if self.mixing.combiner == "logits":
            return logits - logits.mean(dim=2, keepdim=True)
        if self.mixing.combiner == "rank":
            ahead = logits.unsqueeze(3) - logits.unsqueeze(2)  # (P, B, C, C): above 0 where a class beats another
            return (ahead > 0).to(logits.dtype).sum(dim=3) + 0.5 * ((ahead == 0).to(logits.dtype).sum(dim=3) - 1.0)
        log_probs = (logits / self.temperatures[:, None, None]).log_softmax(dim=2)
        return log_probs if self.mixing.combiner == "geometric" else log_probs.exp()


def _front_after_listening(model: AudioClassifier) -> nn.Module:
    """What stands between `Listening` and the trunk: a frozen trunk; of spectrograms nothing is left to do."""
    return nn.Identity() if isinstance(model.frontend, SpectrogramFrontend) else model.frontend


def _row(weight: float | tuple[float, ...], n_classes: int) -> list[float]:
    return list(weight) if isinstance(weight, tuple) else [weight] * n_classes


def _padded(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    longest = max(map(len, rows))
    return [[*row, *[0.0] * (longest - len(row))] for row in rows]
