"""Write an experiment's tables with a version, and check it when reading: leaderboard, comparisons, selection, …"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from mllm.core.errors import Failure
from mllm.core.files import whole

VERSION = "2"  # of all tables; add 1 if a column is new, or changes its name, unit or meaning
KEY = "mllm tables"


def write(table: pl.DataFrame, results: Path, name: str) -> None:
    """Write ``<name>.csv``, and ``<name>.parquet`` with the tables' version."""
    with whole(results / f"{name}.csv") as partial:
        table.write_csv(partial)
    with whole(results / f"{name}.parquet") as partial:
        table.write_parquet(partial, metadata={KEY: VERSION})


def read(results: Path, name: str, schema: Mapping[str, Any] | None = None) -> pl.DataFrame:
    """Read a table of an experiment's folder by its name.

    Args:
        results: ``results/<name>``.
        name: leaderboard, comparisons, selection, agreement or parts.
        schema: column -> type, where known in advance.

    Raises:
        Failure: the file is missing, damaged, or of another version of the project.
    """
    path = results / f"{name}.parquet"
    fix = f"Fix: delete {path} and rerun its experiment"
    if not path.exists():
        raise Failure(f"{path}: no such file. Fix: run the experiment to its end")
    try:
        version = pl.read_parquet_metadata(path).get(KEY)
        table = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise Failure(f"{path}: not valid Parquet ({error}). {fix}") from None
    if version != VERSION:
        raise Failure(f"{path}: table of another version (found {version or 'none'}, expected {VERSION}). {fix}")
    if schema is not None and table.schema != pl.Schema(schema):
        expected = pl.Schema(schema)
        wrong = sorted({n for n in (*table.columns, *expected) if table.schema.get(n) != expected.get(n)})
        raise Failure(f"{path}: damaged table (wrong or missing: {', '.join(wrong) or 'order of columns'}). {fix}")
    return table
