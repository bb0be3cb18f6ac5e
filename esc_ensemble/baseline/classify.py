"""The classifiers: features or labels of the training clips to logits of others."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from esc_ensemble.config import BaselineModelConfig
from esc_ensemble.progress import say


def fit_regression(
    features: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], model: BaselineModelConfig
) -> Pipeline:
    """Fits scikit-learn's StandardScaler and LogisticRegression; says so where the solver was stopped too soon.

    Args:
        features: (N, D) of the training clips.
        labels: (N,) class numbers, every one of 0..C-1 among them.
        model: penalty and number of steps.
    """
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=model.c, max_iter=model.max_iter))
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
        warnings.simplefilter("always", ConvergenceWarning)
        pipeline.fit(features, labels)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        say(f"The regression had not converged after {model.max_iter} steps: raise model.max_iter or lower model.c.")
    return pipeline


def regression_logits(pipeline: Pipeline, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Gives logits (..., C) of features (..., D), whose softmax is the pipeline's `predict_proba`.

    Not its logarithm, which is infinite where a probability is too small for a float.
    """
    flat = features.reshape(-1, features.shape[-1])  # (..., D) -> (S·N, D)
    with threadpool_limits(1):
        scores = pipeline.decision_function(flat)
    if scores.ndim == 1:  # of two classes scikit-learn gives the second one's log-odds alone
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    return np.asarray(scores.reshape(*features.shape[:-1], -1), dtype=np.float32)


def class_log_frequencies(labels: npt.NDArray[np.int64], n_classes: int) -> npt.NDArray[np.float32]:
    """Gives the logarithm of each class's share, (N,) -> (C,); each must occur."""
    return np.log(np.bincount(labels, minlength=n_classes) / len(labels)).astype(np.float32)
