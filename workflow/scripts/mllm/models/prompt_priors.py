"""Remove a prompted model's priors: its preferences for answers before it has read any text.

Each prior is one number per class, subtracted from all log-probabilities. Unlike ``calibration``, it uses no labels.
"""

import numpy as np

from mllm.core.arrays import Array

CONTENT_FREE = ("N/A", "[MASK]", "")


def priors(logp: Array, content_free: Array, valid: Array) -> dict[str, Array]:
    """Return the predictions without each prior; see :meth:`mllm.models.families.Family.priors`."""
    return {"contextual": contextual(logp, content_free), "batch": batch(logp, valid)}


def contextual(logp: Array, content_free: Array) -> Array:
    """Divide by the mean probabilities of inputs without content (Zhao et al. 2021, arXiv 2102.09690).

    Args:
        logp: (reviews, classes) natural logarithms of the probabilities.
        content_free: (inputs, classes) the same for :data:`CONTENT_FREE`.
    """
    return _without(logp, np.log(np.exp(content_free.astype(float)).mean(0)))


def batch(logp: Array, valid: Array) -> Array:
    """Divide by the mean probabilities of the validation reviews (Zhou et al. 2024, arXiv 2309.17249).

    Args:
        logp: (reviews, classes) natural logarithms of the probabilities.
        valid: (reviews,) whether each is of validation.
    """
    return _without(logp, np.log(np.exp(logp[valid].astype(float)).mean(0))) if valid.any() else logp


def _without(logp: Array, prior: Array) -> Array:
    moved = logp.astype(float) - prior
    moved -= moved.max(1, keepdims=True)
    return (moved - np.log(np.exp(moved).sum(1, keepdims=True))).astype(np.float32)
