"""Labelled reviews: what split_reviews wrote, with a task's classes."""

import hashlib
import io
from pathlib import Path
from typing import Any

import polars as pl

from mllm.core.files import read_json
from mllm.data.labels import label_column


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


def digest(frame: pl.DataFrame) -> str:
    """SHA-256 over a table's content, hexadecimal."""
    stream = io.BytesIO()
    frame.write_ipc(stream)
    return hashlib.sha256(stream.getvalue()).hexdigest()
