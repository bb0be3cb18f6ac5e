"""A finished blend upon the logits of new clips, with numpy alone: the same formula as the exported file's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from esc_ensemble.blend.combine import Mixture, blend_probabilities


@dataclass(frozen=True, eq=False)
class BlendPrediction:
    """What a blend and its members make of N clips."""

    probabilities: np.ndarray
    """(N, C) float32, of the blend."""
    members: tuple[str, ...]
    """Names of the M members that count, in the order of blend.json."""
    member_probabilities: np.ndarray
    """(M, N, C) float32: each by itself, as a blend of it alone would say."""


def counting_members(blend: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Gives the members of blend.json with a weight above 0; the others are not heard."""
    return [member for member in blend["members"] if member["weight"] > 0.0]


def apply_blend(blend: Mapping[str, Any], logits: Sequence[Sequence[np.ndarray]]) -> BlendPrediction:
    """Gives the probabilities of clips that no model of the blend was trained on.

    All fold models hear each clip. Of a member with K of them each counts with a K-th of its weight, at its own
    temperature, averaged over the member's shifts; then members are combined and the blend's own temperature and bias
    applied. `esc_ensemble.export.fused.FusedBlend` computes the same from waveforms.

    Args:
        blend: the content of blend.json.
        logits: for each member that counts, for each of its folds in their order there, (S, N, C) float32 at the
            member's shifts in their order there.
    """
    members = counting_members(blend)
    entries, temperatures, shares = [], [], []
    weights, alone = [], []
    for member, by_fold in zip(members, logits, strict=True):
        n_folds = len(member["folds"])
        share = np.array(member["shift_weights"])
        own = [float(member["temperatures"][str(fold)]) for fold in member["folds"]]
        entries += list(by_fold)
        temperatures += own
        shares += [share] * n_folds
        by_class = member["class_weights"] or [member["weight"]] * len(blend["class_names"])
        weights += [np.array(by_class) / n_folds] * n_folds
        itself = Mixture("geometric", np.full(n_folds, 1.0 / n_folds), (share,) * n_folds)
        alone.append(blend_probabilities(by_fold, own, itself))
    class_weights = np.stack(weights)  # (M·K, C)
    mixture = Mixture(
        combiner=blend["combiner"],
        weights=class_weights.mean(axis=1),
        shift_weights=tuple(shares),
        temperature=float(blend["temperature"]),
        class_weights=class_weights if any(member["class_weights"] for member in members) else None,
        bias=np.array(blend["bias"]) if blend["bias"] else None,
    )
    return BlendPrediction(
        probabilities=blend_probabilities(entries, temperatures, mixture),
        members=tuple(str(member["run"]) for member in members),
        member_probabilities=np.stack(alone),
    )
