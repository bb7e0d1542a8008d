"""Average several runs of one candidate, with intervals and tests that cover other texts and other trainings.

A run is one training of everything beneath a candidate. All runs are scored on the same texts, so texts and runs are crossed
random effects. The variance of a mean over both has two parts. *Texts*: how the mean would change with other texts, as far as all
runs change alike; the bootstrap's draws give it. *Training*: the variance between runs over their number. It includes the effect of
one text on one run, and has R − 1 degrees of freedom with R runs.

Such a sum has no exact interval. Tests use its fiducial distribution (Behrens 1929, Fisher 1935): the normal distribution of the
texts plus Student's of the runs. Their error is at most the nominal one at every level. Intervals by it would cover up to 98.8 % with
two runs. So intervals use Cochran and Cox's critical value (1950), the mean of the normal and Student's one, weighted by their shares
of the variance. They cover 93.9 to 97.8 % with two runs and 95.0 to 97.1 % with three, whatever the shares.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import chi2
from scipy.stats import t as student

from mllm.core.arrays import Array
from mllm.evaluation.intervals import Z

Repetitions = list[list[str]]
"""A candidate's independent repetitions, each with the names of its runs."""


@dataclass(frozen=True)
class Spread:
    """Hold a mean over runs, or over differences of paired runs, with both parts of its variance."""

    value: float
    texts: float
    """Variance over texts that the runs share."""
    training: float
    """Variance over trainings: the variance between runs over their number; 0 with one run."""
    runs: int
    deviation: float | None
    """Standard deviation between runs; None with one run."""

    def half(self, texts: float | None = None) -> float:
        """Return half the width of a 95 % interval.

        Args:
            texts: variance over texts of one side, where the two sides differ.
        """
        mine = self.texts if texts is None else texts
        total = mine + self.training
        if self.runs < 2 or total <= 0:
            return Z * float(np.sqrt(total))
        t = float(student.ppf(0.975, self.runs - 1))
        return float(np.sqrt(total) * (Z * mine + t * self.training) / total)

    def above(self, null: float) -> float:
        """Return the one-sided p-value of a true value at or below the null."""
        return tail(self.value - null, self.texts, self.training, self.runs)

    def detectable(self, level: float, power: float = 0.8) -> float:
        """Return the true difference that a two-sided test at the level finds with this power, approximately."""
        error = float(np.sqrt(self.texts + self.training))
        if error == 0:
            return 0.0
        edge = brentq(lambda d: tail(d * error, self.texts, self.training, self.runs) - level / 2, 0, 1e6, xtol=1e-6)
        return float(edge + ndtri(power)) * error


def spread(values: Sequence[float] | Array, covariance: Array, reach: float = 0.0) -> Spread:
    """Average runs.

    Metrics of decisions move in steps, so two runs can agree by chance and would then have no variance: half a step is added in
    quadrature. The variance over texts is at least that of the reach of one text.

    Args:
        values: (runs,) of a metric, or of differences of paired runs.
        covariance: (runs, runs) of these over texts, from the bootstrap's draws.
        reach: how far one text can move a value (see ``intervals.reach``); 0 for losses.
    """
    values, runs, unseen = np.asarray(values, dtype=float), len(values), (Z * reach) ** 2
    if runs < 2:
        return Spread(float(values[0]), float(np.asarray(covariance).reshape(-1)[0]) + unseen, 0.0, 1, None)
    shared = max(0.0, float(covariance.sum() - np.trace(covariance)) / (runs * (runs - 1)))
    deviation = float(values.std(ddof=1))
    training = (deviation**2 + reach**2 / 4) / runs
    texts = max(shared, unseen - float(np.trace(covariance)) / runs)
    return Spread(float(values.mean()), texts, training, runs, deviation)


