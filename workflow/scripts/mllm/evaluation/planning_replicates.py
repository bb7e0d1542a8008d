"""Compute power with several replicates by simulation, because the spread over trainings is estimated from few of them."""

import numpy as np

from mllm.evaluation import replicates
from mllm.evaluation.planning import LEVEL


def power(number: int, spread: float, error: float, margin: float, draws: int = 2000, seed: int = 0) -> float | None:
    """Return the probability of showing non-inferiority of a recipe that is truly equal, by the claims' own test.

    Args:
        number: of replicates.
        spread: standard deviation of the paired difference over training seeds.
        error: standard error over texts.
        margin: how much worse still counts as no worse.
        draws: simulated experiments.
        seed: of the simulation.

    Returns:
        The power; None with one replicate, which says nothing about other trainings.
    """
    if number < 2:
        return None
    rng = np.random.default_rng(seed)
    found = rng.normal(0, 1, draws) * error + rng.normal(0, 1, draws) * spread / np.sqrt(number)
    between = spread**2 * rng.chisquare(number - 1, draws) / (number - 1) / number
    p = [replicates.tail(f + margin, error**2, b, number) for f, b in zip(found, between, strict=True)]
    return float((np.array(p) <= LEVEL).mean())
