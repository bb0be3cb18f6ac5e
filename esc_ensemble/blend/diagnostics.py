"""What a blend's scores do not say: what each member brings, how alike members err, and what looks too good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esc_ensemble.blend.crossfit import OofLogits, cross_fit, take_members
from esc_ensemble.blend.members import FittedOn
from esc_ensemble.config import BlendConfig
from esc_ensemble.config.blend import Combiner
from esc_ensemble.metrics import clip_losses
from esc_ensemble.significance import Comparison, compare_predictions

# A member that is better on one fold than chance would have it so rarely has probably seen that fold's clips. Shared
# out over all members and folds.
LEAK_P = 1e-3
SUMS_TO_ONE = 1e-3
"""How far from 1 the sums of probabilities may be that were stored in half precision or as rounded text."""


@dataclass(frozen=True)
class Contribution:
    """What is lost without a member."""

    run: str
    """The member."""
    loss: Comparison
    """The blend with all members against the one without it."""


def contributions(
    oof: OofLogits, names: Sequence[str], config: BlendConfig, combiner: Combiner
) -> tuple[Contribution, ...]:
    """Leaves out one member after the other, fits the rest anew and compares, both cross-fitted.

    Studies are replaced by L-BFGS, which finds the same weights in a fraction of the time; shifts count alike, and
    limits on the cost are left out of account.

    Args:
        oof: the members' logits.
        names: of the M members.
        config: method and the rest.
        combiner: the blend's.
    """
    if oof.n_members < 2:
        return ()
    method = "lbfgs" if config.method in ("optuna", "nelder-mead") else config.method
    objective = "log_loss" if method == "lbfgs" else config.objective
    quick = config.model_copy(
        update={
            **{"method": method, "objective": objective, "combiner": combiner},
            **{"tta_weights": "equal", "storage": "", "max_ms": 0.0, "max_mb": 0.0},
        }
    )
    whole = cross_fit(oof, quick).probabilities
    found = []
    for left_out, name in enumerate(names):
        kept = [member for member in range(oof.n_members) if member != left_out]
        rest = cross_fit(take_members(oof, kept), quick).probabilities
        loss = compare_predictions(whole, rest, oof.labels, oof.sources, n_draws=config.bootstrap, seed=config.seed)
        found.append(Contribution(name, loss))
    return tuple(found)


def error_correlation(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Gives the correlation of members' errors (M, M); NaN where a member errs never or always.

    Args:
        predictions: (M, N) class numbers.
        labels: (N,), -1 where unknown; those clips do not count.
    """
    known = labels >= 0
    wrong = (predictions[:, known] != labels[known]).astype(np.float64)  # (M, N)
    centred = wrong - wrong.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return np.asarray(centred @ centred.T / np.outer(spread, spread))


def missing_folds_warning(fold_numbers: Sequence[int]) -> str | None:
    """Says so where folds between the first and the last are not there: their clips are in no score."""
    missing = sorted(set(range(min(fold_numbers), max(fold_numbers) + 1)) - set(fold_numbers))
    if not missing:
        return None
    numbers = ", ".join(map(str, missing))
    return f"Fold {numbers} is missing: its clips are in no score. Train it, and blend again."


def selection_warning(problem: str) -> str | None:
    """Returns why weights of one fixed split cannot be fitted on its selection split; None where nothing is wrong."""
    if not problem:
        return None
    return (
        f"There is one test fold, and weights cannot be fitted on the selection split: {problem}. Weights are equal. "
        "Train all members with the same selection split: the same seed and fraction, or one --data.selection-fold."
    )


def probability_warnings(logits: Sequence[np.ndarray], fold_of_clip: np.ndarray, names: Sequence[str]) -> list[str]:
    """Name members whose logits are probabilities: the softmax of those is almost flat, whatever the model knows.

    Args:
        logits: of the M members, (S, N, C) each.
        fold_of_clip: (N,) fold numbers.
        names: of the M members.
    """
    found = []
    folds = np.unique(fold_of_clip)
    for name, values in zip(names, logits, strict=True):
        near = np.abs(values.sum(axis=2, dtype=np.float64) - 1.0) <= SUMS_TO_ONE
        inside = (values.min(axis=2) >= -SUMS_TO_ONE) & (values.max(axis=2) <= 1.0 + SUMS_TO_ONE)
        looks_so = (near & inside).all(axis=0)  # (S, N) -> (N,)
        bad = [int(fold) for fold in folds if looks_so[fold_of_clip == fold].all()]
        if values.shape[2] < 2 or not bad:
            continue
        where = "" if len(bad) == len(folds) else f" (fold {', '.join(map(str, bad))})"
        found.append(
            f"The logits of {name}{where} look like probabilities: all are from 0 to 1, and each clip's sum to 1. "
            "Write their logarithm, np.log(p + 1e-12), and blend again."
        )
    return found


