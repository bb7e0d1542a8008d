"""Compare one pair of candidates on the same test texts, repetition by repetition, without regard to other pairs."""

from typing import Any

import numpy as np
import polars as pl

from mllm.core.arrays import Array, text_weights
from mllm.evaluation import delta, intervals, metrics, paired, replicates, significance
from mllm.evaluation.shared_draws import Pairs

Matched = list[tuple[list[int], list[int]]]
"""Pairs of repetitions, each with the indices of both candidates' runs."""


class TaskPairs:
    """Hold a task's values, draws and labels, by run.

    Args:
        runs: the task's rows of the table of runs.
        pairs: draws and labels.
        truth: (test reviews,) classes.
        groups: (test reviews,) ids; reviews of one text share one.
        metric: what is compared.
    """

    def __init__(self, runs: pl.DataFrame, pairs: Pairs, truth: Array, groups: Array, metric: str) -> None:
        self.names = {name: i for i, name in enumerate(runs["run"])}
        self.repeated = replicates.repetitions(runs)
        self.metric, self.sign, self.truth, self.groups = metric, metrics.sign(metric), truth, groups
        names, shared = list(self.names), (("raw", metric), ("calibrated", metric), ("raw", "nll"))
        self.values = {
            (kind, m): metrics.sign(m) * runs[f"test_{'' if kind == 'raw' else 'calibrated_'}{m}"].to_numpy()
            for kind, m in shared
        }
        self.draws = {(kind, m): metrics.sign(m) * pairs.draws_of_runs(names, m, kind=kind) for kind, m in shared}
        self.labels = pairs.labels(names).astype(np.int64)
        self.tuned_labels = pairs.tuned(names, metric).astype(np.int64) if metric in metrics.OF_CONFUSION else None
        _, self.text = np.unique(groups, return_inverse=True)
        self.weights = text_weights(groups)
        said = [truth, self.labels, *([] if self.tuned_labels is None else [self.tuned_labels])]
        self.classes = 1 + int(max(of.max() for of in said))
        # (runs, texts): the share of a text's reviews that are labelled correctly.
        self.right = np.stack([np.bincount(self.text, self.weights * (mine == truth)) for mine in self.labels])
        first = np.unique(np.stack([self.text, truth]), axis=1)
        self._reach: dict[int, float] = {}
        self._tuned: dict[int, delta.Linear] = {}
        self.support = int(np.bincount(first[1])[np.unique(truth)].min())

    def compared(self, candidate: str, other: str, claim: bool, margin: float) -> dict[str, Any]:
        """Return the columns of one pair that depend on no other pair."""
        matched = [
            ([self.names[run] for run in mine], [self.names[run] for run in theirs])
            for mine, theirs in replicates.paired(self.repeated[candidate], self.repeated[other])
        ]
        gain = _differences(self.right, matched)
        raw, accuracy = self.raw(matched, gain, claim, margin), self.accuracy(gain, margin)
        calibrated = self.shared(matched, "calibrated", self.metric, margin)
        nll, tuned = self.shared(matched, "raw", "nll", margin), self.tuned(matched)
        right = gain.mean(axis=0)
        discordant = significance.mcnemar(int((right > 1e-9).sum()), int((right < -1e-9).sum()))
        return {
            **raw.columns(), "support": self.support,
            "calibrated_difference": calibrated.value, "calibrated_low": calibrated.low,
            "calibrated_high": calibrated.high,
            "tuned_difference": tuned[0], "tuned_low": tuned[1], "tuned_high": tuned[2],
            "accuracy_difference": accuracy.value, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high,
            "nll_difference": nll.value, "nll_low": nll.low, "nll_high": nll.high,
            "only_candidate_right": discordant.a_only, "only_other_right": discordant.b_only,
            "p_mcnemar": discordant.p_mid, "p_mcnemar_exact": discordant.p_exact,
        }  # fmt: skip

    def raw(self, matched: Matched, gain: Array, claim: bool, margin: float) -> paired.Difference:
        """Compare raw predictions. One training: Tango's for accuracy, own draws for claims, else shared draws. Several: shared draws."""
        if self.metric == "accuracy":
            return self.accuracy(gain, margin)
        if len(matched) > 1 or not claim or self.metric not in metrics.OF_CONFUSION:
            return self.shared(matched, "raw", self.metric, margin)
        ((a,), (b,)) = matched[0]
        function = metrics.OF_CONFUSION[self.metric]
        sums, count = paired.kinds(self.truth, self.labels[a], self.labels[b], self.groups, self.classes)
        draws = self.sign * paired.draw(function, sums, count, self.classes, paired.DRAWS, seed=0)
        values = self.values["raw", self.metric]
        return paired.of_draws(float(values[a] - values[b]), draws, self.reach(matched), margin)

    def accuracy(self, gain: Array, margin: float) -> paired.Difference:
        """Compare accuracies by each text's gain, (pairs, texts)."""
        if len(gain) == 1:
            return paired.of_shares(gain[0], margin)
        texts = gain.shape[1]
        found = replicates.spread(gain.mean(axis=1), np.cov(gain) / texts, 1 / texts)
        return paired.of_runs(found, margin)

    def shared(self, matched: Matched, kind: str, metric: str, margin: float) -> paired.Difference:
        """Compare by the resamples that all candidates share."""
        values = _differences(self.values[kind, metric], matched)
        draws = _differences(self.draws[kind, metric], matched)
        reach = self.reach(matched) if metric == self.metric else 0.0
        if len(matched) == 1:
            return paired.of_draws(float(values[0]), draws[0], reach, margin)
        return paired.of_runs(replicates.spread(values, np.cov(draws), reach), margin)

    def tuned(self, matched: Matched) -> tuple[float | None, float | None, float | None]:
        """Return the difference of decisions tuned for the metric, and its 95 % interval, by the delta method."""
        if self.tuned_labels is None:
            return None, None, None
        function = metrics.OF_CONFUSION[self.metric]
        used = sorted({i for both in matched for side in both for i in side})
        for i in set(used) - set(self._tuned):
            self._tuned[i] = delta.of_decisions(function, self.truth, self.tuned_labels[i], self.weights, self.classes)
        if len(matched) == 1:
            ((a,), (b,)) = matched[0]
            return paired.of_decisions(function, self._tuned[a], self._tuned[b], self.text, self.sign)
        place = {i: k for k, i in enumerate(used)}
        where = [tuple([place[i] for i in side] for side in both) for both in matched]
        moved = np.stack([np.bincount(self.text, self._tuned[i].influence) for i in used])
        values = self.sign * _differences(np.array([self._tuned[i].value for i in used]), where)
        rows = _differences(moved, where)
        reach = float(np.mean([intervals.reach(function, self._tuned[i].confusion) for i in used]))
        found = replicates.spread(values, rows @ rows.T, reach)
        return found.value, found.value - found.half(), found.value + found.half()

    def reach(self, matched: Matched) -> float:
        """Return how far one text can move the metric of either candidate: the mean over pairs."""
        return float(np.mean([max(self._reach_of(i) for side in both for i in side) for both in matched]))

    def _reach_of(self, i: int) -> float:
        function = metrics.OF_CONFUSION.get(self.metric)
        if i not in self._reach:
            self._reach[i] = intervals.reach(function, self.confusion(i)) if function else 0.0
        return self._reach[i]

    def confusion(self, i: int) -> Array:
        """Return (classes, classes) sums of weights of one run."""
        cells = np.bincount(self.truth * self.classes + self.labels[i], self.weights, self.classes**2)
        return cells.reshape(self.classes, self.classes)


def _differences(per_run: Array, matched: Any) -> Array:
    """Return (pairs, …): the first candidate's mean over a repetition's runs minus the second's, from (runs, …)."""
    return np.stack([per_run[mine].mean(axis=0) - per_run[theirs].mean(axis=0) for mine, theirs in matched])
