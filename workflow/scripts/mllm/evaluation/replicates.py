"""Runs of one recipe with other seeds: its mean, with an interval over reviews and seeds together."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from mllm.core.arrays import Array


@dataclass(frozen=True)
class OverSeeds:
    """The mean over runs, its 95 % interval over reviews and seeds, and the runs' standard deviation."""

    mean: float
    low: float
    high: float
    deviation: float


def over_seeds(values: Array, text_variance: float) -> OverSeeds:
    """A recipe's mean over runs, as of crossed random effects: runs and texts are both drawn.

    All runs are scored on the same texts, so that what the texts share is no part of the spread between runs: the variance of the
    mean is the sum of both. Their intervals are added in quadrature, each with its own deviate (Banerjee 1960), which covers at
    least as often as it says; of two runs, half their distance counts 12.7 times.

    Args:
        values: (runs,) of a metric, or of a paired difference; two or more.
        text_variance: of their mean, over texts with the runs fixed (from the bootstrap).
    """
    runs, mean = len(values), float(np.mean(values))
    between = float(np.var(values, ddof=1)) / runs
    half = float(np.hypot(student.ppf(0.975, runs - 1) * np.sqrt(between), norm.ppf(0.975) * np.sqrt(text_variance)))
    return OverSeeds(mean, mean - half, mean + half, float(np.std(values, ddof=1)))
