"""Scores of one candidate, from its predictions alone, each with a 95 % interval.

Names and definitions are scikit-learn's. A text counts once, however many reviews (of several drug names) repeat it: each
review has the weight 1 / reviews with its text, as in scikit-learn's sample_weight. Every metric but the likelihood is a
function of the weighted confusion matrix, so all bootstrap resamples are one matrix product.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from mllm.cli import Failure

Array = np.ndarray[Any, np.dtype[Any]]
CHUNK = 100  # resamples at once: memory, not results, depends on it


def accuracy(confusion: Array) -> Array:
    """Share of right labels. ``confusion``: (…, true class, predicted class), counts."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1))


def balanced_accuracy(confusion: Array) -> Array:
    """Mean recall of the classes that occur."""
    support = confusion.sum(-1)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    recall = np.divide(hits, support, out=np.zeros_like(hits, dtype=float), where=support > 0)
    return recall.sum(-1) / (support > 0).sum(-1)


def macro_f1(confusion: Array) -> Array:
    """Mean F1 of the classes that occur or are predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    total = confusion.sum(-1) + confusion.sum(-2)
    f1 = np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
    return f1.sum(-1) / (total > 0).sum(-1)


def kappa(confusion: Array, quadratic: bool) -> Array:
    """Cohen's kappa; ``quadratic`` weights a confusion by its squared distance (ordered labels).

    0 where the chance-expected disagreement is 0, as when everything has one label.
    """
    classes = confusion.shape[-1]
    distance = np.subtract.outer(np.arange(classes), np.arange(classes))
    weights = distance**2.0 if quadratic else (distance != 0).astype(float)
    n = confusion.sum((-2, -1))
    expected = confusion.sum(-1)[..., :, None] * confusion.sum(-2)[..., None, :] / n[..., None, None]
    chance = (weights * expected).sum((-2, -1))
    seen = (weights * confusion).sum((-2, -1))
    return np.where(chance > 0, 1 - seen / np.where(chance > 0, chance, 1), 0.0)


def metrics(ordered: bool) -> dict[str, Callable[[Array], Array]]:
    """The metrics of the confusion matrix by name; kappa is quadratic for ordered labels."""
    return {
        "accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy,
        "macro_f1": macro_f1,
        "kappa": lambda confusion: kappa(confusion, ordered),
    }


@dataclass(frozen=True)
class Resampled:
    """One metric's value on all reviews, and on each bootstrap resample."""

    value: float
    draws: Array

    def interval(self) -> tuple[float, float]:
        """The 2.5 % and 97.5 % quantiles of the resamples."""
        low, high = np.quantile(self.draws, [0.025, 0.975])
        return float(low), float(high)


