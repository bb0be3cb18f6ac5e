"""Every way to find weights behind one interface: evidence and settings in, a mixture out.

What is given may be looked at, labels and all, and nothing else; `crossfit` sees to it that those are other clips than
the ones that are scored.
"""

from __future__ import annotations

import numpy as np

from esc_ensemble.blend.combine import COMBINERS, Mixture
from esc_ensemble.blend.methods import WEIGHTS, fit_logistic, weigh_shifts, with_temperature
from esc_ensemble.blend.objective import Evidence
from esc_ensemble.blend.search import search_mixture
from esc_ensemble.config import BlendConfig
from esc_ensemble.progress import Advance, stay_silent


def fit_mixture(evidence: Evidence, config: BlendConfig, advance: Advance = stay_silent, study: str = "") -> Mixture:
    """Finds the mixture of these members by the configured method.

    Args:
        evidence: labelled clips; none at all gives equal weights.
        config: method, combiner, objective, trials, seed.
        advance: moved on by `config.trials` in all.
        study: name of the Optuna study in a shared storage.
    """
    combiners = COMBINERS if config.combiner == "auto" else (config.combiner,)
    if not len(evidence.labels):
        advance(config.trials)
        return Mixture(combiners[0], np.full(evidence.n_members, 1.0 / evidence.n_members), evidence.equal_shifts)
    tuned = config.tta_weights == "tuned" and config.method != "uniform" and max(evidence.n_shifts) > 1
    shares = weigh_shifts(evidence, config.l2) if tuned else evidence.equal_shifts
    if evidence.n_members == 1 and config.method != "logistic":
        advance(config.trials)
        return with_temperature(evidence, Mixture(combiners[0], np.ones(1), shares))
    if config.method == "optuna":
        return search_mixture(evidence, combiners, shares, config, advance=advance, study_name=study)
    advance(config.trials)
    if config.method == "logistic":
        return fit_logistic(evidence, shares, config.l2)
    find = WEIGHTS[config.method]
    found = []
    for combiner in combiners:
        judge = evidence.judge(combiner, shares)
        mixture = with_temperature(evidence, Mixture(combiner, find(judge, config), shares))
        found.append((judge.loss(mixture.weights, mixture.temperature, config.objective), mixture))
    return min(found, key=lambda pair: pair[0])[1]  # of equal losses the first
