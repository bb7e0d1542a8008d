"""Compute standard errors from sums instead of resamples: the delta method, linear in what each text adds to a metric."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mllm.core.arrays import Array

FEW = 64  # confusion matrices at once


@dataclass(frozen=True)
class Linear:
    """Hold a metric of decisions, and how much each review moves it."""

    value: float
    confusion: Array
    """(true, predicted), sums of weights."""
    influence: Array
    """(reviews,); their sum is 0, because metrics do not change with the number of texts."""


def of_decisions(
    function: Callable[[Array], Array], truth: Array, label: Array, weights: Array, classes: int
) -> Linear:
    """Linearise the metric of some decisions.

    Args:
        function: metric of confusion matrices, (…, true class, predicted class).
        truth: (reviews,) class indices.
        label: (reviews,) predicted classes.
        weights: (reviews,) each text's sum to 1.
        classes: their number.
    """
    cell = truth.astype(np.int64) * classes + label
    sums = np.bincount(cell, weights, classes**2)
    confusion, used = sums.reshape(classes, classes), np.flatnonzero(sums)
    step = np.zeros(classes**2)
    step[used] = slope(function, confusion, used)
    return Linear(float(function(confusion[None])[0]), confusion, weights * step[cell])


def standard_error(influence: Array, text: Array) -> float:
    """Return the standard error of a sum over texts.

    Args:
        influence: (reviews,) what each review adds to the sum.
        text: (reviews,) index of each review's text.
    """
    return float(np.sqrt((np.bincount(text, influence) ** 2).sum()))


def slope(function: Callable[[Array], Array], confusion: Array, cells: Array) -> Array:
    """Return (cells,) numeric derivatives of a metric by the weights of some cells of the confusion matrix."""
    step, found = 1e-5 * confusion.sum(), []
    for first in range(0, len(cells), FEW):
        chosen = cells[first : first + FEW]
        more = np.repeat(confusion.reshape(1, -1), len(chosen), axis=0)
        more[np.arange(len(chosen)), chosen] += step
        found.append((function(more.reshape(len(chosen), *confusion.shape)) - function(confusion[None])) / step)
    return np.concatenate(found)
