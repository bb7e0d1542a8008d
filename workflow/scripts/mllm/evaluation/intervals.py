"""Compute intervals and tests that remain valid for small counts: Wilson's, Tango's, and a reach for all other metrics.

A bootstrap cannot draw an error that no text shows. Without errors, or without texts on which two candidates differ, its
interval has no width. Score intervals keep a width: at an observed 0 of n texts they reach z² / (n + z²). Metrics without a
score interval get the same reach, z² times what one text moves them (see :func:`reach`), added in quadrature.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from mllm.core.arrays import Array

Z = float(ndtri(0.975))
NOISE = np.random.default_rng(0).normal(size=(64, 800))  # equal for all, so that equal candidates have equal intervals


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a share of n texts (Wilson 1927)."""
    centre, spread = share + Z**2 / (2 * n), Z * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = ((centre + side * spread) / (1 + Z**2 / n) for side in (-1, 1))
    return max(0.0, float(low)), min(1.0, float(high))


def tango(a_only: float, b_only: float, n: float, null: float) -> float:
    """Return the score statistic of a paired difference of shares, (a_only − b_only) / n, against a null (Tango 1998).

    Args:
        a_only: texts on which only the first candidate is right; fractions where copies of a text differ.
        b_only: texts on which only the second is right.
        n: texts.
        null: the tested difference, between -1 and 1.

    Returns:
        The statistic, standard normal under the null; large where the difference is larger.
    """
    linear = (2 * n - a_only + b_only) * null - a_only - b_only
    b_share = (np.sqrt(linear**2 + 8 * n * b_only * null * (1 - null)) - linear) / (4 * n)
    variance = n * (2 * b_share + null * (1 - null))
    gap = a_only - b_only - n * null
    if variance <= 1e-12 * n:
        return 0.0 if abs(gap) < 1e-9 * n else float(np.sign(gap)) * np.inf
    return float(gap / np.sqrt(variance))


def tango_interval(a_only: float, b_only: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a paired difference of shares: the nulls that Tango's test does not reject."""
    observed, edge = (a_only - b_only) / n, 1 - 1e-9

    def end(side: float) -> float:
        def beyond(null: float) -> float:
            return side * tango(a_only, b_only, n, null) + Z

        if beyond(side * edge) >= 0:
            return side
        return float(brentq(beyond, np.clip(observed, -edge, edge), side * edge, xtol=1e-10))

    return end(-1.0), end(1.0)


def tango_p(a_only: float, b_only: float, n: float, null: float) -> float:
    """Return the one-sided p-value of a difference at or below the null."""
    return float(ndtr(-tango(a_only, b_only, n, null)))


def reach(metric: Callable[[Array], Array], confusion: Array) -> float:
    """Return how far a text moves a metric when it turns wrong, or right: the root mean square over the texts.

    Args:
        metric: of confusion matrices, (…, true class, predicted class).
        confusion: (classes, classes) sums of weights; a class without texts moves nothing.
    """
    classes = np.arange(len(confusion))
    present = classes[confusion.sum(1) > 0]
    wrong = np.where(classes[:, None] == classes, -np.inf, confusion).argmax(
        1
    )  # the class that gets most of its errors
    steps = []
    for k in present:
        turned = confusion.astype(float)
        step = min(1.0, confusion[k].max())
        source, target = (k, wrong[k]) if confusion[k, k] >= step else (int(confusion[k].argmax()), k)
        turned[k, source] -= step
        turned[k, target] += step
        steps.append(turned)
    if not steps:
        return 0.0
    moved = metric(np.stack(steps)) - metric(confusion[None])
    share = confusion[present].sum(1) / confusion.sum()
    return float(np.sqrt(share @ moved**2))


def widened(value: float, ends: Array, extra: float, least: float, most: float) -> tuple[float, float]:
    """Widen an interval on both sides, added in quadrature, within the metric's range."""
    low = value - np.hypot(value - ends[0], extra)
    high = value + np.hypot(ends[1] - value, extra)
    return max(least, float(low)), min(most, float(high))


def calibration_error(gaps: Array, spread: Array, size: float) -> tuple[float, float, float]:
    """Return the expected calibration error with its 95 % interval, without the part that chance alone adds.

    The plain error, the mean of the bins' absolute gaps, is too large: chance makes a gap in each bin (about 0.04 for a
    calibrated model on 1,000 texts). True gaps are assumed to be the observed ones times one unknown factor. Estimate and ends are
    the factors at which the plain error would be as large as observed in 50, 2.5 and 97.5 % of samples.

    Args:
        gaps: (bins,) sums of confidence minus correctness.
        spread: (bins,) standard errors of these sums.
        size: the sum of weights.

    Returns:
        Estimate, low, high.
    """
    plain = float(np.abs(gaps).sum() / size)
    if plain == 0:
        return 0.0, 0.0, float(Z * np.sqrt((spread**2).sum()) / size)
    noise = spread[:, None] * NOISE[: len(spread)]

    def beyond(factor: float, share: float) -> float:
        return float(np.quantile(np.abs(factor * gaps[:, None] + noise).sum(0), share) / size) - plain

    def factor(share: float) -> float:
        if beyond(0.0, share) >= 0:
            return 0.0
        top = 1.0
        while beyond(top, share) < 0:
            top *= 2
        return float(brentq(beyond, 0.0, top, args=(share,), xtol=1e-3))

    value, low, high = (plain * factor(share) for share in (0.5, 0.975, 0.025))
    return value, low, high
