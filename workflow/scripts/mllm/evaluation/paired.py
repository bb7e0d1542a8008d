"""Two candidates on the same test texts: differences of decisions, and as many resamples of them as a claim needs.

Texts on which both candidates say the same of the same truth are exchangeable. A resample is then a draw of how often each kind of
text comes, of which there are few: 20,000 resamples cost about as much as 100 of the texts themselves. Each kind's number is Poisson, not
bound to a fixed sum (the Poisson bootstrap, Chamandy et al. 2012), which no metric here depends on.
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

DRAWS = 20_000  # of a claim: the end of its interval is then known to 2 % of the standard error
CELLS = 4_000_000  # numbers held at once while drawing
DENSE = 24  # classes up to which a dense product is quicker than a sparse one


@dataclass(frozen=True)
class Difference:
    """A difference with its 95 % interval and its tests, positive where the first candidate is better."""

    value: float
    low: float
    high: float
    tests: claims.Tests
    spread: replicates.Spread
    """Its variance, over texts and trainings."""

    def columns(self) -> dict[str, Any]:
        """Of a table of comparisons, with what corrections need beside them."""
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
    """Of accuracies, by Tango's score interval and tests.

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
    """Of any metric, from its draws, centred, with the spread of what no text shows added (see ``intervals``).

    Args:
        value: the difference.
        draws: (resamples,) of it.
        reach: how far one text can move it; 0 for losses, of which each text has one.
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
    """Of several pairs of runs: interval and tests over texts and trainings.

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
    """Of a metric of decisions without resamples: value and 95 % interval, by the delta method.

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
    """Kinds of texts: what a text of each adds to both confusion matrices, and how many texts are of it.

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
    """(resamples,) of the first candidate's metric minus the second's, on the same resampled texts.

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
    """(means, size) float32 Poisson draws, looked up by 16 random bits: eight times as fast as exact ones.

    A probability is right to 1/65,536, and so are mean and variance to a ten-thousandth.
    """
    bits = rng.integers(0, 2**16, (len(means), size), dtype=np.uint16)
    found = np.empty(bits.shape, dtype=np.float32)
    for mean in np.unique(means):
        rows = np.flatnonzero(means == mean)
        found[rows] = _quantiles(float(mean))[bits[rows]]
    return found


@functools.lru_cache(512)
def _quantiles(mean: float) -> Array:
    """(65,536,) the Poisson distribution's values, each as often as it is probable."""
    values = np.arange(int(mean + 12 * np.sqrt(mean) + 20))
    ends = np.rint(2**16 * pdtr(values, mean)).astype(np.int64)
    ends[-1] = 2**16
    return np.repeat(values, np.diff(ends, prepend=0)).astype(np.float32)
