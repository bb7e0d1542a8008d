"""Tune decisions for a metric by class offsets fitted on validation, so that sharper or shifted probabilities gain nothing.

A candidate's decisions follow from its probabilities and from offsets per class, which a few validation labels can repair. The
offsets are those of its calibration (see ``calibration``) minus a strength times the logarithm of the classes' shares ("logit
adjustment", Menon et al. 2021, arXiv 2007.07314). A strength of 0 is best for accuracy, 1 for balanced accuracy; other metrics
need values between or near them. One strength per metric is fitted, by the metric itself.
"""

from dataclasses import dataclass

import numpy as np

from mllm.core.arrays import Array
from mllm.evaluation import metrics
from mllm.evaluation.calibration import FOLDS

STRENGTHS = np.linspace(-0.5, 1.5, 21)


@dataclass(frozen=True)
class Tuned:
    """Hold the decisions tuned for each metric."""

    strength: dict[str, float]
    """metric -> strength fitted on all of validation."""
    valid: dict[str, Array]
    """metric -> (validation reviews,) classes, by strengths fitted on the other folds."""
    test: dict[str, Array]
    """metric -> (test reviews,) classes."""


def tune(valid: Array, test: Array, truth: Array, weights: Array, fold: Array, names: list[str]) -> Tuned:
    """Fit a strength per metric on validation; decide validation itself out of fold.

    Args:
        valid: (validation reviews, classes) log-probabilities, calibrated out of fold.
        test: (test reviews, classes) log-probabilities, calibrated on all of validation.
        truth: (validation reviews,) class indices.
        weights: (validation reviews,) each text's sum to 1.
        fold: (validation reviews,) 0 … FOLDS − 1; reviews of one text share one.
        names: metrics of decisions.
    """
    classes = valid.shape[1]
    shares = np.bincount(truth, weights, classes) + 1 / classes  # a class without texts gets a share, too
    prior = np.log(shares / shares.sum())
    labels = np.stack([decide(valid, prior, s) for s in STRENGTHS])
    cells = (fold.astype(np.int64) * classes + truth) * classes
    confusion = np.stack([np.bincount(cells + label, weights, FOLDS * classes**2) for label in labels])
    confusion = confusion.reshape(len(STRENGTHS), FOLDS, classes, classes)
    whole = confusion.sum(1)
    found = Tuned({}, {}, {})
    decided: dict[int, Array] = {}
    for name in names:
        best = _best(name, whole)
        found.strength[name] = float(STRENGTHS[best])
        others = np.array([_best(name, whole - confusion[:, k]) for k in range(FOLDS)])
        found.valid[name] = labels[others[fold], np.arange(len(truth))]
        if best not in decided:
            decided[best] = decide(test, prior, float(STRENGTHS[best]))
        found.test[name] = decided[best]
    return found


def decide(logp: Array, prior: Array, strength: float) -> Array:
    """Return (reviews,) classes by offset log-probabilities.

    Args:
        logp: (reviews, classes)
        prior: (classes,) logarithms of the classes' shares.
        strength: factor of ``prior``, which is subtracted from the log-probabilities.
    """
    offset = (logp - strength * prior).argmax(1)
    return offset.astype(np.uint8 if logp.shape[1] <= 256 else np.uint16)


def _best(name: str, confusion: Array) -> int:
    """Return the index of the strength with the best value; of equal ones the one nearest 0."""
    if not confusion.sum():  # nothing to learn from: change nothing
        return int(np.abs(STRENGTHS).argmin())
    values = metrics.sign(name) * metrics.OF_CONFUSION[name](confusion)
    best = np.flatnonzero(values >= values.max() - 1e-12)
    return int(best[np.abs(STRENGTHS[best]).argmin()])
