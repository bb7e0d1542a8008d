"""Separate results from chance: p-values, their corrections, ranks, and the luck of the best of many.

Draws are a metric, or a difference of two, on each bootstrap resample of the same texts (see ``bootstrap``). Candidates are
as correlated in them as in other samples of reviews.
"""

from dataclasses import dataclass

import numpy as np
from scipy.integrate import quad
from scipy.special import log_ndtr, ndtri
from scipy.stats import binom, false_discovery_control, rankdata

from mllm.core.arrays import Array

# ── Two candidates ──


@dataclass(frozen=True)
class Discordant:
    """Hold the texts that only one of two candidates labels correctly, and p-values of both being right equally often."""

    a_only: int
    b_only: int
    p_exact: float
    p_mid: float


def mcnemar(a_only: int, b_only: int) -> Discordant:
    """Run McNemar's exact test, and the one with the less conservative mid-p-value (Fagerland, Lydersen and Laake 2013).

    Args:
        a_only: texts on which only the first candidate is right (where copies differ: right more often).
        b_only: texts on which only the second is right.

    Returns:
        Two-sided p-values; 1 where no text is discordant.
    """
    n, fewer = a_only + b_only, min(a_only, b_only)
    if n == 0:
        return Discordant(0, 0, 1.0, 1.0)
    point = float(binom.pmf(fewer, n, 0.5))
    doubled = 2 * float(binom.cdf(fewer, n, 0.5))
    # If both are equal, the two tails share that point.
    p_mid = 1 - point / 2 if a_only == b_only else doubled - point
    return Discordant(a_only, b_only, min(1.0, doubled), p_mid)


def share_up_to(draws: Array, end: float) -> float:
    """Return the one-sided p-value of a true difference at or below the end: the share of draws there, plus the observed one.

    Davison and Hinkley 1997, 4.2. It is at least 1 / (draws + 1), the smallest value that the draws can show.

    Args:
        draws: (resamples,) of the difference, positive where the candidate is better.
        end: 0, or the margin below it.
    """
    return (1 + int(np.count_nonzero(draws <= end))) / (len(draws) + 1)


def detectable_difference(standard_error: float, power: float = 0.8, level: float = 0.05) -> float:
    """Return the true difference that a two-sided test finds with this power.

    It is the standard error times the sum of the normal deviates of 1 − level / 2 and of the power (Cohen 1988).

    Args:
        standard_error: of the difference.
        power: probability of finding it.
        level: of the test.
    """
    return float((ndtri(1 - level / 2) + ndtri(power)) * standard_error)


def overlap(a_label: Array, b_label: Array, truth: Array, weights: Array) -> dict[str, float | None]:
    """Measure how much two candidates err on the same reviews (Kuncheva and Whitaker 2003).

    Args:
        a_label: (reviews,) classes that the first gives.
        b_label: (reviews,) classes that the second gives.
        truth: (reviews,) true classes.
        weights: (reviews,) weights of the reviews in all shares.

    Returns:
        agreement: share with the same label, right or wrong; both_wrong: the double fault; same_error: share with the
        same wrong label; error_jaccard: both wrong over either wrong, 0 without errors; phi: correlation of being
        right, None where one is always right or always wrong.
    """
    a_right, b_right, same = a_label == truth, b_label == truth, a_label == b_label

    def share(of: Array) -> float:
        return float(weights @ of / weights.sum())

    both_wrong, either_wrong = share(~a_right & ~b_right), share(~a_right | ~b_right)
    spread = share(a_right) * share(~a_right) * share(b_right) * share(~b_right)
    covariance = share(a_right & b_right) * both_wrong - share(a_right & ~b_right) * share(~a_right & b_right)
    return {
        "agreement": share(same),
        "both_wrong": both_wrong,
        "same_error": share(same & ~a_right),
        "error_jaccard": both_wrong / either_wrong if either_wrong > 0 else 0.0,
        "phi": covariance / float(np.sqrt(spread)) if spread > 0 else None,
    }


# ── Many p-values ──


