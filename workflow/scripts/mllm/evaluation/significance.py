"""What chance allows to say: p-values, their corrections, ranks, and how lucky the best of many is.

Draws are a metric, or a difference of two, on each bootstrap resample of the same texts (see ``scoring``): in them,
candidates are as correlated as in other samples of reviews.
"""

from dataclasses import dataclass

import numpy as np
from scipy.integrate import quad
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import binom, false_discovery_control, rankdata

from mllm.core.arrays import Array

# ── Two candidates ──


@dataclass(frozen=True)
class Discordant:
    """Texts that one of two candidates alone labels right, and p-values of both being right equally often."""

    a_only: int
    b_only: int
    p_exact: float
    p_mid: float


def mcnemar(a_right: Array, b_right: Array) -> Discordant:
    """McNemar's exact test, and with the mid-p-value, which is less conservative (Fagerland, Lydersen and Laake 2013).

    Args:
        a_right: (texts,) booleans: whether the first candidate's label is right.
        b_right: (texts,) the same of the second.

    Returns:
        Two-sided p-values; 1 where no text is discordant.
    """
    a_only, b_only = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    n, fewer = a_only + b_only, min(a_only, b_only)
    if n == 0:
        return Discordant(0, 0, 1.0, 1.0)
    point = float(binom.pmf(fewer, n, 0.5))
    doubled = 2 * float(binom.cdf(fewer, n, 0.5))
    # Where both are equal, the two tails overlap in the point itself.
    p_mid = 1 - point / 2 if a_only == b_only else doubled - point
    return Discordant(a_only, b_only, min(1.0, doubled), p_mid)


def bootstrap_p(draws: Array) -> float:
    """Two-sided p-value of no difference: twice the share of resamples on the rarer side of 0, itself counted on both.

    Args:
        draws: (resamples,) of the difference.
    """
    return min(1.0, 2 * min(_share_up_to(draws, 0.0), _share_up_to(-draws, 0.0)))


def not_worse_p(draws: Array, margin: float) -> float:
    """One-sided p-value of being worse by the margin or more: small where that can be ruled out.

    Args:
        draws: (resamples,) of the difference, positive where the candidate is better.
        margin: how much worse still counts as not worse.
    """
    return _share_up_to(draws, -margin)


def _share_up_to(draws: Array, end: float) -> float:
    """Share of the draws at or below the end; the observed difference counts as one more (Davison and Hinkley 1997, 4.2).

    Beyond all draws the normal tail goes on: else 2,000 resamples could not tell a p below 0.001, and of some 50 claims
    none would stand after correction, however clear.
    """
    count = np.count_nonzero(draws <= end)
    share, deviation = (1 + count) / (len(draws) + 1), draws.std()
    return share if count or not deviation else min(share, float(ndtr((end - draws.mean()) / deviation)))


def detectable_difference(draws: Array, power: float = 0.8, level: float = 0.05) -> float:
    """The true difference that a two-sided test on so many reviews finds with this power.

    The standard error, times the normal deviates of 1 − level / 2 and of the power (Cohen 1988).

    Args:
        draws: (resamples,) of the difference; their standard deviation is its standard error.
        power: probability of finding it.
        level: of the test.
    """
    return float((ndtri(1 - level / 2) + ndtri(power)) * draws.std())


def overlap(a_label: Array, b_label: Array, truth: Array, weights: Array) -> dict[str, float | None]:
    """How much two candidates err on the same reviews (Kuncheva and Whitaker 2003).

    Args:
        a_label: (reviews,) classes that the first gives.
        b_label: (reviews,) classes that the second gives.
        truth: (reviews,) right classes.
        weights: (reviews,) of the reviews in all shares.

    Returns:
        agreement: share with the same label, right or wrong; both_wrong: the double fault; same_error: share with the
        same wrong label; error_jaccard: both wrong over either wrong, 0 where nobody errs; phi: correlation of being
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
    """Adjusted p-values that bound the chance of any false claim (Holm 1979).

    Args:
        p: (tests,); NaN is no test, and stays.

    Returns:
        (tests,) in the same order.
    """
    adjusted, tested = np.full(len(p), np.nan), ~np.isnan(p)
    order = np.flatnonzero(tested)[np.argsort(p[tested], kind="stable")]
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def benjamini_hochberg(p: Array) -> Array:
    """Adjusted p-values that bound the expected share of false ones among claims (Benjamini and Hochberg 1995).

    Args:
        p: (tests,); NaN is no test, and stays.

    Returns:
        (tests,) in the same order.
    """
    adjusted, tested = np.full(len(p), np.nan), ~np.isnan(p)
    if tested.any():
        adjusted[tested] = false_discovery_control(p[tested], method="bh")
    return adjusted


# ── Many candidates ──


def rank_intervals(values: Array, draws: Array, larger_is_better: bool) -> tuple[Array, Array, Array]:
    """Each candidate's rank among all, and the 95 % interval of it over the resamples.

    Args:
        values: (candidates,) of a metric.
        draws: (candidates, resamples).
        larger_is_better: whether rank 1 is the largest.

    Returns:
        rank, low, high: (candidates,) integers; ties share the best rank.
    """
    sign = -1 if larger_is_better else 1
    ranks = rankdata(sign * draws, method="min", axis=0)
    low, high = np.quantile(ranks, [0.025, 0.975], axis=1, method="inverted_cdf")
    return rankdata(sign * values, method="min").astype(int), low.astype(int), high.astype(int)


def expected_optimism(draws: Array, larger_is_better: bool) -> float:
    """Winner's curse: by how much the best of some equally good candidates looks better than it is, on average.

    Each candidate's draws around their mean stand for its luck; the mean over resamples of the luckiest one's is what
    choosing adds. Candidates that err on the same reviews are lucky together, which adds little.

    Args:
        draws: (candidates, resamples) of a metric.
        larger_is_better: whether luck makes it larger.

    Returns:
        At least 0, and 0 for one candidate.
    """
    luck = draws - draws.mean(axis=1, keepdims=True)
    return float((luck if larger_is_better else -luck).max(axis=0).mean()) if len(draws) > 1 else 0.0


def independent_optimism(standard_error: float, m: int) -> float:
    """:func:`expected_optimism` of independent candidates, an upper bound: the expected largest of m normal deviates.

    Args:
        standard_error: of each candidate's metric.
        m: number of candidates.
    """

    # E[max] is the integral of P(max > x) − P(max < −x) over x > 0. Logarithms keep the digits of powers close to 1.
    def tails(x: float) -> float:
        return float(-np.expm1(m * log_ndtr(x)) - np.exp(m * log_ndtr(-x)))

    return standard_error * float(quad(tails, 0, 40, points=[ndtri(1 - 1 / (m + 1))], limit=200)[0])
