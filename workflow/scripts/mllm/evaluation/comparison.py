"""Paired comparisons: is the merge better than that, or only luckier?

Everything is compared on the same test reviews and the same resamples of their texts. *Claims* are the comparisons that an
experiment is about: each method's winner against the best expert, the best blend and every reference. All others are
exploration. Each task has two families of claims, each with a family-wise error of 5 %: the primary claim alone (the chosen merge
against the large reference), and all others, corrected among themselves. The whole table is corrected for false discoveries.
"""

from typing import Any

import numpy as np
import polars as pl

from mllm.core.arrays import Array, text_weights
from mllm.evaluation import claims, delta, intervals, leaderboard, metrics, paired, significance
from mllm.evaluation.comparison_table import SCHEMA
from mllm.evaluation.rivals import families, rivals
from mllm.evaluation.shared_draws import Pairs

FEWEST = 20  # test texts of a class: with 10, a nominal 5 % test of macro-F1 errs in 11 % of samples


def compare(
    frame: pl.DataFrame, pairs: dict[str, Pairs], truth: dict[str, tuple[Array, Array]], metric: str, margin: float
) -> pl.DataFrame:
    """Every merge and blend against the best expert, the best blend, every reference and the base, on test.

    Args:
        frame: the leaderboard.
        pairs: task -> draws and labels.
        truth: task -> class and text of each test review.
        metric: what is compared.
        margin: how much worse still counts as not worse.

    Returns:
        One row per pair, claims first; the columns are those of comparison_table.SCHEMA.
    """
    found = sorted(rivals(frame), key=lambda pair: not pair[2])
    costs = {str(task): leaderboard.price(part) for (task,), part in frame.group_by("task")}
    known = {task: _Known(frame, task, pairs[task], *truth[task], metric) for task in costs}
    rows = []
    for (candidate, other, claim), family in zip(found, families(frame, found), strict=True):
        one, cost = known[candidate["task"]], costs[candidate["task"]]
        rows.append({
            "task": candidate["task"], "candidate": candidate["candidate"], "against": other["candidate"],
            "kind": other["kind"], "claim": claim, "family": family, "metric": metric,
            **one.compared(candidate["candidate"], other["candidate"], claim, margin),
            "cost_ratio": candidate[cost] / other[cost] if cost and other[cost] else None,
        })  # fmt: skip
    types = {**SCHEMA, **dict.fromkeys(ONE_SIDED, pl.Float64)}
    return _corrected(pl.DataFrame(rows, schema={k: v for k, v in types.items() if k not in LATER}))


LATER = ("holds", "p_holm", "p_bh", "p_not_worse_holm", "p_worse_holm", "p_mcnemar_holm", "detectable_holm")
ONE_SIDED = ("p_better", "p_behind")  # what corrections need beside the columns


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    """Add what depends on all rows: corrected p-values, and what holds after correction."""
    table = table.with_columns(p_bh=pl.Series(significance.benjamini_hochberg(table["p"].to_numpy())))
    parts = [
        _family(part) if family else part for (_, family), part in table.group_by("task", "family", maintain_order=True)
    ]
    done = pl.concat(parts, how="diagonal") if parts else table
    return done.select(
        pl.col(name).cast(kind) if name in done.columns else pl.lit(None, kind).alias(name)
        for name, kind in SCHEMA.items()
    )


def _family(part: pl.DataFrame) -> pl.DataFrame:
    """The same for the claims of one family."""
    p = {name: part[f"p_{name}"].to_numpy() for name in ("not_worse", "better", "behind", "worse")}
    not_worse, better = claims.adjusted(p["not_worse"], p["better"])
    behind, worse = claims.adjusted(p["behind"], p["worse"])
    holds = [claims.strongest(*each) for each in zip(better, not_worse, behind, worse, strict=True)]
    # What a test alone detects is the standard error times its deviates: so is what the first of several detects.
    more = claims.detectable(1.0, part.height) / claims.detectable(1.0)
    return part.with_columns(
        holds=pl.Series(holds, dtype=pl.String), p_holm=pl.Series(np.minimum(1, 2 * np.minimum(better, behind))),
        p_not_worse_holm=pl.Series(not_worse), p_worse_holm=pl.Series(worse),
        p_mcnemar_holm=pl.Series(significance.holm(part["p_mcnemar"].to_numpy())),
        detectable_holm=pl.col("detectable") * more,
    )  # fmt: skip


