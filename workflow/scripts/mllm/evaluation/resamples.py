"""Draw bootstrap resamples of a split's texts, equal for all candidates and all tasks.

A resample draws texts of the complete split, whether a task has a label for them or not. Each task counts its own texts in it. Tasks
share most test texts, so draws of different tasks are paired: they can be averaged, divided and subtracted.
"""

import numpy as np

from mllm.core.arrays import Array


def draw(own: Array, split: Array, resamples: int, seed: int) -> Array:
    """Return how often each of a task's texts is drawn, (resamples, own texts), uint8: no text is drawn 256 times.

    The draws depend only on the split and the seed; other tasks do not change them. If a resample has no text of the task (possible
    with a dozen or fewer), it draws only the task's texts, so that every resample has a score.

    Args:
        own: (own texts,) sorted distinct ids.
        split: ids of all reviews of the split, in any order, with repetitions.
        resamples: how many.
        seed: of the draws.
    """
    everything = np.unique(split)
    place = slice(None) if len(everything) == len(own) else np.searchsorted(everything, own)
    rng, texts = np.random.default_rng(seed), len(everything)
    drawn = np.empty((resamples, len(own)), dtype=np.uint8)
    for number, row in enumerate(drawn):
        row[:] = np.bincount(rng.integers(0, texts, texts), minlength=texts)[place]
        if not row.any():
            again = np.random.default_rng([seed, number]).integers(0, len(own), len(own))
            row[:] = np.bincount(again, minlength=len(own))
    return drawn
