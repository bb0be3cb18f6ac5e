"""The Optuna study: combiner, weights of members and of their shifts, and the blend's temperature."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from esc_ensemble.blend.calibrate import MAX_TEMPERATURE, MIN_TEMPERATURE
from esc_ensemble.blend.combine import Mixture
from esc_ensemble.blend.methods import Shares, greedy, lbfgs, with_temperature
from esc_ensemble.blend.objective import LINEAR, Evidence
from esc_ensemble.config import BlendConfig
from esc_ensemble.config.blend import Combiner, Objective
from esc_ensemble.errors import WorkError
from esc_ensemble.progress import Advance

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import Trial

# -log(u) of the lowest u is the largest raw weight, 20.7: any ratio of weights that matters can be reached.
LOWEST_U = 1e-9
# Share of random weightings before TPE models them; a TPE trial costs ten random ones. The error needs half of
# them to be TPE's; of the log loss L-BFGS has found the least before.
STARTUP_SHARE: dict[Objective, float] = {"error": 0.5, "log_loss": 0.9}


def search_mixture(
    evidence: Evidence,
    combiners: Sequence[Combiner],
    shares: Shares,
    config: BlendConfig,
    *,
    advance: Advance,
    study_name: str,
) -> Mixture:
    """Gives the best mixture found on these clips.

    The study draws u_i in (0, 1] and takes -log(u_i), normalised: exponential draws over their sum are uniform on the
    simplex (Dirichlet(1, ..., 1)), where uniform draws over their sum crowd its middle. It begins with equal weights,
    each single member, the greedy choice and what L-BFGS finds, under each combiner, so the result is never worse than
    those. Of equal losses the first tried wins, which makes equal weights the answer when nothing speaks against them.

    Args:
        evidence: labelled clips.
        combiners: those to choose from.
        shares: weights of shifts, as they are or, with `config.tta_weights` tuned, to begin with.
        config: objective, trials, seed, storage.
        advance: moved on by `config.trials` in all.
        study_name: beginning of the study's name in a shared storage.

    Raises:
        WorkError: the storage cannot be used.
    """
    space = Space(evidence, combiners, shares, tuned=config.tta_weights == "tuned" and max(evidence.n_shifts) > 1)
    tried = 0

    def loss(trial: Trial) -> float:
        # Moved on from here: a callback of the study costs a deep copy of each trial.
        nonlocal tried
        tried += 1
        if tried <= config.trials:
            advance(1)
        return space.loss(space.draw(trial), config.objective)

    starts = [space.point(mixture) for mixture in beginnings(evidence, combiners, shares, config)]
    with _quiet_optuna():
        import optuna  # noqa: PLC0415 - a quarter of a second that only searches need

        if config.storage:
            study = _shared_study(f"{study_name}-{_digest(evidence, config)}", starts, config)
            _work_along(study, loss, config.trials)
        else:
            study = optuna.create_study(sampler=_sampler(config, config.seed))
            for start in starts:
                study.enqueue_trial(start)
            study.optimize(loss, n_trials=config.trials)
        best = space.draw(optuna.trial.FixedTrial(study.best_params))
    if tried < config.trials:
        advance(config.trials - tried)
    return with_temperature(evidence, best)


class Space:
    """What a trial stands for: its parameters to a mixture, and back."""

    def __init__(self, evidence: Evidence, combiners: Sequence[Combiner], shares: Shares, *, tuned: bool) -> None:
        self.evidence = evidence
        self.combiners = combiners
        self.shares = shares
        self.tuned = tuned

    def draw(self, trial: Trial | Any) -> Mixture:
        """Gives the mixture that a trial proposes."""
        chosen = trial.suggest_categorical("combiner", self.combiners) if len(self.combiners) > 1 else None
        combiner: Combiner = chosen or self.combiners[0]
        weights = _to_weights([trial.suggest_float(f"u_{m}", LOWEST_U, 1.0) for m in range(self.evidence.n_members)])
        low, high = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
        temperature = float(np.exp(trial.suggest_float("log_temperature", low, high)))
        shares = self.shares
        if self._draws_shifts(combiner):
            shares = tuple(
                _to_weights([trial.suggest_float(f"u_{m}_{s}", LOWEST_U, 1.0) for s in range(n)])
                if n > 1
                else np.ones(1)
                for m, n in enumerate(self.evidence.n_shifts)
            )
        return Mixture(combiner, weights, shares, temperature)

    def point(self, mixture: Mixture) -> dict[str, Any]:
        """Gives the parameters that `draw` makes this mixture of: exp(-w) undoes -log(u), so weight 0 is u = 1."""
        point: dict[str, Any] = {"combiner": mixture.combiner} if len(self.combiners) > 1 else {}
        point |= {f"u_{m}": float(np.exp(-weight)) for m, weight in enumerate(mixture.weights)}
        point["log_temperature"] = float(np.log(mixture.temperature))
        if self._draws_shifts(mixture.combiner):
            for m, shares in enumerate(mixture.shift_weights):
                if len(shares) > 1:
                    point |= {f"u_{m}_{s}": float(np.exp(-share)) for s, share in enumerate(shares)}
        return point

    def loss(self, mixture: Mixture, objective: Objective) -> float:
        """Gives the mixture's loss."""
        if self._draws_shifts(mixture.combiner):
            judge = self.evidence.judge_shifts(mixture.combiner)
            shares = zip(mixture.weights, mixture.shift_weights, strict=True)
            weights = np.concatenate([weight * own for weight, own in shares])
        else:
            judge, weights = self.evidence.judge(mixture.combiner, mixture.shift_weights), mixture.weights
        return judge.loss(weights, mixture.temperature, objective)

    def _draws_shifts(self, combiner: Combiner) -> bool:
        """Whether weights of shifts are drawn: not for probabilities and ranks, which each draw would make anew."""
        return self.tuned and combiner in LINEAR


