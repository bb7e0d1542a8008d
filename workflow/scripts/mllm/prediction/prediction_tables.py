"""Write and read the tables of predictions that pass between stages."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mllm.core.errors import Failure
from mllm.core.files import whole
from mllm.data.labelled import task_facts, with_labels
from mllm.data.labels import label_column

SPLITS = ("valid", "test")
PRIORS = ("contextual", "batch")  # columns beside logp of models that are asked; see mllm.prediction.prompt_priors
COST = (
    "n_parameters", "weights_bytes", "flops_per_review", "train_seconds", "load_seconds", "predict_seconds",
    "reviews_per_second", "peak_memory_bytes", "peak_gpu_memory_bytes", "device", "dtype",
)  # fmt: skip


def write_predictions(path: Path, rows: pl.DataFrame, logp: np.ndarray[Any, Any], **more: np.ndarray[Any, Any]) -> None:
    """Write review_id, split, label and one log-probability (float32) per class; ``more`` in columns of that name."""
    columns = [
        pl.Series(f"{name}_{k}", values[:, k].astype(np.float32))
        for name, values in {"logp": logp, **more}.items()
        for k in range(values.shape[1])
    ]
    with whole(path) as partial:
        rows.select("review_id", "split", "label").with_columns(columns).write_parquet(partial)


def logp_columns(predictions: pl.DataFrame) -> list[str]:
    return [c for c in predictions.columns if c.startswith("logp_")]


def align(predictions: pl.DataFrame, reviews: pl.DataFrame, split: str, label: str) -> pl.DataFrame:
    """Join the predictions of one split to its reviews.

    Raises:
        Failure: reviews are missing or duplicated, or their labels differ from the split's.
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
        raise Failure(f"{split}: {mine.height} predictions for {wanted.height} reviews{example}. Fix: rerun predict")
    wrong = joined.filter(pl.col("label") != pl.col("truth"))
    if wrong.height:
        raise Failure(
            f"{split}: review {wrong['review_id'][0]} has label {wrong['label'][0]}, in data/ it is {wrong['truth'][0]}"
        )
    return joined


def log_matrix(predictions: pl.DataFrame, classes: int, kind: str = "logp") -> np.ndarray[Any, Any]:
    """Return the columns logp_0 …, or those of another kind, as a matrix, (reviews, classes).

    Raises:
        Failure: a column is missing, or a row is no distribution.
    """
    columns = [f"{kind}_{i}" for i in range(classes)]
    found = [c for c in predictions.columns if c.startswith(f"{kind}_")]
    if found != columns:
        raise Failure(f"predictions have the columns {', '.join(found)}; expected {', '.join(columns)}")
    matrix = predictions.select(columns).to_numpy()
    total = np.exp(matrix.astype(float)).sum(1)
    off = np.flatnonzero(~(np.abs(total - 1) < 1e-3))
    if len(off):
        raise Failure(
            f"review {predictions['review_id'][int(off[0])]}: the probabilities sum to {total[off[0]]:.6g}, expected 1"
        )
    return matrix


class Reviews:
    """The reviews of validation and test that have a label in a task.

    Args:
        data: folder that split_reviews or import_predictions wrote.
        task: the task whose labels label_reviews wrote there.
    """

    def __init__(self, data: Path, task: str) -> None:
        self.task, self.facts = task, task_facts(data, task)
        self.names: list[str] = self.facts["names"]
        self.column = label_column(task)
        self.rows = {
            s: with_labels(data, s, task).select(pl.exclude("review")).filter(pl.col(self.column).is_not_null())
            for s in SPLITS
        }

    def read(self, path: Path, kind: str = "logp") -> dict[str, np.ndarray[Any, Any]]:
        """Read a candidate's log-probabilities by split, in the order of the reviews.

        Args:
            path: the candidate's table.
            kind: logp, or a prior: its columns are without that prior.

        Raises:
            Failure: reviews are missing or duplicated, labels differ, or rows are no distributions.
        """
        try:
            predictions = pl.read_parquet(path)
            aligned = {s: align(predictions, self.rows[s], s, self.column) for s in SPLITS}
            return {s: log_matrix(rows, len(self.names), kind) for s, rows in aligned.items()}
        except Failure as failure:
            raise Failure(f"{path}: {failure}") from None

    @staticmethod
    def priors(path: Path) -> list[str]:
        """Return the priors that a candidate's table also has predictions without."""
        columns = pl.read_parquet_schema(path)
        return [kind for kind in PRIORS if f"{kind}_0" in columns]