def tail(distance: float, texts: float, training: float, runs: int) -> float:
    """Return P(√texts · normal + √training · Student's t with runs − 1 degrees of freedom ≥ distance).

    Student's t is normal given its χ² variable, so the probability is a mean of normal probabilities over that variable.
    """
    if runs < 2 or training == 0:
        return float(ndtr(-distance / np.sqrt(texts))) if texts > 0 else float(distance <= 0)
    density, variable = _weights(runs - 1)
    scale = np.sqrt(texts + training * (runs - 1) / variable)
    return float(np.clip(density @ ndtr(-distance / scale), 0, 1))


@functools.cache
def _weights(degrees: int) -> tuple[Array, Array]:
    """Return probabilities of a grid of values of a χ² variable, and the values."""
    grid = np.exp(np.linspace(-45, 6, 1500))
    density = chi2.pdf(grid, degrees) * grid
    return density / density.sum(), grid


def interval(values: Array, lows: Array, highs: Array, covariance: Array | None = None) -> tuple[Spread, float, float]:
    """Return the mean over runs with its 95 % interval, from the runs' own intervals over texts.

    Args:
        values: (runs,)
        lows: (runs,) ends of the 95 % intervals of each.
        highs: (runs,)
        covariance: (runs, runs) over texts; without it, texts are assumed to change all runs alike.

    Returns:
        The spread, low, high.
    """
    alike = 1.0
    if covariance is not None and len(values) > 1 and np.trace(covariance) > 0:
        shared = (covariance.sum() - np.trace(covariance)) / (len(values) * (len(values) - 1))
        alike = float(np.clip(shared / np.diag(covariance).mean(), 0, 1))
    below, above = (alike * float(np.mean(side)) ** 2 / Z**2 for side in (values - lows, highs - values))
    between = float(np.var(values, ddof=1)) if len(values) > 1 else 0.0
    found = Spread(
        float(values.mean()), (below + above) / 2, between / len(values), len(values), float(np.sqrt(between)) if len(values) > 1 else None
    )  # fmt: skip
    return found, found.value - found.half(below), found.value + found.half(above)


# ── Which runs repeat what ──


def repetitions(runs: pl.DataFrame) -> dict[str, Repetitions]:
    """Return candidate -> its replicates, which contain the runs of a random merge's seeds; with one replicate, its seeds.

    Args:
        runs: with candidate, run and replicate.
    """
    found: dict[str, Repetitions] = {}
    for (candidate,), part in runs.group_by("candidate", maintain_order=True):
        replicates = [each["run"].to_list() for _, each in part.sort("replicate", maintain_order=True).group_by("replicate", maintain_order=True)]  # fmt: skip
        found[str(candidate)] = replicates if len(replicates) > 1 else [[run] for run in replicates[0]]
    return found


def paired(first: Repetitions, second: Repetitions) -> list[tuple[list[str], list[str]]]:
    """Pair the runs of two candidates, repetition by repetition, as far as both have them; a single repetition is in all pairs."""
    several = [len(one) for one in (first, second) if len(one) > 1]
    return [
        (first[i if len(first) > 1 else 0], second[i if len(second) > 1 else 0]) for i in range(min(several, default=1))
    ]


def training_noise(values: list[Array], resamples: int, seed: int = 0) -> Array:
    """Draw (candidates, resamples): how other trainings would change each candidate's mean, jointly.

    Each draw weights the repetitions of all candidates alike, so that differences between candidates have Student's distribution with
    the runs' variance, as in :func:`tail`. Candidates with one run get 0.

    Args:
        values: of each candidate (repetitions,).
        resamples: how many draws.
        seed: of the draws.
    """
    most = max(map(len, values))
    rng = np.random.default_rng(seed)
    normal, found = rng.normal(size=(most, resamples)), np.zeros((len(values), resamples))
    for runs in {len(of) for of in values if len(of) > 1}:
        scale = np.sqrt(rng.chisquare(runs - 1, resamples) / (runs - 1) * runs * (runs - 1))
        for i in (i for i, of in enumerate(values) if len(of) == runs):
            found[i] = (values[i] - values[i].mean()) @ normal[:runs] / scale
    return found
