"""Read and write labelled reviews: the split's tables, and the labels that label_reviews writes for a task."""

import hashlib
import io
from pathlib import Path
from typing import Any

import polars as pl

from mllm.core.files import read_json, whole, write_json
from mllm.data.labels import class_names, label_column


def folder_of(data: Path, task: str) -> Path:
    """Return the folder of a task's labels: ``labels.parquet`` and ``task.json``."""
    return data / "tasks" / task


def task_facts(data: Path, task: str) -> dict[str, Any]:
    """Read a task's ``names`` of classes in order, ``label``, ``counts`` (split -> reviews of each class), ``unlabelled``.

    Classes of a user's own column are called 0, 1, …: their wording changes no label.
    """
    return read_json(folder_of(data, task) / "task.json")


def worded_names(data: Path, task: dict[str, Any]) -> list[str]:
    """Return a task's class names for people, in order; ``task`` is its entry in the experiment."""
    return class_names(task, task_facts(data, task["name"])["names"])


def write_task(data: Path, task: str, facts: dict[str, Any], labels: pl.DataFrame) -> None:
    """Write a task's labels (review_id, label) and its facts, with the labels' digest."""
    folder = folder_of(data, task)
    with whole(folder / "labels.parquet") as partial:
        labels.write_parquet(partial, compression="lz4")
    write_json(folder / "task.json", {**facts, "sha256": digest(labels)})


def with_labels(data: Path, split: str, task: str, columns: list[str] | None = None) -> pl.DataFrame:
    """Return the reviews of a split, in its order, with :func:`label_column`; null where a review has no label."""
    rows = pl.read_parquet(data / f"{split}.parquet", columns=columns)
    labels = pl.read_parquet(folder_of(data, task) / "labels.parquet").rename({"label": label_column(task)})
    return rows.join(labels, on="review_id", how="left", maintain_order="left")


def labelled(data: Path, splits: tuple[str, ...], task: str) -> pl.DataFrame:
    """Return the reviews of some splits that have a label in a task: review_id, group, review, split, label."""
    frames = [
        with_labels(data, split, task, ["review_id", "group", "review"]).select(
            "review_id", "group", "review", split=pl.lit(split), label=label_column(task)
        )
        for split in splits
    ]
    return pl.concat(frames).filter(pl.col("label").is_not_null())


def digest(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of a table's content, hexadecimal."""
    stream = io.BytesIO()
    frame.write_ipc(stream)
    return hashlib.sha256(stream.getvalue()).hexdigest()
