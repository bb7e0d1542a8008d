"""Read the values of a review table's columns: dates, numbers and codes, by one rule per column."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import polars as pl

from mllm.core.errors import Failure
from mllm.data.raw_files import UCI

DATES = (
    "%B %d, %Y", "%b %d, %Y", "%d-%b-%y", "%d-%b-%Y", "%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y/%m/%d",
    "%d.%m.%Y",
)  # fmt: skip
# The same digits mean different dates in these orders; one order holds for all dates of a column.
ORDERS = {"month-first": ("%m/%d/%Y", "%m/%d/%y"), "day-first": ("%d/%m/%Y", "%d/%m/%y")}


def by_value(raw: pl.DataFrame, column: str, repair: Any) -> pl.Series:
    """Repair a column value by value, each distinct value once; all null if the table has no such column."""
    kind = pl.Date if column == "date" else pl.String
    if column not in raw.columns or not raw.height:
        return nothing(raw.height, kind)
    values = raw[column].unique()
    return raw[column].replace_strict(values, pl.Series([repair(v) for v in values], dtype=kind), return_dtype=kind)


def date_reader(raw: pl.DataFrame, file: str, order: str | None) -> Callable[[str], Any]:
    """Return the function that reads a column's dates, all by one rule that the whole column decides.

    Raises:
        Failure: the column mixes both orders, or has dates such as 04/05/2012 and none that decides between them.
    """
    if "date" in raw.columns and order is None:
        values = raw["date"].str.strip_chars().unique().to_list()
        slashed = [v for v in values if v.count("/") == 2 and _date(v, DATES) is None]
        fits = {name: {v for v in slashed if _date(v, forms)} for name, forms in ORDERS.items()}
        month, day = fits["month-first"] - fits["day-first"], fits["day-first"] - fits["month-first"]
        if slashed and bool(month) == bool(day) and any(fits.values()):
            shown = [next(iter(sorted(s))) for s in (month, day) if s] or sorted(slashed)[:1]
            why = "mixes months first and days first" if month else "may have months or days first"
            raise Failure(
                f"data.{file}: column date {why} (found {', '.join(shown)}). Fix: set data.dates: month-first or"
                " day-first (and write the others as 2012-05-20)"
            )
        order = "day-first" if day else "month-first"
    forms = (*DATES, *ORDERS[order or "month-first"])
    return lambda value: _date(value, forms)


def _date(value: str, forms: Iterable[str]) -> Any:
    for form in forms:
        try:
            return datetime.strptime(value.strip(), form).date()
        except ValueError:
            continue
    return None


def typed(reviews: pl.DataFrame) -> pl.DataFrame:
    """Convert columns of the user's own to numbers if all values of all files are numbers; leave others as text."""
    known = {*UCI, "review_id", "file", "line", "year"}
    return reviews.with_columns(_typed(reviews[c]) for c in reviews.columns if c not in known)


def _typed(column: pl.Series) -> pl.Series:
    if column.str.contains(r"^\s*[+-]?0\d").any():  # 01 beside 1: codes, not numbers
        return column
    for kind in (pl.Int64, pl.Float64):
        numbers = column.cast(kind, strict=False)
        if numbers.null_count() == column.null_count() < column.len():
            return numbers
    return column


def whole_numbers(column: pl.Series) -> pl.Series:
    """Parse whole numbers, also written as 27.0; other text becomes null."""
    numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
    exact = column.str.strip_chars().cast(pl.Int64, strict=False)
    return exact.zip_with(exact.is_not_null() | (numbers != numbers.round()), numbers.cast(pl.Int64, strict=False))


def nothing(height: int, kind: Any) -> pl.Series:
    return pl.Series([None], dtype=kind).new_from_index(0, height)