def text_weights(groups: Array) -> Array:
    """(reviews,): 1 / reviews with the same text."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(1 / sizes[group])


def resample(
    truth: Array, logp: Array, groups: Array, ordered: bool, seed: int, resamples: int = 1000
) -> dict[str, Resampled]:
    """Evaluate all metrics on the reviews and on bootstrap resamples of their texts; see :func:`resample_parts`."""
    everything = np.ones(len(truth), dtype=bool)
    return resample_parts(truth, logp, groups, [everything], ordered, seed, resamples)[0]


def resample_parts(
    truth: Array, logp: Array, groups: Array, parts: list[Array], ordered: bool, seed: int, resamples: int = 1000
) -> list[dict[str, Resampled]]:
    """Evaluate all metrics on parts of the reviews and on bootstrap resamples of the texts, the same for all parts.

    Args:
        truth: (reviews,) class indices.
        logp: (reviews, classes) natural logarithms of the probabilities.
        groups: (reviews,) ids; reviews of one text share one, and one weight. Resampling draws whole groups, since
            copies of a text are no independent evidence.
        parts: which reviews belong to each part, (reviews,) booleans. A resample draws from all texts, so that a part's
            size varies as it would in other samples.
        ordered: whether the classes are ordered.
        seed: of the bootstrap. The same seed draws the same groups for every candidate, so that the
            draws of two candidates can be subtracted: a paired comparison.
        resamples: bootstrap resamples.
    """
    classes = logp.shape[1]
    cells = truth * classes + logp.argmax(1)
    losses = -logp[np.arange(len(truth)), truth].astype(float)
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    # One row for each part and confusion, one for its loss, one for its size; one column for each text. A resample is a
    # column of draws, so that all resamples of all parts are one sparse product.
    height = classes * classes + 2
    entries = []
    for number, part in enumerate(parts):
        rows = np.flatnonzero(part)
        weight = text_weights(groups[rows])
        loss, size = np.full(len(rows), classes * classes), np.full(len(rows), classes * classes + 1)
        for row, value in ((cells[rows], weight), (loss, weight * losses[rows]), (size, weight)):
            entries.append((value, number * height + row, group[rows]))
    values, row, column = (np.concatenate(part) for part in zip(*entries, strict=True))
    table = csr_array((values, (row, column)), shape=(len(parts) * height, count))

    def evaluate(draws: Array) -> list[dict[str, Array]]:
        """``draws``: (texts, resamples), how often each text was drawn."""
        sums = (table @ draws).T.reshape(-1, len(parts), height)
        found = []
        for number in range(len(parts)):
            confusion = sums[:, number, :-2].reshape(-1, classes, classes)
            values = {name: metric(confusion) for name, metric in metrics(ordered).items()}
            found.append(values | {"nll": sums[:, number, -2] / sums[:, number, -1]})
        return found

    rng = np.random.default_rng(seed)
    drawn: list[dict[str, list[Array]]] = [{} for _ in parts]
    for begin in range(0, resamples, CHUNK):
        draws = rng.multinomial(count, np.full(count, 1 / count), min(CHUNK, resamples - begin))
        for into, found in zip(drawn, evaluate(np.ascontiguousarray(draws.T, dtype=float)), strict=True):
            for name, values in found.items():
                into.setdefault(name, []).append(values)
    return [
        {name: Resampled(float(values[0]), np.concatenate(into[name])) for name, values in whole.items()}
        for whole, into in zip(evaluate(np.ones((count, 1))), drawn, strict=True)
    ]


def score(
    truth: Array, logp: Array, groups: Array, ordered: bool, seed: int, resamples: int = 1000
) -> dict[str, dict[str, float]]:
    """metric -> {value, low, high}, the ends of its 95 % interval; arguments as of :func:`resample`."""
    return intervals(resample(truth, logp, groups, ordered, seed, resamples))


def intervals(found: dict[str, Resampled]) -> dict[str, dict[str, float]]:
    """metric -> {value, low, high}, the ends of its 95 % interval."""
    return {
        name: {"value": metric.value, "low": metric.interval()[0], "high": metric.interval()[1]}
        for name, metric in found.items()
    }


def align(predictions: pl.DataFrame, reviews: pl.DataFrame, split: str, label: str) -> pl.DataFrame:
    """Predictions of one split beside the reviews they are about.

    Raises:
        Failure: reviews are missing, stand twice, or carry other labels than the split's.
    """
    mine = predictions.filter(pl.col("split") == split)
    wanted = reviews.filter(pl.col(label).is_not_null()).select("review_id", "group", truth=label)
    if mine["review_id"].is_duplicated().any():
        raise Failure(
            f"{split}: review {mine.filter(pl.col('review_id').is_duplicated())['review_id'][0]} is predicted twice"
        )
    joined = wanted.join(mine, on="review_id", how="left", maintain_order="left")
    absent = joined.filter(pl.col("label").is_null())
    if absent.height or mine.height != wanted.height:
        example = f", the first missing is {absent['review_id'][0]}" if absent.height else ""
        raise Failure(f"{split}: {mine.height} predictions for {wanted.height} reviews{example}; run predict again")
    wrong = joined.filter(pl.col("label") != pl.col("truth"))
    if wrong.height:
        raise Failure(
            f"{split}: review {wrong['review_id'][0]} has label {wrong['label'][0]}, in data/ it is {wrong['truth'][0]}"
        )
    return joined


def log_matrix(predictions: pl.DataFrame, classes: int) -> Array:
    """The columns logp_0 … as a matrix.

    Raises:
        Failure: a column is missing, or a row is no distribution.
    """
    columns = [f"logp_{i}" for i in range(classes)]
    found = [c for c in predictions.columns if c.startswith("logp_")]
    if found != columns:
        raise Failure(f"predictions have the columns {', '.join(found)}; expected {', '.join(columns)}")
    matrix = predictions.select(columns).to_numpy()
    total = np.exp(matrix.astype(float)).sum(1)
    off = np.flatnonzero(~(np.abs(total - 1) < 1e-3))
    if len(off):
        raise Failure(
            f"review {predictions['review_id'][int(off[0])]}: the probabilities sum to {total[off[0]]:.6g}, not 1"
        )
    return matrix
