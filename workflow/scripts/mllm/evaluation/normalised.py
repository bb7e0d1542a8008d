"""Normalise one model's scores on several tasks by the scores of the tasks' experts; take their mean, or the lowest.

A normalised score of 1 equals the expert's. Where smaller values are better, the expert's value is divided by the model's, so that
larger is always better here. Numerator and denominator share the draws of all tasks (see ``resamples``). So intervals include the
expert's luck, and differences between two models are paired over all tasks.

With several trainings of a candidate, the ratio is linearised at the means over trainings. Each training then has a number, and
``replicates`` makes the interval over texts and trainings from these numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mllm.core.arrays import Array
from mllm.core.errors import Failure
from mllm.evaluation import metrics, paired, replicates
from mllm.evaluation.intervals import Z

ZERO = "ece"  # may be 0 for a good model, so it cannot be a divisor


@dataclass(frozen=True)
class Measured:
    """Hold a candidate's metric in one task."""

    name: str
    values: Array
    """(repetitions,)"""
    draws: Array
    """(repetitions, resamples)"""
    reach: float = 0.0
    """How far one text can move it (see ``intervals.reach``); 0 for losses."""


@dataclass(frozen=True)
class Number:
    """Hold a number made of several candidates' metrics, and all that its interval needs."""

    value: float
    draws: Array
    """(resamples,)"""
    values: Array
    """(repetitions,) the number of each training, linearised."""
    run_draws: Array
    """(repetitions, resamples) draws of each training, linearised."""
    reach: float

    def __sub__(self, other: "Number") -> "Number":
        """Subtract resample by resample and training by training."""
        (a, b), (a_draws, b_draws) = _alike([self.values, other.values]), _alike([self.run_draws, other.run_draws])
        reach = max(self.reach, other.reach)
        return Number(self.value - other.value, self.draws - other.draws, a - b, a_draws - b_draws, reach)

    def tested(self, margin: float = 0.0) -> paired.Difference:
        """Add its 95 % interval and its tests against 0; ``margin``: how much worse still counts as not worse."""
        if len(self.values) == 1:
            return paired.of_draws(self.value, self.draws, self.reach, margin)
        spread = replicates.spread(self.values, np.cov(self.run_draws), self.reach)
        return paired.of_runs(replace(spread, value=self.value), margin)


def ratio(mine: Measured, expert: Measured, metric: str, task: str) -> Number:
    """Divide a candidate's score by the expert's: 1 where they are equal, above 1 where the candidate is better.

    Raises:
        Failure: the divisor, or the lower end of its interval, is not above 0.
    """
    top, bottom = (expert, mine) if metrics.METRICS[metric].smaller_is_better else (mine, expert)
    over, under = float(top.values.mean()), float(bottom.values.mean())
    drawn = bottom.draws.mean(axis=0)
    if under <= 0 or np.quantile(drawn, 0.025) <= 0:
        raise Failure(
            f"task {task}: {metric} cannot be normalised (found {under:.3f} for {bottom.name}, expected an interval above 0)."
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
    """Combine a model's normalised scores to one number.

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
    """Return the 95 % interval of :func:`over_tasks`.

    The interval of the lowest score is valid whichever task is truly lowest. It combines intervals that hold for all tasks at once, by
    the bootstrap of the largest studentised error. Resamples of the minimum are too low where several tasks score nearly the same:
    their intervals cover only 86 to 90 % there.
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
    """Align repetitions: keep as many as all with several have; repeat the numbers of candidates that were trained once."""
    count = min((len(of) for of in per_repetition if len(of) > 1), default=1)
    return [of[:count] if len(of) > 1 else np.repeat(of, count, axis=0) for of in per_repetition]