def beginnings(
    evidence: Evidence, combiners: Sequence[Combiner], shares: Shares, config: BlendConfig
) -> Iterator[Mixture]:
    """Gives the mixtures to begin with: equal weights and L-BFGS's of each combiner, greedy ones, single members."""
    n_members = evidence.n_members
    for combiner in combiners:
        yield with_temperature(evidence, Mixture(combiner, np.full(n_members, 1.0 / n_members), shares))
    for combiner in combiners:
        yield with_temperature(evidence, Mixture(combiner, lbfgs(evidence.judge(combiner, shares), config), shares))
    for combiner in combiners[:1]:
        yield with_temperature(evidence, Mixture(combiner, greedy(evidence.judge(combiner, shares), config), shares))
        for weights in np.eye(n_members):
            yield with_temperature(evidence, Mixture(combiner, weights, shares))


def _sampler(config: BlendConfig, seed: int | None) -> BaseSampler:
    from optuna.samplers import TPESampler  # noqa: PLC0415

    return TPESampler(seed=seed, n_startup_trials=max(10, int(STARTUP_SHARE[config.objective] * config.trials)))


def _shared_study(name: str, starts: Sequence[dict[str, Any]], config: BlendConfig) -> Study:
    """Opens a study that other workers may be at already; each draws random numbers of its own.

    Raises:
        WorkError: the storage cannot be opened.
    """
    import optuna  # noqa: PLC0415

    try:
        study = optuna.create_study(
            study_name=name, storage=_storage(config.storage), sampler=_sampler(config, None), load_if_exists=True
        )
        for start in starts:
            study.enqueue_trial(start, skip_if_exists=True)
    except Exception as error:  # a database's driver raises whatever it likes
        raise WorkError(
            f"Optuna cannot use the storage {config.storage}: {error}. Give a journal file in a folder that is there "
            "(--storage blend.journal), or the URL of a database whose driver is installed."
        ) from error
    return study


def _storage(place: str) -> BaseStorage | str:
    if "://" in place:
        return place
    from optuna.storages import JournalStorage  # noqa: PLC0415
    from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415

    return JournalStorage(JournalFileBackend(place))


def _work_along(study: Study, loss: Callable[[Trial], float], n_trials: int) -> None:
    """Tries weightings until the study has so many in all, whoever tried them."""
    from optuna.study import MaxTrialsCallback  # noqa: PLC0415
    from optuna.trial import TrialState  # noqa: PLC0415

    done = (TrialState.COMPLETE,)
    if len(study.get_trials(deepcopy=False, states=done)) < n_trials:
        study.optimize(loss, callbacks=[MaxTrialsCallback(n_trials, states=done)])


def _digest(evidence: Evidence, config: BlendConfig) -> str:
    """Gives what tells studies of other clips, logits or settings apart."""
    sha = hashlib.sha256(f"{config.combiner} {config.objective} {config.tta_weights}".encode())
    for array in (*evidence.logits, evidence.temperatures, evidence.labels):
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:12]


def _to_weights(u: Sequence[float]) -> np.ndarray:
    raw = np.abs(np.log(u))  # u never exceeds 1; abs spares a weight of -0.0
    total = raw.sum()
    # All u at 1 leave nothing to normalise: no member is preferred.
    return np.asarray(raw / total) if total > 0.0 else np.full(len(u), 1.0 / len(u))


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from logging each trial, and those that Ctrl-C ends; gives its level back afterwards."""
    from optuna import logging  # noqa: PLC0415

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
