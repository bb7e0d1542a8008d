"""What chance allows to say: p-values, their corrections, ranks, and how lucky the best of many is.

Draws are a metric, or a difference of two, on each bootstrap resample of the same texts (see ``bootstrap``): in them,
candidates are as correlated as in other samples of reviews.
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
    """Texts that one of two candidates alone labels right, and p-values of both being right equally often."""

    a_only: int
    b_only: int
    p_exact: float
    p_mid: float


def mcnemar(a_only: int, b_only: int) -> Discordant:
    """McNemar's exact test, and with the mid-p-value, which is less conservative (Fagerland, Lydersen and Laake 2013).

    Args:
        a_only: texts on which the first candidate alone is right (where copies differ: is right more often).
        b_only: texts on which the second alone is.

    Returns:
        Two-sided p-values; 1 where no text is discordant.
    """
    n, fewer = a_only + b_only, min(a_only, b_only)
    if n == 0:
        return Discordant(0, 0, 1.0, 1.0)
    point = float(binom.pmf(fewer, n, 0.5))
    doubled = 2 * float(binom.cdf(fewer, n, 0.5))
    # Where both are equal, the two tails overlap in the point itself.
    p_mid = 1 - point / 2 if a_only == b_only else doubled - point
    return Discordant(a_only, b_only, min(1.0, doubled), p_mid)


def share_up_to(draws: Array, end: float) -> float:
    """One-sided p-value of a true difference at or below the end: the share of draws there, the observed one counted as one more.

    Davison and Hinkley 1997, 4.2. It is never smaller than so many draws can show, 1 / (draws + 1).

    Args:
        draws: (resamples,) of the difference, positive where the candidate is better.
        end: 0, or the margin below it.
    """
    return (1 + int(np.count_nonzero(draws <= end))) / (len(draws) + 1)


def detectable_difference(standard_error: float, power: float = 0.8, level: float = 0.05) -> float:
    """The true difference that a two-sided test finds with this power.

    The standard error, times the normal deviates of 1 − level / 2 and of the power (Cohen 1988).

    Args:
        standard_error: of the difference.
        power: probability of finding it.
        level: of the test.
    """
    return float((ndtri(1 - level / 2) + ndtri(power)) * standard_error)


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


def rank_sets(values: Array, draws: Array, larger_is_better: bool) -> tuple[Array, Array, Array]:
    """Each candidate's rank among all, and a set of ranks that holds its true rank with a probability of at least 95 %.

    All differences to a candidate are tested at once, by the bootstrap of the largest studentised one (Mogstad, Romano, Shaikh
    and Wilhelm 2024, "Inference for ranks"): its rank is no better than one more than the number of candidates shown to be better.
    Resampled ranks alone hold the true rank in 60 to 80 % of samples, since equal candidates are never tied in a resample.

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
        told = error > 1e-6 * max(1e-12, float(error.max()))  # copies of a candidate differ from it in nothing
        if not told.any():
            continue
        largest = np.quantile(np.abs(noise[told] / error[told, None]).max(axis=0), 0.95)
        low[i] += int((told & (gap > largest * error)).sum())
        high[i] -= int((told & (-gap > largest * error)).sum())
    return rankdata(-sign * values, method="min").astype(int), low, high


def front_shares(quality: Array, costs: Array) -> Array:
    """(candidates,): in which share of resamples none beats a candidate in quality and cost.

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


def independent_optimism(standard_errors: Array) -> float:
    """:func:`expected_optimism` of independent candidates, an upper bound: the expected largest of normal deviates.

    Of normal deviates with given variances, independent ones have the largest expected maximum (Slepian 1962).

    Args:
        standard_errors: (candidates,) of the metric.

    Returns:
        Exactly 0 for one candidate.
    """
    errors = standard_errors[standard_errors > 0]
    if len(standard_errors) < 2 or not len(errors):
        return 0.0
    still = len(errors) < len(standard_errors)  # one that never varies: the largest is never below 0

    # E[max] is the integral of P(max > x) − P(max < −x) over x > 0. Logarithms keep the digits of powers close to 1.
    def tails(x: float) -> float:
        return float(-np.expm1(log_ndtr(x / errors).sum()) - (0.0 if still else np.exp(log_ndtr(-x / errors).sum())))

    top = float(errors.max())
    middle = top * float(ndtri(1 - 1 / (len(errors) + 1)))
    return float(quad(tails, 0, 40 * top, points=[middle], limit=200)[0])
