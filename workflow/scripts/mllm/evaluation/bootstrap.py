"""Scores of candidates, from their predictions alone, each with a 95 % interval.

A text counts once, however many reviews (of several drug names) repeat it: each review has the weight 1 / reviews with its
text, as in scikit-learn's sample_weight. Resampling draws whole texts, since copies are no independent evidence, and the same
ones for every candidate, so that the draws of two candidates can be subtracted: a paired comparison.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from mllm.core.arrays import Array, text_weights
from mllm.evaluation import metrics
from mllm.evaluation.intervals import Z, calibration_error, reach, widened, wilson

RESAMPLES = 2000
SLICE_RESAMPLES = 500  # slices are many, and nothing is chosen or claimed by them
CHUNK = 64  # resamples at once: a row of the product then stays in the processor's cache
SMALLEST = float(np.log(np.finfo(float).eps))  # of a log-probability: none loses infinitely much, as in scikit-learn


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one candidate on some reviews, and on each bootstrap resample of their texts."""

    values: dict[str, float]
    draws: dict[str, Array]
    """metric -> (resamples,)"""
    recall: Array
    """(classes,), NaN where a class does not occur."""
    recall_draws: Array
    """(resamples, classes)"""
    confusion: Array
    """(true, predicted), sums of weights."""
    reliability: Array
    """(bins, 3): weight, mean confidence and accuracy of bins of equal weight; empty where it was not asked for."""
    ece: tuple[float, float] | None = None
    """Ends of the calibration error's interval, which resampling does not give."""

    def intervals(self) -> dict[str, dict[str, float]]:
        """metric -> {value, low, high}, the ends of its 95 % interval."""
        return {name: {"value": self.values[name], **interval(name, self)} for name in self.values}

    def recalls(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """Class -> {value, low, high} of its recall, by Wilson's interval; classes that do not occur are left out."""
        present = [k for k in range(len(names)) if np.isfinite(self.recall[k])]
        ends = {k: wilson(float(self.recall[k]), float(self.confusion[k].sum())) for k in present}
        return {names[k]: {"value": float(self.recall[k]), "low": ends[k][0], "high": ends[k][1]} for k in present}


def interval(metric: str, found: Evaluation) -> dict[str, float]:
    """A 95 % interval that has width and holds its estimate, as {low, high}.

    Accuracy: Wilson's. Others: the 2.5 % and 97.5 % quantiles of the resamples, centred on the estimate (resamples lose rare
    classes, which moves macro averages), and of metrics of decisions with the reach of what no text shows.
    """
    if metric == "ece" and found.ece:
        return dict(zip(("low", "high"), found.ece, strict=True))
    value, draws = found.values[metric], found.draws[metric]
    if metric == "accuracy":
        low, high = wilson(value, float(found.confusion.sum()))
        return {"low": low, "high": high}
    ends = np.quantile(draws - draws.mean() + value, [0.025, 0.975])
    function = metrics.OF_CONFUSION.get(metric)
    extra = Z**2 * reach(function, found.confusion) if function else 0.0
    low, high = widened(value, ends, extra, *metrics.METRICS[metric].ends)
    return {"low": low, "high": high}


class Sample:
    """Labelled reviews with bootstrap resamples of their texts, drawn once for all candidates.

    Args:
        truth: (reviews,) class indices.
        groups: (reviews,) ids; reviews of one text share one.
        classes: their number.
        ordered: whether the classes are ordered.
        seed: of the bootstrap.
        resamples: how often the texts are drawn.
    """

    def __init__(
        self, truth: Array, groups: Array, classes: int, ordered: bool, seed: int, resamples: int = RESAMPLES
    ) -> None:
        self.truth, self.groups, self.classes, self.resamples = truth, groups, classes, resamples
        self.metrics = metrics.of_task(ordered)
        self.weights = text_weights(groups)
        _, self.text = np.unique(groups, return_inverse=True)
        texts = int(self.text.max()) + 1
        rng = np.random.default_rng(seed)
        drawn = np.empty((resamples, texts), dtype=np.uint8)  # no text is drawn 256 times
        for row in drawn:
            row[:] = np.bincount(rng.integers(0, texts, texts), minlength=texts)
        # (texts, resamples): how often each text was drawn, in parts, as the product wants them.
        self._draws = [
            np.ascontiguousarray(drawn[i : i + CHUNK].T, dtype=np.float32) for i in range(0, resamples, CHUNK)
        ]

    def evaluate(self, logp: Array) -> Evaluation:
        """All metrics of one candidate.

        Args:
            logp: (reviews, classes) natural logarithms of the probabilities.
        """
        p = np.exp(logp.max(1).astype(float))
        bins = metrics.confidence_bins(p, self.weights)
        right = logp.argmax(1) == self.truth
        cells = self.classes**2
        confusions, *losses = self._entries(logp)
        gaps = (cells + bins, self.text, self.weights * (p - right))
        sums, draws = self._resampled([confusions, gaps], cells + metrics.BINS, self.resamples)
        # Every text has a loss, so that these sums are no sparse ones.
        dense = np.stack([np.bincount(text, value, self._draws[0].shape[0]) for _, text, value in losses])
        sums = np.insert(sums, cells, dense.sum(axis=1))
        dense = dense.astype(np.float32)
        draws = np.insert(draws, cells, np.concatenate([dense @ chunk for chunk in self._draws], axis=1), axis=0)
        weight, confidence, correct = (
            np.bincount(bins, self.weights * x, metrics.BINS) for x in (np.ones(len(p)), p, right.astype(float))
        )
        used = weight > 0
        reliability = np.stack([weight[used], confidence[used] / weight[used], correct[used] / weight[used]], axis=1)
        sum_of = np.bincount(self.text * metrics.BINS + bins, self.weights * (p - right), len(dense[0]) * metrics.BINS)
        of_text = sum_of.reshape(-1, metrics.BINS)
        spread = of_text.std(axis=0) * np.sqrt(len(of_text))
        value, *ends = calibration_error(of_text.sum(axis=0), spread, float(self.weights.sum()))
        found = self._evaluation(sums, draws, reliability)
        return replace(found, values=found.values | {"ece": value}, ece=(ends[0], ends[1]))

    def evaluate_parts(self, logp: Array, parts: list[Array]) -> list[Evaluation]:
        """All metrics but the calibration error, on parts of the reviews.

        Args:
            logp: (reviews, classes) natural logarithms of the probabilities.
            parts: which reviews belong to each part, (reviews,) booleans. A resample draws from all texts, so that a
                part's size varies as it would in other samples.
        """
        if not parts:
            return []
        height, entries = self.classes**2 + 2, []
        for number, part in enumerate(parts):
            rows = np.flatnonzero(part)
            found = self._entries(logp[rows], rows, text_weights(self.groups[rows]))
            entries += [(number * height + row, text, value) for row, text, value in found]
        resamples = min(SLICE_RESAMPLES, self.resamples)
        sums, draws = self._resampled(entries, len(parts) * height, resamples)
        of_part = [slice(n * height, (n + 1) * height) for n in range(len(parts))]
        return [self._evaluation(sums[s], draws[s], np.empty((0, 3))) for s in of_part]

    def _entries(
        self, logp: Array, rows: Array | None = None, weights: Array | None = None
    ) -> list[tuple[Array, Array, Array]]:
        """(sum, text, value) of the confusion matrix' cells and of the two losses."""
        truth, text = (self.truth, self.text) if rows is None else (self.truth[rows], self.text[rows])
        weights = self.weights if weights is None else weights
        loss = metrics.losses(np.maximum(logp.astype(float), SMALLEST), truth)
        first, cells = self.classes**2, truth * self.classes + logp.argmax(1)
        return [
            (cells, text, weights),
            (np.full(len(truth), first), text, weights * loss["nll"]),
            (np.full(len(truth), first + 1), text, weights * loss["brier"]),
        ]

    def _resampled(self, entries: list[tuple[Array, Array, Array]], height: int, resamples: int) -> tuple[Array, Array]:
        """(sums,) over the reviews, and (sums, resamples): one sparse product."""
        row, text, value = (np.concatenate(part) for part in zip(*entries, strict=True))
        table = csr_array((value, (row, text)), shape=(height, self._draws[0].shape[0]))
        sums, table = table.sum(axis=1), table.astype(np.float32)
        draws = [table @ chunk for chunk in self._draws[: -(-resamples // CHUNK)]]
        return sums, np.concatenate(draws, axis=1)[:, :resamples].astype(float)

    def _evaluation(self, sums: Array, draws: Array, reliability: Array) -> Evaluation:
        one, many = self._metrics(sums[:, None]), self._metrics(draws)
        if "ece" in many:
            # Resampling inflates it as sampling did, and most where there is the least of it: moved back by that much.
            many["ece"] += one["ece"] - many["ece"].mean()
        names = [n for n in self.metrics if n in one]
        confusion = self._confusion(sums[:, None])
        return Evaluation(
            {n: float(one[n][0]) for n in names},
            {n: many[n] for n in names},
            metrics.recall(confusion)[0],
            metrics.recall(self._confusion(draws)),
            confusion[0],
            reliability,
        )

    def _confusion(self, sums: Array) -> Array:
        return sums[: self.classes**2].T.reshape(-1, self.classes, self.classes)

    def _metrics(self, sums: Array) -> dict[str, Array]:
        confusion = self._confusion(sums)
        size = confusion.sum((-2, -1))
        found = {name: function(confusion) for name, function in metrics.OF_CONFUSION.items() if name in self.metrics}
        found |= {name: sums[self.classes**2 + i] / size for i, name in enumerate(("nll", "brier"))}
        gaps = sums[self.classes**2 + 2 :].T
        return found | ({"ece": metrics.calibration_error(gaps, size)} if gaps.size else {})