def gap_warning(
    in_sample: np.ndarray, crossed: np.ndarray, labels: np.ndarray, fold_index: np.ndarray, fitted_on: FittedOn
) -> str | None:
    """Says so if the in-sample log loss lies below the cross-fitted one by more than one fold's standard error.

    Args:
        in_sample: (N, C) probabilities of weights fitted on all folds.
        crossed: (N, C) cross-fitted ones.
        labels: (N,), -1 where unknown; those clips do not count.
        fold_index: (N,) the clip's fold.
        fitted_on: what these clips are: those of all folds, or the selection split, whose parts are the folds.
    """
    known = labels >= 0
    fitted, honest = clip_losses(in_sample[known], labels[known]), clip_losses(crossed[known], labels[known])
    of_fold = [honest[fold_index[known] == fold] for fold in np.unique(fold_index[known])]
    errors = [losses.std(ddof=1) / np.sqrt(len(losses)) for losses in of_fold if len(losses) > 1]
    gap = honest.mean() - fitted.mean()
    if len(of_fold) < 2 or not errors or gap <= np.mean(errors):
        return None
    where, unit, trusted = {
        "other folds": ("", "fold", "cross-fitted score"),
        "selection": (" on the selection split", "part", "score on the test"),
    }[fitted_on]
    return (
        f"The in-sample log loss {fitted.mean():.4f}{where} lies {gap:.4f} below the cross-fitted {honest.mean():.4f}, "
        f"more than one {unit}'s standard error ({np.mean(errors):.4f}): the weights follow the very clips they were "
        f"fitted on. Trust the {trusted}, and take fewer members or a simpler method."
    )


def leak_warnings(
    log_probs: np.ndarray,
    labels: np.ndarray,
    fold_of_clip: np.ndarray,
    sources: np.ndarray,
    names: Sequence[str],
) -> list[str]:
    """Names members that are far better on one fold than their other folds let expect: did they see its clips?

    What makes a fold easy makes it easy for all members, so each member's losses are taken relative to the others'
    mean, averaged over the clips of each source in each fold, and the fold's compared with the other folds' by
    Welch's t test.

    Args:
        log_probs: (M, N, C) each member's cross-fitted log-probabilities.
        labels: (N,), -1 where unknown; those clips do not count.
        fold_of_clip: (N,) fold numbers.
        sources: (N,) the recording each clip was cut from.
        names: of the M members.
    """
    from scipy.stats import ttest_ind  # noqa: PLC0415 - half a second that only blends of several need

    known = labels >= 0
    if len(names) < 2 or not known.any():
        return []
    losses = np.stack([clip_losses(np.exp(member[known]), labels[known]) for member in log_probs])  # (M, N)
    _, source_of_clip = np.unique(sources[known], return_inverse=True)
    # A source may have clips in two published folds: (source, fold) pairs are the groups.
    pairs = np.stack([source_of_clip, fold_of_clip[known]])  # (2, N)
    (_, folds), group_of_clip = np.unique(pairs, axis=1, return_inverse=True)  # (G,), (N,)
    group_of_clip = group_of_clip.ravel()
    sizes = np.bincount(group_of_clip)
    limit = LEAK_P / (len(names) * len(np.unique(folds)))
    found = []
    for member, name in enumerate(names):
        others = np.delete(losses, member, axis=0).mean(axis=0)
        relative = np.bincount(group_of_clip, weights=losses[member] - others) / sizes  # (G,)
        for fold in np.unique(folds):
            here, elsewhere = relative[folds == fold], relative[folds != fold]
            if min(len(here), len(elsewhere)) < 3:
                continue
            p = ttest_ind(here, elsewhere, equal_var=False, alternative="less").pvalue
            if p < limit:
                found.append(
                    f"{name} is better on fold {fold} than on its other folds, beside the other members, by more than "
                    f"chance (p {p:.0e}): has its model of that fold heard these clips? Scores with it are too good, "
                    "and its weight is too high. Train it anew, or leave it out."
                )
    return found