class _Known:
    """A task's values, draws and labels, by candidate."""

    def __init__(self, frame: pl.DataFrame, task: str, pairs: Pairs, truth: Array, groups: Array, metric: str) -> None:
        part = frame.filter(pl.col("task") == task)
        self.names = {name: i for i, name in enumerate(part["candidate"])}
        self.metric, self.sign, self.truth, self.groups = metric, metrics.sign(metric), truth, groups
        names, shared = list(self.names), (("raw", metric), ("calibrated", metric), ("raw", "nll"))
        self.values = {
            (kind, m): metrics.sign(m) * part[f"test_{'' if kind == 'raw' else 'calibrated_'}{m}"].to_numpy()
            for kind, m in shared
        }
        self.draws = {(kind, m): metrics.sign(m) * pairs.draws(names, m, kind=kind) for kind, m in shared}
        self.labels = pairs.labels(names).astype(np.int64)
        self.tuned_labels = pairs.tuned(names, metric).astype(np.int64) if metric in metrics.OF_CONFUSION else None
        _, self.text = np.unique(groups, return_inverse=True)
        self.weights = text_weights(groups)
        said = [truth, self.labels, *([] if self.tuned_labels is None else [self.tuned_labels])]
        self.classes = 1 + int(max(of.max() for of in said))
        # (candidates, texts): the share of a text's reviews that are labelled rightly.
        self.right = np.stack([np.bincount(self.text, self.weights * (mine == truth)) for mine in self.labels])
        first = np.unique(np.stack([self.text, truth]), axis=1)
        self._reach: dict[int, float] = {}
        self._tuned: dict[int, delta.Linear] = {}
        self.support = int(np.bincount(first[1])[np.unique(truth)].min())

    def compared(self, candidate: str, other: str, claim: bool, margin: float) -> dict[str, Any]:
        """The columns of one pair that depend on no other pair."""
        a, b = self.names[candidate], self.names[other]
        gain = self.right[a] - self.right[b]
        raw, accuracy = self.raw(a, b, gain, claim, margin), paired.of_shares(gain, margin)
        calibrated = self.shared(a, b, "calibrated", self.metric, margin)
        nll, tuned = self.shared(a, b, "raw", "nll", margin), self.tuned(a, b)
        tests = raw.tests
        discordant = significance.mcnemar(int((gain > 1e-9).sum()), int((gain < -1e-9).sum()))
        verdict = claims.strongest(tests.better, tests.not_worse, tests.behind, tests.worse)
        return {
            "difference": raw.value, "low": raw.low, "high": raw.high, "verdict": verdict, "p": tests.two_sided,
            "p_not_worse": tests.not_worse, "p_worse": tests.worse, "p_better": tests.better, "p_behind": tests.behind,
            "detectable": claims.detectable(raw.standard_error), "support": self.support,
            "calibrated_difference": calibrated.value, "calibrated_low": calibrated.low,
            "calibrated_high": calibrated.high,
            "tuned_difference": tuned[0], "tuned_low": tuned[1], "tuned_high": tuned[2],
            "accuracy_difference": accuracy.value, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high,
            "nll_difference": nll.value, "nll_low": nll.low, "nll_high": nll.high,
            "only_candidate_right": discordant.a_only, "only_other_right": discordant.b_only,
            "p_mcnemar": discordant.p_mid, "p_mcnemar_exact": discordant.p_exact,
        }  # fmt: skip

    def raw(self, a: int, b: int, gain: Array, claim: bool, margin: float) -> paired.Difference:
        """Tango's of accuracy; for claims, draws of their own; else the shared ones."""
        if self.metric == "accuracy":
            return paired.of_shares(gain, margin)
        if not claim or self.metric not in metrics.OF_CONFUSION:
            return self.shared(a, b, "raw", self.metric, margin)
        function = metrics.OF_CONFUSION[self.metric]
        sums, count = paired.kinds(self.truth, self.labels[a], self.labels[b], self.groups, self.classes)
        draws = self.sign * paired.draw(function, sums, count, self.classes, paired.DRAWS, seed=0)
        values = self.values["raw", self.metric]
        return paired.of_draws(float(values[a] - values[b]), draws, self.reach(a, b), margin)

    def shared(self, a: int, b: int, kind: str, metric: str, margin: float) -> paired.Difference:
        """From the resamples that all candidates share."""
        values, draws = self.values[kind, metric], self.draws[kind, metric]
        reach = self.reach(a, b) if metric == self.metric else 0.0
        return paired.of_draws(float(values[a] - values[b]), draws[a] - draws[b], reach, margin)

    def tuned(self, a: int, b: int) -> tuple[float | None, float | None, float | None]:
        """Difference of decisions tuned for the metric, and its 95 % interval."""
        if self.tuned_labels is None:
            return None, None, None
        function = metrics.OF_CONFUSION[self.metric]
        for i in {a, b} - set(self._tuned):
            label = self.tuned_labels[i]
            self._tuned[i] = delta.of_decisions(function, self.truth, label, self.weights, self.classes)
        return paired.of_decisions(function, self._tuned[a], self._tuned[b], self.text, self.sign)

    def reach(self, a: int, b: int) -> float:
        """How far one text can move the metric of either."""
        function = metrics.OF_CONFUSION.get(self.metric)
        for i in {a, b} - set(self._reach):
            self._reach[i] = intervals.reach(function, self.confusion(i)) if function else 0.0
        return max(self._reach[a], self._reach[b])

    def confusion(self, i: int) -> Array:
        """(classes, classes) of one candidate: sums of weights."""
        cells = np.bincount(self.truth * self.classes + self.labels[i], self.weights, self.classes**2)
        return cells.reshape(self.classes, self.classes)
