"""Lay out the leaderboard for the page, cell by cell."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from mllm.evaluation import comparison_table, leaderboard
from mllm.evaluation.metrics import METRICS, OF_CONFUSION
from mllm.reporting.colours import KINDS


@dataclass(frozen=True)
class Column:
    """Describe one column: its title, the table's column behind it, and the screens that show it."""

    title: str
    key: str
    room: str = ""
    """Empty: all screens; middle: not on phones; wide: only on wide screens."""
    percent: bool = False
    interval: str = ""
    """Column whose interval is shown below the value."""
    deviation: str = ""
    """Column of the standard deviation shown below the value."""


def board(rows: pl.DataFrame, claims: pl.DataFrame, metric: str, id_: str) -> dict[str, Any]:
    """Return the table as the template needs it.

    Args:
        rows: of the leaderboard, one task.
        claims: of the task.
        metric: of the experiment.
        id_: of the table on the page.
    """
    primary = claims.filter(family="primary")["against"].head(1).to_list()
    said = {c.candidate: c.answer for c in comparison_table.rows(claims) if [c.against] == primary}
    columns = _columns(rows, metric)
    if primary:
        columns.insert(2, Column(f"replace {primary[0]}?", "answer", "middle"))
    rows = rows.with_columns(answer=pl.col("candidate").replace_strict(said, default="", return_dtype=pl.String))
    lines = [
        {"kind": row["kind"], "name": row["candidate"], "winner": row["winner"], "cells": [_cell(row, c) for c in columns]}
        for row in rows.iter_rows(named=True)
    ]  # fmt: skip
    heads = [
        {"title": c.title, "room": c.room, "number": c.key not in ("candidate", "kind", "answer")} for c in columns
    ]
    kinds = [k for k in KINDS if k in set(rows["kind"])]
    return {"id": id_, "task": rows["task"][0], "kinds": kinds, "columns": heads, "rows": lines}


def _columns(rows: pl.DataFrame, metric: str) -> list[Column]:
    label = METRICS[metric].label
    several, accuracy = rows["runs"].max() != 1, metric != "accuracy"
    return [
        Column("candidate", "candidate"),
        Column("kind", "kind", "middle"),
        Column(f"{label} on validation", f"valid_{metric}", "middle"),
        Column(f"{label} on test", f"test_{metric}", interval=f"test_{metric}"),
        *([Column("runs", "runs", "wide", deviation=f"test_{metric}_sd")] if several else []),
        *([Column("accuracy on test", "test_accuracy", "middle", percent=True)] if accuracy else []),
        *([Column("offsets fitted", f"test_tuned_{metric}", "wide")] if metric in OF_CONFUSION else []),
        Column("rank", "rank", interval="rank"),
        Column("parameters", "n_parameters", "wide"),
        Column("FLOPs / review", "flops_per_review", "middle"),
        Column("reviews / s", "reviews_per_second", "wide"),
    ]  # fmt: skip


def _cell(row: dict[str, Any], column: Column) -> dict[str, Any]:
    """Return the shown text, the value to sort by, and the interval below."""
    value = row[column.key]
    below = [row[f"{column.interval}_{end}"] for end in ("low", "high")] if column.interval else []
    interval = " – ".join(_text(v, column) for v in below) if below and None not in below else ""
    if column.deviation and row[column.deviation] is not None:
        interval = f"sd {row[column.deviation]:.3f}"
    return {
        "shown": _text(value, column),
        "value": "" if value is None else value,
        "interval": interval,
        "room": column.room,
    }


def _text(value: Any, column: Column) -> str:
    if value is None:
        return ""
    if column.key in ("n_parameters", "flops_per_review"):
        return leaderboard.count(value)
    if column.key == "reviews_per_second":
        return f"{value:,.0f}"
    if isinstance(value, float):
        return f"{value:.1%}".replace("%", " %") if column.percent else f"{value:.3f}"
    return str(value)
