"""A first look at raw files, before any job: columns that they lack, and experts' slices that no review is in."""

import contextlib
from pathlib import Path
from typing import Any

import polars as pl

from mllm.core.errors import Failure
from mllm.data.cleaning import unescape
from mllm.data.raw_files import Columns, read_header, read_raw

Slices = dict[str, dict[str, list[Any]]]
"""Expert -> {column: values}."""


def look(files: list[Path], columns: Columns | None, quotes: bool, slices: Slices) -> None:
    """Compare an experiment with its raw files, as far as they are there to be read.

    Args:
        files: raw files; values are looked for only where all of them are there.
        columns: our column -> the files', or none for the UCI names.
        quotes: as for :func:`mllm.data.raw_files.read_raw`.
        slices: of the experts that are not trained yet.

    Raises:
        Failure: a column is missing, or no row has a value that an expert's slice names.
    """
    there = [f for f in files if f.is_file() and f.stat().st_size]
    read = {file: read_header(file, columns, quotes) for file in there}
    if there != files:
        return
    found: dict[str, pl.DataFrame] = {}
    for column in dict.fromkeys(c for where in slices.values() for c in where):
        names = [(file, delimiter, chosen.get(column, [])) for file, (delimiter, _, chosen) in read.items()]
        if all(len(n) == 1 for *_, n in names):  # neither derived from another column, nor joined of several
            with contextlib.suppress(pl.exceptions.PolarsError):  # a broken row, which the cleaning names
                found[column] = pl.concat(_values(file, delimiter, n[0], quotes) for file, delimiter, n in names)
    problems = []
    for expert, where in slices.items():
        for column, values in where.items():
            absent = [v for v in values if column in found and not _has(found[column], column, v)]
            if absent:
                problems.append(
                    f"experts: {expert}: where.{column}: no review has {', '.join(map(repr, absent))};"
                    f" the most frequent are {_frequent(found[column])}"
                )
    if problems:
        for file in files:  # where a row is broken, that is what to say
            read_raw(file, columns, quotes)
        raise Failure("\n".join(problems))


def _values(file: Path, delimiter: str, name: str, quotes: bool) -> pl.DataFrame:
    """``value`` and ``rows``: what a file's column holds, white space and HTML escapes aside."""
    quote = '"' if quotes else None
    table = pl.read_csv(
        file, columns=[name], separator=delimiter, quote_char=quote, infer_schema=False, glob=False
    ).drop_nulls()
    counts = table[name].value_counts(name="rows")
    plain = pl.Series([unescape(value).strip() for value in counts[name]], dtype=pl.String)
    return pl.DataFrame({"value": plain, "rows": counts["rows"].cast(pl.Int64)})


def _has(found: pl.DataFrame, column: str, value: Any) -> bool:
    """Whether a value is there, as text or as a number; a condition's name may be cut in the file, and mended later."""
    texts = found["value"]
    if str(value) in texts or (column == "condition" and any(text and text in str(value) for text in texts)):
        return True
    with contextlib.suppress(ValueError):
        return bool((texts.cast(pl.Float64, strict=False) == float(value)).any())
    return False


def _frequent(found: pl.DataFrame) -> str:
    counts = found.group_by("value").agg(pl.col("rows").sum()).filter(pl.col("value") != "")
    return ", ".join(map(repr, counts.sort("rows", "value", descending=[True, False])["value"].head(8)))
