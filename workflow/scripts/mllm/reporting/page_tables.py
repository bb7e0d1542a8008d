"""Make plain tables for the report's page."""

import re
from pathlib import Path
from typing import Any

import polars as pl

SHARES = ("share", "better", "equivalent", "worse")  # columns in per cent


def table(title: str, rows_of: pl.DataFrame, id_: str) -> dict[str, Any]:
    """Return a table as the page's template needs it."""
    numbers = [dtype.is_numeric() for dtype in rows_of.dtypes]
    rows = [
        [{"text": _text(c, name), "number": n} for c, name, n in zip(row, rows_of.columns, numbers, strict=True)]
        for row in rows_of.rows()
    ]
    heads = [{"text": name, "number": n} for name, n in zip(rows_of.columns, numbers, strict=True)]
    return {"title": title, "columns": heads, "rows": rows, "id": id_, "table": rows_of}


def repairs(results: Path) -> list[dict[str, Any]]:
    """List the repairs of the raw files, where they were cleaned here."""
    file = results / "data/repairs.csv"
    if not file.exists():
        return []
    found = pl.read_csv(file).filter(pl.col("rows") > 0)
    return [table("What was found in the raw files", found, "repairs")]


def file_name(heading: str) -> str:
    """Turn a heading into part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", heading)


def _text(value: Any, column: str) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1%}".replace("%", " %") if column in SHARES else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
