"""Define metrics of weighted sums over reviews, so that one product computes any number of bootstrap resamples.

Names and definitions are scikit-learn's. Three kinds of sums suffice: the confusion matrix, the losses, and, for the expected
calibration error (Naeini et al. 2015), gaps in bins of equal mass (Nixon et al. 2019, arXiv 1904.01685).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mllm.core.arrays import Array

BINS = 15  # of the calibration error, as in Guo et al. 2017, arXiv 1706.04599


@dataclass(frozen=True)
class Metric:
    """Describe one metric, a column of the leaderboard."""

    label: str
    """For people."""
    smaller_is_better: bool = False
    ordered: bool = False
    """Whether it needs ordered classes."""
    ends: tuple[float, float] = (-float("inf"), float("inf"))
    """Smallest and largest possible value."""


METRICS = {
    "accuracy": Metric("accuracy", ends=(0.0, 1.0)),
    "balanced_accuracy": Metric("balanced accuracy", ends=(0.0, 1.0)),
    "macro_f1": Metric("macro-F1", ends=(0.0, 1.0)),
    "mcc": Metric("Matthews correlation", ends=(-1.0, 1.0)),
    "kappa": Metric("Cohen's kappa", ends=(-1.0, 1.0)),
    "kappa_quadratic": Metric("quadratic kappa", ordered=True, ends=(-1.0, 1.0)),
    "mae": Metric("mean absolute error, in classes", smaller_is_better=True, ordered=True, ends=(0.0, float("inf"))),
    "spearman": Metric("Spearman correlation", ordered=True, ends=(-1.0, 1.0)),
    "nll": Metric("negative log-likelihood", smaller_is_better=True, ends=(0.0, float("inf"))),
    "brier": Metric("Brier score", smaller_is_better=True, ends=(0.0, 2.0)),
    "ece": Metric("expected calibration error", smaller_is_better=True, ends=(0.0, 1.0)),
}


def measured(column: str) -> str:
    """Return the metric of a column of scores; columns of calibrated scores, and of those without a prior, end in its name.

    Raises:
        KeyError: the column is of no metric.
    """
    found = [name for name in METRICS if column == name or column.endswith(f"_{name}")]
    if not found:
        raise KeyError(column)
    return max(found, key=len)


def sign(metric: str) -> float:
    """Return 1 where larger is better, else -1: times this, a difference is positive for an improvement."""
    return -1.0 if METRICS[measured(metric)].smaller_is_better else 1.0


def of_task(ordered: bool) -> list[str]:
    """Return the metrics that apply to a task's classes."""
    return [name for name, metric in METRICS.items() if ordered or not metric.ordered]


def _ratio(top: Array, bottom: Array) -> Array:
    """Return the quotient; 0 where the divisor is 0."""
    return np.divide(top, bottom, out=np.zeros(np.broadcast_shapes(top.shape, bottom.shape)), where=bottom > 0)


# ── Of the confusion matrix: (…, true class, predicted class), weighted counts ──


def accuracy(confusion: Array) -> Array:
    """Return the share of correct labels."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1))


def recall(confusion: Array) -> Array:
    """Return (…, classes) the recall of each class; NaN where the class does not occur."""
    support = confusion.sum(-1)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.where(support > 0, _ratio(hits, support), np.nan)


def balanced_accuracy(confusion: Array) -> Array:
    """Return the mean recall of the classes that occur."""
    return np.nanmean(recall(confusion), axis=-1)


def macro_f1(confusion: Array) -> Array:
    """Return the mean F1 of the classes that occur or are predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    total = confusion.sum(-1) + confusion.sum(-2)
    return _ratio(2 * hits, total).sum(-1) / (total > 0).sum(-1)


def mcc(confusion: Array) -> Array:
    """Return the Matthews correlation of several classes (Gorodkin 2004); 0 where all labels are equal, as in scikit-learn."""
    n = confusion.sum((-2, -1))
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    covariance = np.trace(confusion, axis1=-2, axis2=-1) * n - (true * predicted).sum(-1)
    spread = (n**2 - (true**2).sum(-1)) * (n**2 - (predicted**2).sum(-1))
    # If all labels are equal, rounding of 32-bit sums leaves a small remainder.
    return np.where(spread > 1e-9 * n**4, covariance / np.sqrt(np.where(spread > 1e-9 * n**4, spread, 1)), 0.0)


def kappa(confusion: Array, quadratic: bool = False) -> Array:
    """Return Cohen's kappa; ``quadratic`` weights a confusion by its squared distance (ordered labels).

    It is 0 where the disagreement expected by chance is 0, for example where all labels are equal.
    """
    n, true, predicted = confusion.sum((-2, -1)), confusion.sum(-1), confusion.sum(-2)
    if quadratic:
        classes = np.arange(confusion.shape[-1])
        weights = np.subtract.outer(classes, classes) ** 2.0
        seen = (weights * confusion).sum((-2, -1))
        chance = ((true @ weights) * predicted).sum(-1) / n
    else:
        seen = n - np.trace(confusion, axis1=-2, axis2=-1)
        chance = n - (true * predicted).sum(-1) / n
    # If all labels are equal, rounding of 32-bit sums leaves a small remainder.
    some = chance > 1e-6 * n
    return np.where(some, 1 - seen / np.where(some, chance, 1), 0.0)


def mae(confusion: Array) -> Array:
    """Return the mean distance of the predicted class from the true one, in classes."""
    classes = np.arange(confusion.shape[-1])
    return (np.abs(np.subtract.outer(classes, classes)) * confusion).sum((-2, -1)) / confusion.sum((-2, -1))


def spearman(confusion: Array) -> Array:
    """Return the correlation of the ranks of true and predicted classes, ties at their middle; 0 where all labels are equal."""
    n = confusion.sum((-2, -1))[..., None]
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    x, y = (np.cumsum(counts, axis=-1) - counts / 2 - n / 2 for counts in (true, predicted))
    covariance = (x[..., :, None] * y[..., None, :] * confusion).sum((-2, -1))
    spread = (x**2 * true).sum(-1) * (y**2 * predicted).sum(-1)
    floor = 1e-9 * n[..., 0] ** 6
    return np.where(spread > floor, covariance / np.sqrt(np.where(spread > floor, spread, 1)), 0.0)


OF_CONFUSION: dict[str, Callable[[Array], Array]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "mcc": mcc,
    "kappa": kappa,
    "kappa_quadratic": lambda confusion: kappa(confusion, quadratic=True),
    "mae": mae,
    "spearman": spearman,
}


# ── Of the probabilities ──


def losses(logp: Array, truth: Array) -> dict[str, Array]:
    """Return each review's negative log-likelihood and Brier score (the sum over classes of squared errors)."""
    rows = np.arange(len(truth))
    p = np.exp(logp)
    brier = (p**2).sum(1) - 2 * p[rows, truth] + 1
    return {"nll": -logp[rows, truth], "brier": brier}


def confidence_bins(confidence: Array, weights: Array) -> Array:
    """Return (reviews,) the bin, of BINS of equal weight, of each review's confidence; equal confidences share a bin."""
    order = np.argsort(confidence, kind="stable")
    before = np.cumsum(weights[order]) - weights[order]
    _, first, which = np.unique(confidence[order], return_index=True, return_inverse=True)
    bins = np.minimum(BINS * before[first] / weights.sum(), BINS - 1).astype(int)
    result = np.empty(len(confidence), dtype=int)
    result[order] = bins[which]
    return result
