"""Raw review files in the format of the UCI Drug Review Dataset, read and cleaned."""

import csv
import html
from pathlib import Path
from typing import Any

import polars as pl

from mllm.cli import Failure

RAW_COLUMNS = ("", "drugName", "condition", "review", "rating", "date", "usefulCount")
# What a reader of HTML pages left in the condition column instead of a condition.
SPAN = "</span>"


def read_raw(path: Path) -> pl.DataFrame:
    """Read one raw file as text, one row per review, with the line on which each row starts.

    Returns:
        Columns of the file as strings (the unnamed first one as ``id``), and ``line``.

    Raises:
        Failure: the file is missing, not UTF-8, without a needed column, or cut in the middle of a row.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Failure(f"{path}: no such file; see data in the experiment file") from None
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Failure(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} at position {error.start} is not UTF-8; "
            f"convert the file first (iconv -f ISO-8859-1 -t UTF-8)"
        ) from None
    first = content.split(b"\n", 1)[0].decode().strip("\r")
    header = next(csv.reader([first], delimiter="\t"), [])
    missing = [c for c in RAW_COLUMNS if c not in header]
    if missing:
        found = ", ".join(repr(c) for c in header) or "nothing"
        wanted = ", ".join(repr(c) for c in missing)
        raise Failure(f"{path}, line 1: no column {wanted}; found {found}; expected tab-separated {RAW_COLUMNS}")
    try:
        frame = pl.read_csv(content, separator="\t", quote_char='"', infer_schema=False, empty_string_is_null=False)
    except pl.exceptions.PolarsError as error:
        raise Failure(f"{path}: not a tab-separated table: {str(error).splitlines()[0]}") from None
    if content.count(b'"') % 2:
        raise Failure(f"{path}: a quoted field is never closed; the file is cut or damaged (fetch it again)")
    frame = frame.rename({frame.columns[header.index("")]: "id"})
    breaks = pl.sum_horizontal(pl.col(c).str.count_matches("\n", literal=True) for c in frame.columns)
    starts = (breaks + 1).cum_sum().shift(1, fill_value=0) + 2  # the header is line 1
    return frame.with_columns(line=starts.cast(pl.Int64))


def unescape(text: str) -> str:
    """Undo HTML escaping, also where it was done twice (``&amp;#039;``)."""
    for _ in range(3):
        plain = html.unescape(text)
        if plain == text:
            break
        text = plain
    return text


def clean(raw: pl.DataFrame, file: str) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Repair and check the rows of one raw file.

    Args:
        raw: as from :func:`read_raw`.
        file: ``train`` or ``test``, kept as a column.

    Returns:
        (kept rows, rejected rows with ``reason`` and ``line``, counts of what was found and done)
    """
    escaped = pl.col("review").str.contains(r"&(#\d+|#x[0-9a-fA-F]+|\w+);")
    text = pl.col("review").str.replace_all("\r", "", literal=True)
    text = pl.when(escaped).then(text.map_elements(unescape, return_dtype=pl.String)).otherwise(text)
    text = text.str.strip_chars().str.strip_prefix('"').str.strip_suffix('"').str.strip_chars()
    condition = pl.col("condition").map_elements(unescape, return_dtype=pl.String).str.strip_chars()
    table = raw.select(
        review_id=pl.col("id").str.strip_chars().cast(pl.Int64, strict=False),
        file=pl.lit(file),
        line=pl.col("line"),
        drug=pl.col("drugName").map_elements(unescape, return_dtype=pl.String).str.strip_chars(),
        condition=pl.when(condition.str.contains(SPAN, literal=True) | (condition == ""))
        .then(None)
        .otherwise(condition),
        review=text,
        rating=pl.col("rating").cast(pl.Float64, strict=False),
        date=pl.col("date").str.strip_chars().str.to_date("%B %d, %Y", strict=False),
        useful_count=pl.col("usefulCount").cast(pl.Int64, strict=False),
    )
    rating = pl.col("rating")
    same = ["review_id", "drug", "condition", "review", "rating", "date", "useful_count"]
    reason = (
        pl.when(pl.col("review_id").is_null())
        .then(pl.lit("id is no whole number"))
        .when(rating.is_null() | (rating != rating.round()) | ~rating.is_between(1, 10))
        .then(pl.lit("rating is not 1 to 10"))
        .when(pl.col("review").str.len_chars() == 0)
        .then(pl.lit("review is empty"))
        .when(~pl.struct(same).is_first_distinct())
        .then(pl.lit("row stands twice"))
        .when(~pl.col("review_id").is_first_distinct())
        .then(pl.lit("id stands twice"))
    )
    table = table.with_columns(reason=reason)
    rejected = table.filter(pl.col("reason").is_not_null())
    kept = table.filter(pl.col("reason").is_null()).drop("reason")
    kept = kept.with_columns(pl.col("rating").cast(pl.Int8), year=pl.col("date").dt.year())
    reasons = rejected.group_by("reason").len().sort("reason")
    counts = {
        "rows": raw.height,
        "kept": kept.height,
        "rejected": dict(zip(reasons["reason"], reasons["len"], strict=True)),
        "reviews_with_entities": int(raw.select(escaped.sum()).item()),
        "reviews_with_carriage_returns": int(raw["review"].str.contains("\r", literal=True).sum()),
        "conditions_with_span": int(raw["condition"].str.contains(SPAN, literal=True).sum()),
        "conditions_missing": int((raw["condition"].str.strip_chars() == "").sum()),
        "dates_unreadable": int(table["date"].null_count()),
    }
    return kept, rejected, counts


def group_texts(reviews: pl.DataFrame) -> pl.DataFrame:
    """Add ``group``: the id of the first review with the same text, case and white space aside.

    One review stands under several drug names (brand and generic); a group must never straddle splits.
    """
    key = pl.col("review").str.to_lowercase().str.replace_all(r"\s+", " ")
    return reviews.with_columns(group=pl.col("review_id").first().over(key))
