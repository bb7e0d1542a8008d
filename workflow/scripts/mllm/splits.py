"""Train, validation and test, with no review text in two of them, and the labels of the tasks."""

from typing import Any

import numpy as np
import polars as pl

from mllm.cli import Failure

SENTIMENTS = ("negative", "neutral", "positive")


def split(reviews: pl.DataFrame, mode: str, valid: float, seed: int) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    """Cut cleaned reviews into train, valid and test.

    Args:
        reviews: with ``file`` (train or test) and ``group``.
        mode: official-clean leaves test rows out whose text stands in the train file; official keeps them.
        valid: fraction of the train file's groups that becomes validation.
        seed: of the choice of these groups.

    Returns:
        (split name -> rows, counts about the leak)
    """
    train = reviews.filter(pl.col("file") == "train")
    test = reviews.filter(pl.col("file") == "test")
    leaking = pl.col("group").is_in(train["group"].unique().implode())
    leak = int(test.select(leaking.sum()).item() or 0)
    facts = {"test_rows": test.height, "test_rows_also_in_train": leak, "mode": mode}
    if mode == "official-clean":
        test = test.filter(~leaking)
    groups = train["group"].unique().sort().to_numpy()
    chosen = np.random.default_rng(seed).permutation(groups)[: max(1, round(valid * len(groups)))]
    held_out = pl.col("group").is_in(pl.Series(chosen).implode())
    parts = {"train": train.filter(~held_out), "valid": train.filter(held_out), "test": test}
    for name, part in parts.items():
        if not part.height:
            raise Failure(_empty(name, train.height, facts))
    return parts, facts


def label_column(task: str) -> str:
    """Name of the column with a task's class index; null where a review has no label in this task."""
    return f"label_{task}"


def label_map(train: pl.DataFrame, label: str, top: int | None) -> list[Any]:
    """The class names of a task in the order of their indices; conditions are counted on train alone."""
    if label == "rating":
        return list(range(1, 11))
    if label == "sentiment":
        return list(SENTIMENTS)
    counts = train.filter(pl.col("condition").is_not_null()).group_by("condition").len()
    names = counts.sort(["len", "condition"], descending=[True, False])["condition"].to_list()
    if len(names) < (top or 0):
        raise Failure(f"tasks: top is {top}, but train has only {len(names)} conditions: {', '.join(names[:20])}")
    return sorted(names[:top])


def label_expression(label: str, names: list[Any]) -> pl.Expr:
    """Class index of each review, from the columns of data/reviews.parquet."""
    if label == "rating":
        return (pl.col("rating") - 1).cast(pl.Int64)
    if label == "sentiment":
        rating = pl.col("rating")
        return pl.when(rating <= 4).then(0).when(rating <= 6).then(1).otherwise(2).cast(pl.Int64)
    return pl.col("condition").replace_strict({n: i for i, n in enumerate(names)}, default=None, return_dtype=pl.Int64)


def check_classes(parts: dict[str, pl.DataFrame], task: str, names: list[Any]) -> dict[str, dict[str, int]]:
    """Count the classes in each split.

    Raises:
        Failure: a class is absent from a split, so that it could be neither learnt nor judged.
    """
    counts = {}
    for name, part in parts.items():
        found = dict(part[label_column(task)].drop_nulls().value_counts().iter_rows())
        counts[name] = {str(label): int(found.get(i, 0)) for i, label in enumerate(names)}
        absent = [label for label, count in counts[name].items() if not count]
        if absent:
            raise Failure(
                f"data/{name}.parquet: task {task!r} has no review of class {', '.join(absent)} among {part.height}; "
                f"give more data, a larger split.valid, or a task with fewer classes"
            )
    return counts


def select_part(train: pl.DataFrame, part: dict[str, Any]) -> pl.DataFrame:
    """The reviews of one expert: all of train, one of several random shards, or a slice by columns."""
    if "of" in part:
        groups = train["group"].unique().sort().to_numpy()
        shuffled = np.random.default_rng(part["seed"]).permutation(groups)
        mine = np.array_split(shuffled, part["of"])[part["shard"]]
        return train.filter(pl.col("group").is_in(pl.Series(mine).implode()))
    for column, values in part.get("where", {}).items():
        known = train[column].unique()
        absent = [v for v in values if v not in known]
        if absent:
            examples = ", ".join(map(repr, train[column].drop_nulls().value_counts(sort=True)[column].head(8)))
            raise Failure(
                f"experts: where.{column}: no train review has {absent[0]!r}; the most frequent are {examples}"
            )
        train = train.filter(pl.col(column).is_in(values))
    return train


def _empty(name: str, rows: int, facts: dict[str, Any]) -> str:
    if name == "test":
        return (
            f"data/test.parquet: no test review is left: of {facts['test_rows']}, {facts['test_rows_also_in_train']} "
            f"stand in the train file too (split.mode: {facts['mode']})"
        )
    return f"data/{name}.parquet: no review is left of the train file's {rows}; give more data or another split.valid"
