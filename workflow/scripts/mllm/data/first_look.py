"""Check raw files before any job: find missing columns, and values of slices and classes that no review has."""

import contextlib
from pathlib import Path
from typing import Any

import polars as pl

from mllm.core.errors import Failure
from mllm.data.cleaning import unescape
from mllm.data.raw_files import Columns, read_header, read_raw

Slices = dict[str, dict[str, list[Any]]]
"""Expert -> {column: values}."""
Classes = dict[str, tuple[str, dict[str, list[Any]]]]
"""Task -> column and {class: values}."""


def look(
    files: list[Path], columns: Columns | None, quotes: bool, slices: Slices, classes: Classes | None = None
) -> None:
    """Compare an experiment with those of its raw files that exist.

    Args:
        files: raw files; values are checked only if all of them exist.
        columns: our column -> the files' columns; ``None`` for the UCI names.
        quotes: as for :func:`mllm.data.raw_files.read_raw`.
        slices: the slices of the experts that are not trained yet.
        classes: the classes of the tasks that are not labelled yet.

    Raises:
        Failure: a column is missing, or no row has a value that an expert's slice or a class names.
    """
    there = [f for f in files if f.is_file() and f.stat().st_size]
    read = {file: read_header(file, columns, quotes) for file in there}
    if there != files:
        return
    asked = [(f"experts: {e}: where.{c}", c, values) for e, where in slices.items() for c, values in where.items()]
    asked += [
        (f"tasks: {task}: class {name!r}", column, values)
        for task, (column, named) in (classes or {}).items()
        for name, values in named.items()
    ]
    found: dict[str, pl.DataFrame] = {}
    for column in dict.fromkeys(column for _, column, _ in asked):
        names = [(file, delimiter, chosen.get(column, [])) for file, (delimiter, _, chosen) in read.items()]
        if all(len(n) == 1 for *_, n in names):  # neither derived from another column, nor joined from several
            with contextlib.suppress(pl.exceptions.PolarsError):  # the cleaning reports broken rows
                found[column] = pl.concat(_values(file, delimiter, n[0], quotes) for file, delimiter, n in names)
    problems = []
    for place, column, values in asked:
        absent = [v for v in values if column in found and not _has(found[column], column, v)]
        if absent:
            frequent = _frequent(found[column])
            problems.append(f"{place}: no review has {', '.join(map(repr, absent))}; the most frequent are {frequent}")
    if problems:
        for file in files:  # a broken row is the error to report
            read_raw(file, columns, quotes)
        raise Failure("\n".join(problems))


def _values(file: Path, delimiter: str, name: str, quotes: bool) -> pl.DataFrame:
    """Count a column's values, stripped and without HTML escapes: ``value`` and ``rows``."""
    quote = '"' if quotes else None
    table = pl.read_csv(
        file, columns=[name], separator=delimiter, quote_char=quote, infer_schema=False, glob=False
    ).drop_nulls()
    counts = table[name].value_counts(name="rows")
    plain = pl.Series([unescape(value).strip() for value in counts[name]], dtype=pl.String)
    return pl.DataFrame({"value": plain, "rows": counts["rows"].cast(pl.Int64)})


def _has(found: pl.DataFrame, column: str, value: Any) -> bool:
    """Return whether a value occurs, as text or as a number; a condition may be cut in the file and restored later."""
    texts = found["value"]
    if str(value) in texts or (column == "condition" and any(text and text in str(value) for text in texts)):
        return True
    with contextlib.suppress(ValueError):
        return bool((texts.cast(pl.Float64, strict=False) == float(value)).any())
    return False


def _frequent(found: pl.DataFrame) -> str:
    counts = found.group_by("value").agg(pl.col("rows").sum()).filter(pl.col("value") != "")
    return ", ".join(map(repr, counts.sort("rows", "value", descending=[True, False])["value"].head(8)))
