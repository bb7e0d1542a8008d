"""Split reviews into train, validation and test by their texts; select the part of train that an expert learns."""

from collections import Counter
from typing import Any

import numpy as np
import polars as pl

from mllm.core.errors import Failure
from mllm.data.labels import has_one_of, in_kind, label_column

TEST_SHARE = 0.25  # share of the texts in the official files, and by default in a random split


def split(
    reviews: pl.DataFrame, how: dict[str, Any], seed: int, stratum: pl.Expr | None = None
) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    """Split cleaned reviews into train, valid and test.

    Args:
        reviews: a table with ``file`` (train or test) and ``group``.
        how: ``mode`` is official-clean (leaves out test rows whose text is also in the train file), official (keeps
            them) or random (draws test from all rows). ``valid`` and, for random only, ``test`` are fractions of the
            groups.
        seed: the seed of the choice of groups.
        stratum: for random: the classes, of which each split gets the same shares. A group's first review decides.

    Returns:
        (split name -> rows, {mode, test_rows, test_rows_also_in_train})

    Raises:
        Failure: a split is empty.
    """
    train = reviews.filter(pl.col("file") == "train")
    test = reviews.filter(pl.col("file") == "test")
    leaking = pl.col("group").is_in(train["group"].unique().implode())
    leak = int(test.select(leaking.sum()).item() or 0)
    facts = {"mode": how["mode"], "test_rows": test.height, "test_rows_also_in_train": leak}
    if how["mode"] == "random":
        parts = _random(reviews, how["valid"], how.get("test") or TEST_SHARE, seed, stratum)
    else:
        if how["mode"] == "official-clean":
            test = test.filter(~leaking)
        groups = train["group"].unique().sort().to_numpy()
        chosen = np.random.default_rng(seed).permutation(groups)[: max(1, round(how["valid"] * len(groups)))]
        held_out = pl.col("group").is_in(pl.Series(chosen).implode())
        parts = {"train": train.filter(~held_out), "valid": train.filter(held_out), "test": test}
    for name, part in parts.items():
        if not part.height:
            raise Failure(_empty(name, reviews.height if how["mode"] == "random" else train.height, facts))
    return parts, facts


def _random(
    reviews: pl.DataFrame, valid: float, test: float, seed: int, stratum: pl.Expr | None
) -> dict[str, pl.DataFrame]:
    """Draw complete groups, class by class: the first ones become test, the next validation."""
    first = reviews.sort("review_id").unique("group", keep="first", maintain_order=True)
    strata = first.select("group", stratum=stratum if stratum is not None else pl.lit(0)).sort("group")
    rng = np.random.default_rng(seed)
    chosen: dict[str, list[Any]] = {"test": [], "valid": []}
    for _, members in sorted(strata.group_by("stratum"), key=lambda item: str(item[0])):
        shuffled = rng.permutation(members["group"].sort().to_numpy())
        ends = round(test * len(shuffled)), round((test + valid) * len(shuffled))
        chosen["test"].append(shuffled[: ends[0]])
        chosen["valid"].append(shuffled[ends[0] : ends[1]])
    of = {name: pl.col("group").is_in(pl.Series(np.concatenate(found)).implode()) for name, found in chosen.items()}
    return {
        "train": reviews.filter(~of["test"] & ~of["valid"]),
        "valid": reviews.filter(of["valid"]),
        "test": reviews.filter(of["test"]),
    }


def absent_values(column: pl.Series, values: list[Any]) -> list[Any]:
    """Return the values that the column does not have."""
    known = set(column.drop_nulls().unique().to_list())
    return [v for v in values if not known & set(in_kind(column.dtype, [v]))]


def most_frequent(column: pl.Series) -> str:
    """Return the most frequent values of a column, for a message."""
    return ", ".join(map(repr, column.drop_nulls().value_counts(sort=True, name="#").to_series().head(8)))