def holm(p: Array) -> Array:
    """Adjust p-values so that they bound the probability of any false claim (Holm 1979).

    Args:
        p: (tests,); NaN means no test, and stays NaN.

    Returns:
        (tests,) in the same order.
    """
    adjusted, tested = np.full(len(p), np.nan), ~np.isnan(p)
    order = np.flatnonzero(tested)[np.argsort(p[tested], kind="stable")]
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def benjamini_hochberg(p: Array) -> Array:
    """Adjust p-values so that they bound the expected share of false claims (Benjamini and Hochberg 1995).

    Args:
        p: (tests,); NaN means no test, and stays NaN.

    Returns:
        (tests,) in the same order.
    """
    adjusted, tested = np.full(len(p), np.nan), ~np.isnan(p)
    if tested.any():
        adjusted[tested] = false_discovery_control(p[tested], method="bh")
    return adjusted


# ── Many candidates ──


def rank_sets(values: Array, draws: Array, larger_is_better: bool) -> tuple[Array, Array, Array]:
    """Return each candidate's rank, and a set of ranks that holds its true rank with a probability of at least 95 %.

    All differences to a candidate are tested at once, by the bootstrap of the largest studentised one (Mogstad, Romano, Shaikh
    and Wilhelm 2024, "Inference for ranks"). The best rank in the set is 1 plus the number of candidates shown to be better.
    Resampled ranks alone hold the true rank in only 60 to 80 % of samples, because equal candidates are never tied in a resample.

    Args:
        values: (candidates,) of a metric.
        draws: (candidates, resamples).
        larger_is_better: whether rank 1 is the largest.

    Returns:
        rank, low, high: (candidates,) integers; ties share the best rank.
    """
    sign = 1 if larger_is_better else -1
    centred = (sign * (draws - draws.mean(axis=1, keepdims=True))).astype(np.float32)
    m, low, high = len(values), np.ones(len(values), dtype=int), np.full(len(values), len(values))
    for i in range(m):
        gap, noise = sign * (values - values[i]), centred - centred[i]
        error = noise.std(axis=1)
        told = error > 1e-6 * max(1e-12, float(error.max()))  # False for copies of the candidate
        if not told.any():
            continue
        largest = np.quantile(np.abs(noise[told] / error[told, None]).max(axis=0), 0.95)
        low[i] += int((told & (gap > largest * error)).sum())
        high[i] -= int((told & (-gap > largest * error)).sum())
    return rankdata(-sign * values, method="min").astype(int), low, high


def front_shares(quality: Array, costs: Array) -> Array:
    """Return (candidates,): the share of resamples in which no other beats a candidate in quality and cost.

    Args:
        quality: (candidates, resamples), larger is better.
        costs: (candidates,)
    """
    shares = np.empty(len(costs))
    best = np.full(quality.shape[1], -np.inf)
    for cost in np.unique(costs):
        same = np.flatnonzero(costs == cost)
        top = quality[same].max(axis=0)
        shares[same] = ((quality[same] == top) & (quality[same] > best)).mean(axis=1)
        best = np.maximum(best, top)
    return shares


def expected_optimism(draws: Array, larger_is_better: bool) -> float:
    """Return the winner's curse: how much too good the best of some equally good candidates looks on average.

    A candidate's draws around their mean are its luck. The mean over resamples of the largest luck is the expected optimism. It
    is small for candidates that err on the same reviews, because they are lucky together.

    Args:
        draws: (candidates, resamples) of a metric.
        larger_is_better: whether luck makes it larger.

    Returns:
        The optimism, at least 0; 0 for one candidate.
    """
    luck = draws - draws.mean(axis=1, keepdims=True)
    return float((luck if larger_is_better else -luck).max(axis=0).mean()) if len(draws) > 1 else 0.0


def independent_optimism(standard_errors: Array) -> float:
    """Return :func:`expected_optimism` of independent candidates, an upper bound: the expected maximum of normal deviates.

    Among normal deviates with given variances, independent ones have the largest expected maximum (Slepian 1962).

    Args:
        standard_errors: (candidates,) of the metric.

    Returns:
        The bound, exactly 0 for one candidate.
    """
    errors = standard_errors[standard_errors > 0]
    if len(standard_errors) < 2 or not len(errors):
        return 0.0
    still = len(errors) < len(standard_errors)  # some candidate never varies, so the maximum is never below 0

    # E[max] is the integral of P(max > x) − P(max < −x) over x > 0. Logarithms keep the digits of powers close to 1.
    def tails(x: float) -> float:
        return float(-np.expm1(log_ndtr(x / errors).sum()) - (0.0 if still else np.exp(log_ndtr(-x / errors).sum())))

    top = float(errors.max())
    middle = top * float(ndtri(1 - 1 / (len(errors) + 1)))
    return float(quad(tails, 0, 40 * top, points=[middle], limit=200)[0])
