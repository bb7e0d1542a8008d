"""Several runs of one candidate: means over them, with intervals and tests that cover other texts and other trainings.

A run is one training of all that is beneath a candidate. All runs are scored on the same texts: texts and runs are crossed
random effects, and the variance of a mean over both is the sum of two parts. *Texts*: how the mean would change with other texts, as
far as the runs change alike; the bootstrap's draws tell. *Training*: the variance between runs over their number, in which
what one text does in one run alone is contained; from R runs it has R − 1 degrees of freedom.

Such a sum has no exact interval. Tests take its fiducial distribution (Behrens 1929, Fisher 1935): the normal one of the texts
plus Student's of the runs, which errs at most as often as it says, at every level. Intervals by it would cover up to 98.8 % with two
runs; they take Cochran and Cox's critical value (1950), the mean of the normal and Student's one by their shares of the
variance: 93.9 to 97.8 % with two runs, 95.0 to 97.1 % with three, whatever the shares.
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
    """A mean over runs, or of differences between paired runs, with both parts of its variance."""

    value: float
    texts: float
    """Variance that the runs share, over texts."""
    training: float
    """Variance over trainings: that between runs, over their number; 0 with one run."""
    runs: int
    deviation: float | None
    """Standard deviation between runs; none with one."""

    def half(self, texts: float | None = None) -> float:
        """Half of a 95 % interval.

        Args:
            texts: variance of one side's texts, where the two sides differ.
        """
        mine = self.texts if texts is None else texts
        total = mine + self.training
        if self.runs < 2 or total <= 0:
            return Z * float(np.sqrt(total))
        t = float(student.ppf(0.975, self.runs - 1))
        return float(np.sqrt(total) * (Z * mine + t * self.training) / total)

    def above(self, null: float) -> float:
        """One-sided p-value of a true value at or below the null."""
        return tail(self.value - null, self.texts, self.training, self.runs)

    def detectable(self, level: float, power: float = 0.8) -> float:
        """The true difference that a two-sided test at the level finds with this power, nearly."""
        error = float(np.sqrt(self.texts + self.training))
        if error == 0:
            return 0.0
        edge = brentq(lambda d: tail(d * error, self.texts, self.training, self.runs) - level / 2, 0, 1e6, xtol=1e-6)
        return float(edge + ndtri(power)) * error


def spread(values: Sequence[float] | Array, covariance: Array, reach: float = 0.0) -> Spread:
    """A mean over runs.

    Metrics of decisions move in steps. Two runs that happen to agree would have no variance, more often than continuous values
    come near each other: half a step is added in quadrature. What no text shows is added where a run shows less than that.

    Args:
        values: (runs,) of a metric, or of differences of paired runs.
        covariance: (runs, runs) of these over texts, as of the bootstrap's draws.
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
    """P(√texts · normal + √training · Student's t with runs − 1 degrees of freedom ≥ distance).

    Given its χ² variable, Student's is normal: the probability is a mean of normal ones over that variable.
    """
    if runs < 2 or training == 0:
        return float(ndtr(-distance / np.sqrt(texts))) if texts > 0 else float(distance <= 0)
    density, variable = _weights(runs - 1)
    scale = np.sqrt(texts + training * (runs - 1) / variable)
    return float(np.clip(density @ ndtr(-distance / scale), 0, 1))


@functools.cache
def _weights(degrees: int) -> tuple[Array, Array]:
    """Probabilities of a grid of values of a χ² variable, and the values."""
    grid = np.exp(np.linspace(-45, 6, 1500))
    density = chi2.pdf(grid, degrees) * grid
    return density / density.sum(), grid


def interval(values: Array, lows: Array, highs: Array, covariance: Array | None = None) -> tuple[Spread, float, float]:
    """The mean over runs with its 95 % interval, from the runs' own intervals over texts.

    Args:
        values: (runs,)
        lows: (runs,) ends of the 95 % intervals of each.
        highs: (runs,)
        covariance: (runs, runs) over texts; without it, as if runs changed alike.

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
    """Candidate -> its replicates; the runs of a random merge's seeds belong to one. With one replicate, its seeds.

    Args:
        runs: with candidate, run and replicate.
    """
    found: dict[str, Repetitions] = {}
    for (candidate,), part in runs.group_by("candidate", maintain_order=True):
        replicates = [each["run"].to_list() for _, each in part.sort("replicate", maintain_order=True).group_by("replicate", maintain_order=True)]  # fmt: skip
        found[str(candidate)] = replicates if len(replicates) > 1 else [[run] for run in replicates[0]]
    return found


def paired(first: Repetitions, second: Repetitions) -> list[tuple[list[str], list[str]]]:
    """Runs of two candidates, repetition by repetition, as far as both have them; what exists once is in all pairs."""
    several = [len(one) for one in (first, second) if len(one) > 1]
    return [
        (first[i if len(first) > 1 else 0], second[i if len(second) > 1 else 0]) for i in range(min(several, default=1))
    ]


def training_noise(values: list[Array], resamples: int, seed: int = 0) -> Array:
    """(candidates, resamples): what other trainings would do to each candidate's mean, jointly.

    Of the differences between two candidates' repetitions, the same ones in each draw: Student's distribution with the runs'
    variance, as in :func:`tail`. 0 for candidates with one run.

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
