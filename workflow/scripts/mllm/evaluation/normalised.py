"""Scores of one model on several tasks: each divided by the score of the task's expert, then averaged, or the lowest taken.

A normalised score of 1 is the expert's. Where smaller values are better the expert's value is divided by the model's, so that more is
better here in any case. Numerator and denominator are resampled together, on the same draws in all tasks (see ``resamples``), so that
intervals cover the expert's luck, too, and differences between two models are paired over all tasks.

With several trainings of a candidate, what its numbers are made of is linearised at the means over trainings: each training then has a
number of its own, of which ``replicates`` makes the interval over texts and trainings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mllm.core.arrays import Array
from mllm.core.errors import Failure
from mllm.evaluation import metrics, paired, replicates
from mllm.evaluation.intervals import Z

ZERO = "ece"  # may be 0 for a good model: nothing can be divided by it


@dataclass(frozen=True)
class Measured:
    """A candidate's metric in one task."""

    name: str
    values: Array
    """(repetitions,)"""
    draws: Array
    """(repetitions, resamples)"""
    reach: float = 0.0
    """How far one text can move it (see ``intervals.reach``); 0 for losses."""


@dataclass(frozen=True)
class Number:
    """What follows of several candidates' metrics, and all that its interval needs."""

    value: float
    draws: Array
    """(resamples,)"""
    values: Array
    """(repetitions,) of each training, linearised."""
    run_draws: Array
    """(repetitions, resamples) of each training, linearised."""
    reach: float

    def __sub__(self, other: "Number") -> "Number":
        """The difference, resample by resample and training by training."""
        (a, b), (a_draws, b_draws) = _alike([self.values, other.values]), _alike([self.run_draws, other.run_draws])
        reach = max(self.reach, other.reach)
        return Number(self.value - other.value, self.draws - other.draws, a - b, a_draws - b_draws, reach)

    def tested(self, margin: float = 0.0) -> paired.Difference:
        """With its 95 % interval and its tests against 0; ``margin``: how much worse still counts as not worse."""
        if len(self.values) == 1:
            return paired.of_draws(self.value, self.draws, self.reach, margin)
        spread = replicates.spread(self.values, np.cov(self.run_draws), self.reach)
        return paired.of_runs(replace(spread, value=self.value), margin)


def ratio(mine: Measured, expert: Measured, metric: str, task: str) -> Number:
    """A candidate's score over the expert's, 1 where they are equal, more where the candidate is better.

    Raises:
        Failure: what is divided by is not above 0, or not surely so.
    """
    top, bottom = (expert, mine) if metrics.METRICS[metric].smaller_is_better else (mine, expert)
    over, under = float(top.values.mean()), float(bottom.values.mean())
    drawn = bottom.draws.mean(axis=0)
    if under <= 0 or np.quantile(drawn, 0.025) <= 0:
        raise Failure(
            f"task {task}: {metric} cannot be normalised: that of {bottom.name} is {under:.3f}, not surely above 0."
            " Fix: compare.metric: accuracy or macro_f1"
        )
    value = over / under
    (tops, bottoms), (top_draws, bottom_draws) = _alike([top.values, bottom.values]), _alike([top.draws, bottom.draws])
    return Number(
        value,
        top.draws.mean(axis=0) / np.maximum(drawn, 1e-12),
        value + (tops - value * bottoms) / under,
        value + (top_draws - value * bottom_draws) / under,
        0.0 if mine is expert else max(top.reach, value * bottom.reach) / under,
    )


def over_tasks(parts: dict[str, Number], how: str) -> Number:
    """One number of a model's normalised scores.

    Args:
        parts: task -> normalised score.
        how: mean, worst (the lowest), or a task's name.
    """
    if how in parts:
        return parts[how]
    numbers = list(parts.values())
    if how == "worst":
        lowest = numbers[int(np.argmin([n.value for n in numbers]))]
        return replace(lowest, draws=np.min([n.draws for n in numbers], axis=0))
    values, draws = _alike([n.values for n in numbers]), _alike([n.run_draws for n in numbers])
    return Number(
        float(np.mean([n.value for n in numbers])),
        np.mean([n.draws for n in numbers], axis=0),
        np.mean(values, axis=0),
        np.mean(draws, axis=0),
        float(np.sqrt(np.sum([n.reach**2 for n in numbers]))) / len(numbers),
    )


def interval(parts: dict[str, Number], how: str) -> tuple[float, float]:
    """The 95 % interval of :func:`over_tasks`.

    That of the lowest score holds whichever task is truly lowest: it is made of intervals that hold all tasks at once, by the bootstrap
    of the largest studentised error. Resamples of the minimum alone are too low where several tasks are nearly as low: they cover 86 to
    90 % there.
    """
    if how != "worst":
        found = over_tasks(parts, how).tested()
        return found.low, found.high
    draws = np.stack([n.draws for n in parts.values()])
    noise = draws - draws.mean(axis=1, keepdims=True)
    error = noise.std(axis=1, keepdims=True)
    largest = np.abs(np.divide(noise, error, out=np.zeros_like(noise), where=error > 0)).max(axis=0)
    wider = max(1.0, float(np.quantile(largest, 0.95)) / Z)
    each = [n.tested() for n in parts.values()]
    return min(d.value - wider * (d.value - d.low) for d in each), min(
        d.value + wider * (d.high - d.value) for d in each
    )


def _alike(per_repetition: Sequence[Array]) -> list[Array]:
    """The same repetitions of all: as many as those have that have several; what exists once takes part in each."""
    count = min((len(of) for of in per_repetition if len(of) > 1), default=1)
    return [of[:count] if len(of) > 1 else np.repeat(of, count, axis=0) for of in per_repetition]
