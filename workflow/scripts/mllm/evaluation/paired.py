"""Compare two candidates on the same test texts, with as many resamples of a difference as a claim needs.

Texts with the same truth and the same two predictions are exchangeable. So a resample draws how often each such kind of text
occurs. There are few kinds: 20,000 resamples cost about as much as 100 of the texts themselves. Each kind's number is Poisson, without
a fixed sum (the Poisson bootstrap, Chamandy et al. 2012); no metric here depends on that sum.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import pdtr

from mllm.core.arrays import Array
from mllm.evaluation import claims, delta, intervals, replicates, significance

DRAWS = 20_000  # for a claim: they give the ends of its interval to 2 % of the standard error
CELLS = 4_000_000  # numbers held at once while drawing
DENSE = 24  # classes up to which a dense product is quicker than a sparse one


@dataclass(frozen=True)
class Difference:
    """Hold a difference with its 95 % interval and its tests, positive where the first candidate is better."""

    value: float
    low: float
    high: float
    tests: claims.Tests
    spread: replicates.Spread
    """Its variance, over texts and trainings."""

    def columns(self) -> dict[str, Any]:
        """Return the columns of a table of comparisons, and those that only corrections need."""
        tests, spread = self.tests, self.spread
        return {
            "runs": spread.runs, "deviation": spread.deviation, "texts": spread.texts, "training": spread.training,
            "difference": self.value, "low": self.low, "high": self.high,
            "verdict": claims.strongest(tests.better, tests.not_worse, tests.behind, tests.worse), "p": tests.two_sided,
            "p_not_worse": tests.not_worse, "p_worse": tests.worse, "p_better": tests.better, "p_behind": tests.behind,
            "p_equivalent": tests.equivalent, "p_not_better": tests.not_better,
            "detectable": spread.detectable(claims.LEVEL),
        }  # fmt: skip


def of_shares(gain: Array, margin: float) -> Difference:
    """Compare accuracies by Tango's score interval and tests.

    Args:
        gain: (texts,) the first candidate's share of right labels on a text minus the second's; copies make fractions.
        margin: how much worse still counts as not worse.
    """
    n, a, b = len(gain), float(gain[gain > 0].sum()), float(-gain[gain < 0].sum())
    low, high = intervals.tango_interval(a, b, n)
    p = {null: intervals.tango_p(a, b, n, null) for null in (0.0, -margin, margin)}
    least = 1 / (DRAWS + 1)
    tests = claims.Tests(*(max(least, q) for q in (p[0.0], p[-margin], 1 - p[0.0], 1 - p[-margin], 1 - p[margin])))
    return Difference(float(gain.mean()), low, high, tests, _of_texts((high - low) / (2 * intervals.Z)))


def of_draws(value: float, draws: Array, reach: float, margin: float, seed: int = 0) -> Difference:
    """Compare by any metric from its centred draws, with the reach of one text added to their spread (see ``intervals``).

    Args:
        value: the difference.
        draws: (resamples,) of it.
        reach: how far one text can move it; 0 for losses, because each text has one.
        margin: how much worse still counts as not worse.
        seed: of the added spread.
    """
    unseen = np.random.default_rng(seed).normal(scale=intervals.Z * reach, size=len(draws)) if reach else 0.0
    centred = draws - draws.mean() + unseen
    moved = centred - centred.mean() + value
    low, high = np.quantile(moved, [0.025, 0.975])
    up = significance.share_up_to
    tests = claims.Tests(up(moved, 0.0), up(moved, -margin), up(-moved, 0.0), up(-moved, margin), up(-moved, -margin))
    return Difference(value, float(low), float(high), tests, _of_texts(float(moved.std())))


def of_runs(found: replicates.Spread, margin: float) -> Difference:
    """Compare several pairs of runs: interval and tests over texts and trainings.

    Args:
        found: their differences.
        margin: how much worse still counts as not worse.
    """
    least, half = 1 / (DRAWS + 1), found.half()
    up = {null: found.above(null) for null in (0.0, -margin, margin)}
    one_sided = up[0.0], up[-margin], 1 - up[0.0], 1 - up[-margin], 1 - up[margin]
    tests = claims.Tests(*(max(least, p) for p in one_sided))
    return Difference(found.value, found.value - half, found.value + half, tests, found)


def _of_texts(standard_error: float) -> replicates.Spread:
    return replicates.Spread(0.0, standard_error**2, 0.0, 1, None)


def of_decisions(
    metric: Callable[[Array], Array], a: delta.Linear, b: delta.Linear, text: Array, sign: float = 1.0
) -> tuple[float, float, float]:
    """Return value and 95 % interval of a difference of decisions, by the delta method, without resamples.

    Args:
        metric: of confusion matrices.
        a: the first candidate's decisions.
        b: the second's.
        text: (reviews,) index of each review's text.
        sign: -1 where smaller is better.
    """
    error = delta.standard_error(a.influence - b.influence, text)
    unseen = intervals.Z * max(intervals.reach(metric, one.confusion) for one in (a, b))
    value, half = sign * (a.value - b.value), intervals.Z * float(np.hypot(error, unseen))
    return value, value - half, value + half


def kinds(truth: Array, a_label: Array, b_label: Array, groups: Array, classes: int) -> tuple[list[csr_array], Array]:
    """Group texts by kind: what one text of a kind adds to both confusion matrices, and how many texts it has.

    Args:
        truth: (reviews,) class indices.
        a_label: (reviews,) classes that the first candidate gives.
        b_label: (reviews,) classes that the second gives.
        groups: (reviews,) ids; reviews of one text share one.
        classes: their number.

    Returns:
        Two sparse (kinds, classes²) matrices of weights, and (kinds,) numbers of texts.
    """
    code = (truth.astype(np.int64) * classes + a_label) * classes + b_label
    _, text, size = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.lexsort((code, text))
    code, size_of = code[order], size[text[order]]
    rows: dict[tuple[int, ...], int] = {}
    for reviews in np.unique(size):
        alike, times = np.unique(code[size_of == reviews].reshape(-1, reviews), axis=0, return_counts=True)
        for signature, count in zip(alike.tolist(), times.tolist(), strict=True):
            key = tuple(signature) if len(set(signature)) > 1 else (signature[0],)
            rows[key] = rows.get(key, 0) + count
    row = np.repeat(np.arange(len(rows)), [len(key) for key in rows])
    cell, weight = np.concatenate([[*key] for key in rows]), np.concatenate([[1 / len(key)] * len(key) for key in rows])
    true, a, b = cell // classes**2, cell // classes % classes, cell % classes
    shape = len(rows), classes**2
    sums = [csr_array((weight, (row, true * classes + label)), shape=shape) for label in (a, b)]
    return sums, np.fromiter(rows.values(), dtype=np.int64)


def draw(
    metric: Callable[[Array], Array], sums: list[csr_array], count: Array, classes: int, resamples: int, seed: int
) -> Array:
    """Draw (resamples,) of the first candidate's metric minus the second's, on the same resampled texts.

    Args:
        metric: of confusion matrices, (…, true class, predicted class).
        sums: as from :func:`kinds`.
        count: (kinds,) numbers of texts.
        classes: their number.
        resamples: how many.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    step = max(16, CELLS // max(classes**2, len(count)))
    dense = [one.toarray().T.astype(np.float32) for one in sums] if classes <= DENSE else None
    found = []
    for first in range(0, resamples, step):
        times = poisson(rng, count, min(step, resamples - first))
        a, b = ((dense[i] @ times if dense else sums[i].T @ times).T.astype(float) for i in (0, 1))
        found.append(metric(a.reshape(-1, classes, classes)) - metric(b.reshape(-1, classes, classes)))
    return np.concatenate(found)


def poisson(rng: np.random.Generator, means: Array, size: int) -> Array:
    """Draw (means, size) float32 Poisson numbers by 16 random bits and a table: eight times as fast as exact draws.

    Probabilities are correct to 1/65,536, mean and variance to 1/10,000.
    """
    bits = rng.integers(0, 2**16, (len(means), size), dtype=np.uint16)
    found = np.empty(bits.shape, dtype=np.float32)
    for mean in np.unique(means):
        rows = np.flatnonzero(means == mean)
        found[rows] = _quantiles(float(mean))[bits[rows]]
    return found


@functools.lru_cache(512)
def _quantiles(mean: float) -> Array:
    """Return (65,536,) values of the Poisson distribution, each as often as its probability says."""
    values = np.arange(int(mean + 12 * np.sqrt(mean) + 20))
    ends = np.rint(2**16 * pdtr(values, mean)).astype(np.int64)
    ends[-1] = 2**16
    return np.repeat(values, np.diff(ends, prepend=0)).astype(np.float32)
