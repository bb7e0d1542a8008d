"""Tables of the report's page, cell by cell."""

from typing import Any

import polars as pl

from mllm.evaluation import leaderboard


def cell(row: dict[str, Any], key: str, metric: str, number: bool) -> dict[str, Any]:
    """One cell of the leaderboard on the page: what is shown, what it is sorted by, whether it is a number."""
    if key == "":
        low, high = row[f"test_{metric}_low"], row[f"test_{metric}_high"]
        return {"shown": f"{low:.3f} – {high:.3f}", "value": low, "number": True}
    value = row[key]
    if isinstance(value, bool) or value is None:
        shown = {"winner": "★", "pareto": "yes"}.get(key, "") if value else ""
        return {"shown": shown, "value": int(bool(value)) if value is not None else "", "number": number}
    if key == "rank_low":
        return {"shown": f"{value} – {row['rank_high']}", "value": value, "number": True}
    if key in ("n_parameters", "flops_per_review"):
        return {"shown": leaderboard.count(value), "value": value, "number": True}
    if key == "reviews_per_second":
        return {"shown": f"{value:,.0f}", "value": value, "number": True}
    return {
        "shown": f"{value:.3f}" if isinstance(value, float) else value,
        "value": value,
        "number": number,
        "kind": key == "kind",
    }


def table(title: str, rows_of: pl.DataFrame, id_: str) -> dict[str, Any]:
    """A table as the page's template takes it."""
    numbers = [dtype.is_numeric() for dtype in rows_of.dtypes]
    rows = [
        [
            {"text": "" if c is None else f"{c:.4g}" if isinstance(c, float) else c, "number": n}
            for c, n in zip(row, numbers, strict=True)
        ]
        for row in rows_of.rows()
    ]
    heads = [{"text": name, "number": n} for name, n in zip(rows_of.columns, numbers, strict=True)]
    return {"title": title, "columns": heads, "rows": rows, "id": id_, "table": rows_of}
