"""Score candidates from their predictions alone, each score with a 95 % interval.

A text counts once, however many reviews (of several drug names) repeat it: each review weighs 1 / reviews with its text, as
in scikit-learn's sample_weight. Resampling draws texts, because copies are no independent evidence. It draws the same
texts for every candidate and every task, so that the draws of two candidates can be subtracted: a paired comparison.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from mllm.core.arrays import Array, text_weights
from mllm.evaluation import delta, metrics
from mllm.evaluation import resamples as resampling
from mllm.evaluation.intervals import Z, calibration_error, reach, widened, wilson

RESAMPLES = 2000
LEFT_OUT = 256  # resamples whose left-out texts are scored, too
CHUNK = 256  # resamples in one product
DENSE = 24  # classes up to which the product is dense; with more classes a sparse one is quicker
FEW = 64  # resamples in one sparse product, because all their confusion matrices are in memory
SMALLEST = float(np.log(np.finfo(float).eps))  # log-probability: keeps losses finite, as scikit-learn does


@dataclass(frozen=True)
class Evaluation:
    """Hold one candidate's metrics on some reviews, and on each bootstrap resample of their texts."""

    values: dict[str, float]
    draws: dict[str, Array]
    """metric -> (resamples,); empty where the sample has no resamples."""
    recall: Array
    """(classes,), NaN where a class does not occur."""
    confusion: Array
    """(true, predicted), sums of weights."""
    reliability: Array
    """(bins, 3): weight, mean confidence and accuracy of bins of equal weight; empty where it was not requested."""
    ends: dict[str, tuple[float, float]]
    """metric -> ends of its interval, where resamples do not give them: the calibration error, or all metrics without resamples."""

    def intervals(self) -> dict[str, dict[str, float]]:
        """Return metric -> {value, low, high}, with the ends of its 95 % interval."""
        return {name: {"value": self.values[name], **interval(name, self)} for name in self.values}

    def recalls(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return class -> {value, low, high} of its recall, with Wilson's interval; classes that do not occur are left out."""
        present = [k for k in range(len(names)) if np.isfinite(self.recall[k])]
        ends = {k: wilson(float(self.recall[k]), float(self.confusion[k].sum())) for k in present}
        return {names[k]: {"value": float(self.recall[k]), "low": ends[k][0], "high": ends[k][1]} for k in present}


def interval(metric: str, found: Evaluation) -> dict[str, float]:
    """Return a 95 % interval that has width and holds its estimate, as {low, high}.

    Accuracy has Wilson's interval. Other metrics have the 2.5 % and 97.5 % quantiles of the resamples, centred on the estimate,
    because resamples lose rare classes, which moves macro averages. Metrics of decisions also get ``intervals.reach``.
    """
    if metric in found.ends:
        return dict(zip(("low", "high"), found.ends[metric], strict=True))
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
    """Hold labelled reviews with bootstrap resamples of their texts, drawn once for all candidates.

    Args:
        truth: (reviews,) class indices.
        groups: (reviews,) ids; reviews of one text share one.
        classes: their number.
        ordered: whether the classes are ordered.
        seed: of the bootstrap.
        resamples: how often the texts are drawn; 0: the delta method gives the intervals.
        split: ids of all reviews of the split, with a label or without (default: ``groups``).
    """

    def __init__(
        self, truth: Array, groups: Array, classes: int, ordered: bool, seed: int, resamples: int = RESAMPLES,
        split: Array | None = None,
    ) -> None:  # fmt: skip
        self.truth, self.groups, self.classes, self.resamples = truth, groups, classes, resamples
        self.metrics = metrics.of_task(ordered)
        self.weights = text_weights(groups)
        own, self.text = np.unique(groups, return_inverse=True)
        self.texts = len(own)
        drawn = resampling.draw(own, groups if split is None else split, resamples, seed)
        # A unit is one text's reviews of one true class, sorted by class: within a class, predictions are one dense product.
        units, self.unit = np.unique(truth.astype(np.int64) * self.texts + self.text, return_inverse=True)
        self.units, unit_text = len(units), units % self.texts
        starts = np.searchsorted(units // self.texts, np.arange(classes + 1))
        self.blocks = [(k, slice(starts[k], starts[k + 1])) for k in range(classes) if starts[k] < starts[k + 1]]
        # (units, resamples): how often each unit's text was drawn, in parts of the size that the product needs.
        step = CHUNK if classes <= DENSE else FEW
        self._draws = [
            np.ascontiguousarray(drawn[i : i + step, unit_text].T, dtype=np.float32) for i in range(0, resamples, step)
        ]

    def evaluate(self, logp: Array) -> Evaluation:
        """Score one candidate by all metrics.

        Args:
            logp: (reviews, classes) natural logarithms of the probabilities.
        """
        return self.evaluate_all([logp])[0]

    def evaluate_all(self, logps: Sequence[Array]) -> list[Evaluation]:
        """Score several candidates, (reviews, classes) each, in one product with the resamples: quicker than one by one."""
        parts = [self._part(logp) for logp in logps]
        sums = [(said, rest) for said, rest, _ in parts]
        draws = self._drawn_metrics(sums, self._draws)
        return [replace(found, draws=drawn) for (_, _, found), drawn in zip(parts, draws, strict=True)]

    def on_left_out(self, logp: Array) -> dict[str, Array]:
        """Return metric -> (LEFT_OUT,) of one candidate, each on the texts that a resample left out and that did not choose."""
        said, rest, _ = self._part(logp)
        some = [chunk == 0 for chunk in self._draws[: -(-LEFT_OUT // self._draws[0].shape[1])]]
        for mask in some:
            mask[:, ~mask.any(0)] = True  # a resample of very few texts may draw all of them
        return self._drawn_metrics([(said, rest)], [mask.astype(np.float32) for mask in some])[0]

    def _part(self, logp: Array) -> tuple[Array | csr_array, Array, Evaluation]:
        """Return the (classes or cells, units) and (losses, units) that resampling needs, and an evaluation without draws."""
        p = np.exp(logp.max(1).astype(float))
        bins, label = metrics.confidence_bins(p, self.weights), logp.argmax(1)
        right = label == self.truth
        loss = metrics.losses(np.maximum(logp.astype(float), SMALLEST), self.truth)
        gap = self.weights * (p - right)
        side = np.sign(np.bincount(bins, gap, metrics.BINS))
        # The calibration error is linear in the bins' gaps while no gap changes its sign: one row replaces one row for each bin.
        of_review = [self.weights * loss["nll"], self.weights * loss["brier"], side[bins] * gap]
        rest = np.stack([np.bincount(self.unit, value, self.units) for value in of_review])
        said = self._summed(label, self.weights, self.classes) if self.classes <= DENSE else self._sparse(label)
        confusion = np.bincount(self.truth * self.classes + label, self.weights, self.classes**2)
        one = self._metrics(confusion.reshape(1, self.classes, -1), rest.sum(1)[:, None])
        reliability, ece = self._reliability(bins, p, right)
        values = {n: float(one[n][0]) for n in self.metrics if n in one} | {"ece": ece[0]}
        matrix = confusion.reshape(self.classes, self.classes)
        ends = {"ece": ece[1:]}
        if not self._draws:
            whole = self.evaluate_parts(logp, [np.ones(len(logp), dtype=bool)])[0]
            ends |= {name: (found["low"], found["high"]) for name, found in whole.items()}
        return said, rest, Evaluation(values, {}, metrics.recall(matrix), matrix, reliability, ends)

    def _reliability(self, bins: Array, p: Array, right: Array) -> tuple[Array, tuple[float, float, float]]:
        """Return (bins, 3) weight, mean confidence and accuracy of the bins in use, and the calibration error with its interval."""
        weight, confidence, correct = (
            np.bincount(bins, self.weights * x, metrics.BINS) for x in (np.ones(len(p)), p, right.astype(float))
        )
        used, gap = weight > 0, self.weights * (p - right)
        of_text = np.bincount(bins * self.texts + self.text, gap, metrics.BINS * self.texts).reshape(-1, self.texts)
        ece = calibration_error(of_text.sum(1), of_text.std(1) * np.sqrt(self.texts), float(weight.sum()))
        table = np.stack([weight[used], confidence[used] / weight[used], correct[used] / weight[used]], axis=1)
        return table, ece

    def _summed(self, row: Array, value: Array, rows: int) -> Array:
        """Sum values of reviews by unit: (rows, units)."""
        return np.bincount(row * self.units + self.unit, value, rows * self.units).reshape(rows, self.units)

    def _sparse(self, label: Array) -> csr_array:
        """Return (classes², units) weights of each cell of the confusion matrix."""
        cells = self.truth.astype(np.int64) * self.classes + label
        return csr_array((self.weights, (cells, self.unit)), shape=(self.classes**2, self.units), dtype=np.float32)

    def _drawn_metrics(
        self, parts: Sequence[tuple[Array | csr_array, Array]], draws: Sequence[Array]
    ) -> list[dict[str, Array]]:
        """Compute each metric of several candidates on each resample.

        Args:
            parts: (classes, units) weights of predicted classes, or (classes², units) of cells, sparse; (losses, units).
            draws: (units, some resamples) how often each unit counts.
        """
        found: list[dict[str, list[Array]]] = [{} for _ in parts]
        rows = self.classes + len(parts[0][1])
        dense = self.classes <= DENSE
        table = np.concatenate([row for part in parts for row in part]).astype(np.float32) if dense else None
        for chunk in draws:
            resamples = chunk.shape[1]
            if table is None:
                sums = [((said @ chunk).T.astype(float), (rest.astype(np.float32) @ chunk).astype(float)) for said, rest in parts]  # fmt: skip
            else:
                confusion = np.zeros((len(parts), resamples, self.classes, self.classes))
                losses = np.zeros((len(parts), rows - self.classes, resamples))
                for k, block in self.blocks:
                    product = (table[:, block] @ chunk[block]).reshape(len(parts), rows, resamples)
                    confusion[:, :, k] = product[:, : self.classes].swapaxes(1, 2)
                    losses += product[:, self.classes :]
                sums = list(zip(confusion, losses, strict=True))
            for one, (cells, rest) in zip(found, sums, strict=True):
                for name, values in self._metrics(cells.reshape(resamples, self.classes, -1), rest).items():
                    one.setdefault(name, []).append(values)
        return [{name: np.concatenate(one[name]) for name in self.metrics if name in one} for one in found]

    def _metrics(self, confusion: Array, rest: Array) -> dict[str, Array]:
        """Return metric -> (resamples,), from (resamples, classes, classes) and (losses, resamples)."""
        size = confusion.sum((-2, -1))
        found = {name: function(confusion) for name, function in metrics.OF_CONFUSION.items() if name in self.metrics}
        return found | {name: rest[i] / size for i, name in enumerate(("nll", "brier", "ece"))}

    def evaluate_parts(self, logp: Array, parts: list[Array]) -> list[dict[str, dict[str, float]]]:
        """Return metric -> {value, low, high} on parts of the reviews, for all metrics but the calibration error.

        There are many slices, and no choice or claim uses them. So the delta method gives their standard errors from sums, without
        resamples: the metric is linear, approximately, in what each text adds to it.

        Args:
            logp: (reviews, classes) natural logarithms of the probabilities.
            parts: which reviews belong to each part, (reviews,) booleans.
        """
        label, loss = logp.argmax(1), metrics.losses(np.maximum(logp.astype(float), SMALLEST), self.truth)
        found = []
        for part in parts:
            rows = np.flatnonzero(part)
            weights = text_weights(self.groups[rows])
            one = {n: self._decided(n, label[rows], rows, weights) for n in self.metrics if n in metrics.OF_CONFUSION}
            for name, of in loss.items():
                value = float(weights @ of[rows] / weights.sum())
                error = delta.standard_error(weights * (of[rows] - value) / weights.sum(), self.text[rows])
                one[name] = {"value": value, "low": value - Z * error, "high": value + Z * error}
            found.append({name: one[name] for name in self.metrics if name in one})
        return found

    def decided(self, labels: dict[str, Array]) -> dict[str, dict[str, float]]:
        """Return metric -> {value, low, high} of the decisions made for that metric, (reviews,) classes each, without resamples."""
        rows = np.arange(len(self.truth))
        return {name: self._decided(name, label, rows, self.weights) for name, label in labels.items()}

    def _decided(self, name: str, label: Array, rows: Array, weights: Array) -> dict[str, float]:
        """Return {value, low, high} of a metric on some reviews: Wilson's interval, or the delta method's with a text's reach."""
        function = metrics.OF_CONFUSION[name]
        found = delta.of_decisions(function, self.truth[rows], label, weights, self.classes)
        if name == "accuracy":
            low, high = wilson(found.value, float(weights.sum()))
        else:
            error = delta.standard_error(found.influence, self.text[rows])
            ends = np.array([found.value - Z * error, found.value + Z * error])
            extra = Z**2 * reach(function, found.confusion)
            low, high = widened(found.value, ends, extra, *metrics.METRICS[name].ends)
        return {"value": found.value, "low": low, "high": high}
