"""Arrays that predictions and scores share; separate from the metrics, so that a new metric reruns no model."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def text_weights(groups: Array) -> Array:
    """Return each review's weight, (reviews,): 1 / number of reviews with the same text."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(1 / sizes[group])
