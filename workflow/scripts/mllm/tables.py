"""Tables that pass between stages: labelled reviews in, predictions out."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mllm.cli import read_json, whole
from mllm.splits import label_column


def task_facts(data: Path, task: str) -> dict[str, Any]:
    """Of data/split.json: a task's ``names`` of classes in order, and whether they are ``ordered``."""
    return read_json(data / "split.json")["tasks"][task]


def labelled(data: Path, splits: tuple[str, ...], task: str) -> pl.DataFrame:
    """Reviews of some splits that have a label in a task: review_id, group, review, split, label."""
    frames = [
        pl.read_parquet(data / f"{split}.parquet").select(
            "review_id", "group", "review", split=pl.lit(split), label=label_column(task)
        )
        for split in splits
    ]
    return pl.concat(frames).filter(pl.col("label").is_not_null())


def write_predictions(path: Path, rows: pl.DataFrame, logp: np.ndarray[Any, Any]) -> None:
    """Write review_id, split, label and one log-probability (float32) per class."""
    columns = [pl.Series(f"logp_{k}", logp[:, k].astype(np.float32)) for k in range(logp.shape[1])]
    with whole(path) as partial:
        rows.select("review_id", "split", "label").with_columns(columns).write_parquet(partial)


def logp_columns(predictions: pl.DataFrame) -> list[str]:
    return [c for c in predictions.columns if c.startswith("logp_")]
