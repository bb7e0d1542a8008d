"""Derive the labels of a task from the columns of reviews."""

import contextlib
from typing import Any

import polars as pl

from mllm.core.errors import Failure

SENTIMENTS = ("negative", "neutral", "positive")


def label_column(task: str) -> str:
    """Return the name of the column with a task's class index; null where a review has no label in this task."""
    return f"label_{task}"


def label_map(train: pl.DataFrame, task: dict[str, Any]) -> list[Any]:
    """Return the class names of a task in the order of their indices; conditions are counted on train only."""
    if task.get("classes"):
        return list(task["classes"])
    if task["label"] == "rating":
        return list(range(1, 11))
    if task["label"] == "sentiment":
        return list(SENTIMENTS)
    top = task.get("top") or 0
    counts = train.filter(pl.col("condition").is_not_null()).group_by("condition").len()
    names = counts.sort(["len", "condition"], descending=[True, False])["condition"].to_list()
    if len(names) < top:
        raise Failure(
            f"tasks: top: found {top}, expected at most {len(names)}, the conditions of train: {', '.join(names[:20])}"
        )
    return sorted(names[:top])


def neutral_names(task: dict[str, Any], names: list[Any]) -> list[str]:
    """Return class names for places where wording must not matter: 0, 1, … for classes that the user named."""
    return [str(i) for i in range(len(names))] if task.get("classes") else [str(n) for n in names]


def class_names(task: dict[str, Any], neutral: list[str]) -> list[str]:
    """Return class names for people and prompts: the experiment's words if it has any."""
    return [str(n) for n in task.get("classes") or neutral]


def label_expression(task: dict[str, Any], names: list[Any], schema: pl.Schema) -> pl.Expr:
    """Return the class index of each review, from the columns of data/reviews.parquet."""
    if task.get("classes"):
        kind = schema[task["column"]]
        column = pl.col(task["column"]).cast(pl.Float64 if kind.is_numeric() else pl.String)
        index = {v: i for i, name in enumerate(names) for v in in_kind(kind, task["classes"][name])}
        return column.replace_strict(list(index), list(index.values()), default=None, return_dtype=pl.Int64)
    if task["label"] == "rating":
        return (pl.col("rating") - 1).cast(pl.Int64)
    if task["label"] == "sentiment":
        rating = pl.col("rating")
        return pl.when(rating <= 4).then(0).when(rating <= 6).then(1).when(rating.is_not_null()).then(2).cast(pl.Int64)
    return pl.col("condition").replace_strict({n: i for i, n in enumerate(names)}, default=None, return_dtype=pl.Int64)


def is_ordered(task: dict[str, Any]) -> bool:
    """Return whether a task's classes have an order, so that some confusions are worse than others."""
    return bool(task.get("ordered")) if task.get("classes") else task["label"] != "condition"


def has_one_of(column: pl.Series, values: list[Any]) -> pl.Expr:
    """Return whether a row's column has one of an experiment file's values; 5, "5" and 5.0 are one number."""
    found = pl.col(column.name)
    return (found.cast(pl.Float64) if column.dtype.is_numeric() else found).is_in(in_kind(column.dtype, values))


def in_kind(kind: Any, values: list[Any]) -> list[Any]:
    """Convert an experiment file's values to a column's type: 5, "5" and 5.0 are one number; in text, 5 and "5" are one.

    For a column of numbers, values that are not numbers are left out: they cannot occur there.
    """
    if not kind.is_numeric():
        return [str(v) for v in values]
    numbers = []
    for value in values:
        with contextlib.suppress(ValueError):
            numbers.append(float(value))
    return numbers
