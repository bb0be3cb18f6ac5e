"""The best blend that keeps within a cost, and the front of what accuracy costs.

Each member takes part with all its shifts, with the clip as it is, or not at all. Such choices are compared by the log
loss of the best weights for each: all of them where they are few, else climbing from nothing by single changes, and by
putting others in a member's place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from esc_ensemble.blend.combine import COMBINERS, Mixture
from esc_ensemble.blend.costs import Cost
from esc_ensemble.blend.fit import fit_mixture
from esc_ensemble.blend.methods import lbfgs
from esc_ensemble.blend.objective import Evidence
from esc_ensemble.config import BlendConfig
from esc_ensemble.errors import LogitsError
from esc_ensemble.progress import Advance

OUT, PLAIN, ALL_SHIFTS = 0, 1, 2
Choice = tuple[int, ...]
"""For each member how it takes part."""
FEW = 81
"""This many choices are all looked at: four members with several shifts, or six with one."""


def fit_within(
    evidence: Evidence,
    plain: Sequence[int],
    costs: Sequence[Cost | None],
    config: BlendConfig,
    *,
    advance: Advance,
    study: str,
) -> Mixture:
    """Chooses the members that fit into the limits, then finds their weights by the configured method.

    Args:
        evidence: labelled clips of all members; without any the cheapest members are taken.
        plain: for each member, which of its shifts is the clip as it is.
        costs: what each member costs.
        config: the limits, and the method.
        advance: moved on by `config.trials`.
        study: name of the Optuna study in a shared storage.

    Raises:
        LogitsError: not even one member fits, or a member's cost is not known.
    """
    known = _known(costs)
    choice = choose(evidence, plain, known, lambda choice: within(choice, evidence.n_shifts, known, config))
    if not any(choice):
        cheapest = min(known, key=lambda cost: (cost.ms, cost.megabytes))
        raise LogitsError(
            f"No member keeps within max_ms {config.max_ms:g} and max_mb {config.max_mb:g} (0: no limit): the cheapest "
            f"takes {cheapest.ms:.3g} ms and {cheapest.megabytes:.3g} MB. Raise the limit, or train a smaller member."
        )
    return widen(fit_mixture(narrow(evidence, plain, choice), config, advance, study), evidence, plain, choice)


def total_cost(choice: Choice, n_shifts: Sequence[int], costs: Sequence[Cost]) -> Cost:
    """Gives what a choice of members costs; front ends that members share are counted for each."""
    heard = [n if level == ALL_SHIFTS else level for level, n in zip(choice, n_shifts, strict=True)]
    return Cost(
        ms=sum(times * cost.ms for times, cost in zip(heard, costs, strict=True)),
        megabytes=sum(cost.megabytes for times, cost in zip(heard, costs, strict=True) if times),
    )


def within(choice: Choice, n_shifts: Sequence[int], costs: Sequence[Cost], config: BlendConfig) -> bool:
    """Says whether a choice keeps within the limits."""
    total = total_cost(choice, n_shifts, costs)
    return (not config.max_ms or total.ms <= config.max_ms) and (not config.max_mb or total.megabytes <= config.max_mb)


def choose(
    evidence: Evidence, plain: Sequence[int], costs: Sequence[Cost], allowed: Callable[[Choice], bool]
) -> Choice:
    """Gives the best allowed choice, of many the one that climbing finds; all OUT where none is allowed."""
    choice: Choice = (OUT,) * evidence.n_members
    if not len(evidence.labels):
        for member in np.argsort([cost.ms for cost in costs]):
            more = _changed(choice, {int(member): PLAIN})
            choice = more if allowed(more) else choice
        return choice
    loss_of = losses(evidence, plain)
    levels = [_levels(count) for count in evidence.n_shifts]
    if math.prod(map(len, levels)) <= FEW:
        return min((each for each in product(*levels) if any(each) and allowed(each)), key=loss_of, default=choice)

    def climb(start: Choice, held: int = -1) -> Choice:
        """Takes the best single change as long as one is better, members but `held`."""
        at = start
        while True:
            near = [
                step
                for step in _single_changes(at, evidence.n_shifts)
                if any(step) and allowed(step) and (held < 0 or step[held] == start[held])
            ]
            best = min(near, key=loss_of, default=at)
            if not any(best) or (any(at) and loss_of(best) >= loss_of(at)):
                return at
            at = best

    choice = climb(choice)
    while any(choice):
        # One member less, and what then fits in its place.
        others = [
            climb(_changed(choice, {member: level}), held=member)
            for member, count in enumerate(evidence.n_shifts)
            for level in _levels(count)
            if level < choice[member]
        ]
        best = min(filter(any, others), key=loss_of, default=choice)
        if loss_of(best) >= loss_of(choice):
            break
        choice = climb(best)
    return choice


def front(
    evidence: Evidence, plain: Sequence[int], costs: Sequence[Cost], cost_of: Callable[[Cost], float]
) -> list[Choice]:
    """Gives the choices than which none of those looked at is both cheaper and better, from cheap to dear.

    Args:
        evidence: labelled clips of all members.
        plain: for each member, which of its shifts is the clip as it is.
        costs: what each member costs.
        cost_of: what counts of a cost.
    """
    loss_of = losses(evidence, plain)
    choice: Choice = (OUT,) * evidence.n_members
    looked_at = set(_single_changes(choice, evidence.n_shifts))
    while True:  # up to all members, each time by the best single change
        near = [step for step in _single_changes(choice, evidence.n_shifts) if sum(step) > sum(choice)]
        if not near:
            break
        looked_at.update(near)
        choice = min(near, key=loss_of)
    price = {step: cost_of(total_cost(step, evidence.n_shifts, costs)) for step in looked_at}
    found: list[Choice] = []
    for step in sorted(looked_at, key=lambda step: (price[step], loss_of(step))):
        if not found or loss_of(step) < loss_of(found[-1]):
            found.append(step)
    return found


def losses(evidence: Evidence, plain: Sequence[int]) -> Callable[[Choice], float]:
    """Gives a function from a choice to the log loss of its best weights, each found once."""
    known: dict[Choice, float] = {}

    def loss_of(choice: Choice) -> float:
        if choice not in known:
            seen = narrow(evidence, plain, choice)
            judge = seen.judge(COMBINERS[0], seen.equal_shifts)
            weights = lbfgs(judge, BlendConfig())
            known[choice] = judge.log_loss(weights, judge.best_temperature(weights))
        return known[choice]

    return loss_of


def narrow(evidence: Evidence, plain: Sequence[int], choice: Choice) -> Evidence:
    """Gives the evidence of the members and shifts that take part."""
    taken = [member for member, level in enumerate(choice) if level]
    logits = [
        evidence.logits[m] if choice[m] == ALL_SHIFTS else evidence.logits[m][plain[m] : plain[m] + 1] for m in taken
    ]
    return Evidence(logits, evidence.temperatures[taken], evidence.labels)


def widen(mixture: Mixture, evidence: Evidence, plain: Sequence[int], choice: Choice) -> Mixture:
    """Gives a mixture of the members that take part as one of all members, the others at weight 0."""
    taken = [member for member, level in enumerate(choice) if level]
    weights = np.zeros(evidence.n_members)
    weights[taken] = mixture.weights
    shares = list(evidence.equal_shifts)
    for member, own in zip(taken, mixture.shift_weights, strict=True):
        shares[member] = own if choice[member] == ALL_SHIFTS else np.eye(len(shares[member]))[plain[member]]
    by_class = mixture.class_weights
    if by_class is not None:
        by_class = np.zeros((evidence.n_members, by_class.shape[1]))
        by_class[taken] = mixture.class_weights
    return replace(mixture, weights=weights, shift_weights=tuple(shares), class_weights=by_class)


def _known(costs: Sequence[Cost | None]) -> list[Cost]:
    if not costs or any(cost is None for cost in costs):
        raise LogitsError("A limit is set, but what the members cost is not known: give their costs.")
    return [cost for cost in costs if cost is not None]


def _levels(n_shifts: int) -> tuple[int, ...]:
    return (OUT, ALL_SHIFTS) if n_shifts == 1 else (OUT, PLAIN, ALL_SHIFTS)


def _changed(choice: Choice, changes: dict[int, int]) -> Choice:
    return tuple(changes.get(member, level) for member, level in enumerate(choice))


def _single_changes(choice: Choice, n_shifts: Sequence[int]) -> Iterator[Choice]:
    for member, count in enumerate(n_shifts):
        for level in _levels(count):
            if level != choice[member]:
                yield _changed(choice, {member: level})
