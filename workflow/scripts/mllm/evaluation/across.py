"""Compare methods over several data sets or tasks instead of on one set of reviews.

A unit is a data set with a task; a method has one score on each. The test is the Bayesian signed-rank test with a region of
practical equivalence (Benavoli, Corani, Demšar and Zaffalon 2017, JMLR 18). It gives the probabilities that on the next data set
one method is better, both are within the margin, or the other is better. It needs only these two methods, and it can say
"equivalent", which a p-value cannot. Mean ranks with Nemenyi's critical distance (Demšar 2006, JMLR 7) are for the diagram: they
find little on few units, and a rank depends on the other methods.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from mllm.core.arrays import Array

DRAWS = 50_000
PRIOR = 0.5  # weight of one pseudo-unit without a difference, as in baycomp


@dataclass(frozen=True)
class Posterior:
    """Hold three probabilities that sum to 1."""

    better: float
    equivalent: float
    worse: float


@dataclass(frozen=True)
class Ranks:
    """Hold the ranks of methods over units."""

    mean: Array
    """(methods,) mean ranks; 1 is the best."""
    p: float | None
    """Of Friedman's test of no difference; None with fewer than three methods."""
    distance: float
    """Mean ranks that are farther apart than this differ (Nemenyi, 5 %)."""


def signed_rank(differences: Array, margin: float, seed: int = 0) -> Posterior:
    """Test paired differences with the Bayesian signed-rank test.

    A Dirichlet process with one pseudo-observation at 0 weights the units. Each draw counts for the region that holds the means of
    most pairs of units.

    Args:
        differences: (units,), positive where the first method is better.
        margin: half the width of the region of practical equivalence.
        seed: of the draws.
    """
    z = np.append(0.0, differences)
    weights = np.random.default_rng(seed).dirichlet(np.append(PRIOR, np.ones(len(differences))), DRAWS)
    twice = z[:, None] + z[None, :]
    sides = [np.heaviside(twice - 2 * margin, 0.5), np.heaviside(-twice - 2 * margin, 0.5)]  # on the border: half
    better, worse = (np.einsum("di,ij,dj->d", weights, side, weights, optimize=True) for side in sides)
    mass = np.stack([better, 1 - better - worse, worse])
    shares = np.bincount(mass.argmax(0), minlength=3) / DRAWS
    return Posterior(*map(float, shares))


def ranks(values: Array, level: float = 0.05) -> Ranks:
    """Return the mean ranks of methods, and the distance from which on they differ.

    Args:
        values: (units, methods), larger is better.
        level: of the tests.
    """
    units, methods = values.shape
    mean = rankdata(-values, axis=1).mean(0)
    p = float(friedmanchisquare(*values.T).pvalue) if methods > 2 and units > 1 else None
    quantile = float(studentized_range.ppf(1 - level, methods, np.inf)) / np.sqrt(2)
    return Ranks(mean, p, quantile * float(np.sqrt(methods * (methods + 1) / (6 * units))))


def groups(mean: Array, distance: float) -> list[tuple[int, int]]:
    """Return (first, last) places, in the order of mean ranks, of the largest groups whose members are within the distance."""
    ordered = np.sort(mean)
    found: list[tuple[int, int]] = []
    for first in range(len(ordered)):
        last = int(np.searchsorted(ordered, ordered[first] + distance, side="right")) - 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
