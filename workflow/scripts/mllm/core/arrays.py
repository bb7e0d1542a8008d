"""What predictions and scores have in common; apart from the metrics, so that a new metric runs no model again."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def text_weights(groups: Array) -> Array:
    """(reviews,): 1 / reviews with the same text."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(1 / sizes[group])