def check_values(
    reviews: pl.DataFrame, task: dict[str, Any], wheres: dict[str, dict[str, list[Any]]] | None = None
) -> None:
    """Refuse values of a task's classes and of its experts' slices that no review has, before any training.

    Raises:
        Failure: lists all errors: values that no review has, and values of two classes that are one number.
    """
    problems = []
    classes = task.get("classes") or {}
    for name, values in classes.items():
        absent = absent_values(reviews[task["column"]], values)
        if absent:
            problems.append(
                f"tasks: {task['name']}: class {name!r}: no review has {', '.join(map(repr, absent))} in"
                f" {task['column']}; the most frequent are {most_frequent(reviews[task['column']])}"
            )
    kind = reviews.schema[task["column"]] if classes else pl.String()
    same = Counter(v for values in classes.values() for v in in_kind(kind, values))
    problems += [f"tasks: {task['name']}: {v!r} occurs {n} times in classes" for v, n in same.items() if n > 1]
    for expert, where in (wheres or {}).items():
        for column, values in where.items():
            absent = absent_values(reviews[column], values)
            if absent:
                problems.append(
                    f"experts: {expert}: where.{column}: no review has {', '.join(map(repr, absent))};"
                    f" the most frequent are {most_frequent(reviews[column])}"
                )
    if problems:
        raise Failure("\n".join(problems))


def count_classes(parts: dict[str, pl.DataFrame], task: str, names: list[Any]) -> dict[str, list[int]]:
    """Count the reviews of each class, in the classes' order, in each split.

    Args:
        parts: split -> table with the column ``label``.
        task: the task's name, for the message.
        names: the classes' names.

    Raises:
        Failure: a class is missing in a split, so that it could be neither learned nor evaluated.
    """
    counts = {}
    for split, part in parts.items():
        found = dict(part["label"].drop_nulls().value_counts().iter_rows())
        counts[split] = [int(found.get(i, 0)) for i in range(len(names))]
        absent = [str(name) for name, count in zip(names, counts[split], strict=True) if not count]
        if absent:
            raise Failure(
                f"data/{split}.parquet: task {task!r} has no review of class {', '.join(absent)} among {part.height}. "
                f"Fix: use more data, {'' if split == 'train' else f'a larger split.{split}, '}or fewer classes"
            )
    return counts


def select_part(
    train: pl.DataFrame, part: dict[str, Any], task: str | None = None, strict: bool = True
) -> pl.DataFrame:
    """Select the reviews of one expert: all of train, a random shard, or a slice by columns; capped per class; or a union.

    Args:
        train: reviews of train; or of validation, with ``strict`` off, since it may lack rare values.
        part: shard, of and seed; where; cap and seed; union of several parts; or empty.
        task: the task whose classes are capped.
        strict: refuse values that no review has.
    """
    if "union" in part:
        ids = [select_part(train, one, task, strict)["review_id"] for one in part["union"]]
        return train.filter(pl.col("review_id").is_in(pl.concat(ids).unique().implode()))
    if "of" in part:
        groups = train["group"].unique().sort().to_numpy()
        if part["of"] > len(groups):
            raise Failure(
                f"experts: parts: found {part['of']}, expected at most {len(groups)}, the number of distinct texts in train"
            )
        shuffled = np.random.default_rng(part["seed"]).permutation(groups)
        mine = np.array_split(shuffled, part["of"])[part["shard"]]
        train = train.filter(pl.col("group").is_in(pl.Series(mine).implode()))
    for column, values in part.get("where", {}).items():
        absent = absent_values(train[column], values)
        if absent and strict:
            raise Failure(
                f"experts: where.{column}: no train review has {absent[0]!r}; the most frequent are {most_frequent(train[column])}"
            )
        train = train.filter(has_one_of(train[column], values))
    if "cap" in part and task is not None:
        train = _capped(train, label_column(task), part["cap"], part["seed"])
    return train


def _capped(train: pl.DataFrame, label: str, cap: int, seed: int) -> pl.DataFrame:
    """Draw at most ``cap`` reviews of each class by ``seed``, independently of the order of the rows."""
    ids = train["review_id"].sort().to_numpy()
    # No column of a user's own can have this name.
    order = pl.DataFrame({"review_id": ids, "#order": np.random.default_rng(seed).permutation(len(ids))})
    drawn = train.join(order, on="review_id", maintain_order="left")
    return drawn.filter(pl.col("#order").rank("ordinal").over(label) <= cap).drop("#order")


def _empty(name: str, rows: int, facts: dict[str, Any]) -> str:
    if name == "test" and facts["mode"] != "random":
        return (
            f"data/test.parquet: no test review is left: of {facts['test_rows']}, {facts['test_rows_also_in_train']} "
            f"are also in the train file (split.mode: {facts['mode']}). Fix: use another test file or split.mode: random"
        )
    return f"data/{name}.parquet: no review is left of {rows}. Fix: use more data or other fractions in split"
