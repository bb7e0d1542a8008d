"""Clean review tables: count every repair, and return rows that cannot be repaired in a separate table, with reasons."""

import html
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import polars as pl

from mllm.data import condition_names, rejected_rows
from mllm.data.column_values import by_value, date_reader, nothing, whole_numbers
from mllm.data.raw_files import AGAIN, UCI

# Some rows have debris of HTML pages in the condition column instead of a condition.
SPAN = "</span>"
ENTITY = r"&(#\d+|#x[0-9a-fA-F]+|\w+);"
BREAK = r"(?i)<br\s*/?>"
# These are all but one in a thousand of the entities in the UCI files; Python's html decodes the others, more slowly.
COMMON = {
    "&#039;": "'", "&quot;": '"', "&amp;": "&", "&rsquo;": "’", "&mdash;": "—", "&gt;": ">", "&bull;": "•",
    "&rdquo;": "”", "&ldquo;": "“", "&lt;": "<", "&eacute;": "é", "&ndash;": "–", "&nbsp;": "\xa0",
}  # fmt: skip
QUOTED = 0.9  # from this share of texts in extra quotation marks, the marks are a quirk of the file
REPAIRS = ("with_entities", "escaped_twice", "with_carriage_returns", "with_tags", "quoted")
SLICE = 25_000  # rows whose texts are processed at once: bounds memory, changes no result


def unescape(text: str) -> str:
    """Undo HTML escaping, also where it was done twice (``&amp;#039;``)."""
    for _ in range(3):
        plain = html.unescape(text)
        if plain == text:
            break
        text = plain
    return text


def clean(
    raw: pl.DataFrame, file: str, first_id: int = 0, repairs: str = "uci", dates: str | None = None
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Repair and check the rows of one raw file.

    Args:
        raw: a table of :func:`mllm.data.raw_files.read_raw`. Of our columns, only ``review`` is required; columns of
            the user's own are kept.
        file: ``train`` or ``test``; becomes a column.
        first_id: number of the first row in a file without an ``id`` column.
        repairs: ``uci`` for a file with the quirks of the UCI files (each text in extra quotation marks, drug names
            among the conditions), ``none`` for one without; ``auto`` decides by their share in the file.
        dates: month-first or day-first, for dates such as 04/05/2012; ``None`` decides by the column's other dates.

    Returns:
        (kept rows, rejected rows with ``reason`` and ``line``, counts of problems and repairs).
        Both tables have review_id, file, line, drug, condition, review, rating, date, year, useful_count, then the
        other columns as text: see :func:`mllm.data.column_values.typed`.
    """
    known = set(raw.columns)
    texts, repaired = _texts(raw["review"], repairs)
    official = repairs == "uci" or (repairs == "auto" and has_quirks(raw, repaired))
    condition = by_value(raw, "condition", _condition)
    date = by_value(raw, "date", date_reader(raw, file, dates))
    debris = [c for c in condition.unique() if c and condition_names.is_debris(c)] if official else []
    useful = whole_numbers(raw["useful_count"]) if "useful_count" in known else nothing(raw.height, pl.Int64)
    counts: dict[str, Any] = {
        **repaired,
        "condition_names": "uci" if official else "as they are",
        "conditions_that_are_drugs": int(condition.is_in(debris).sum()),
        **_unusable(raw, date, useful),
    }
    rating = (
        raw["rating"].str.strip_chars().cast(pl.Float64, strict=False)
        if "rating" in known
        else nothing(raw.height, pl.Float64)
    )
    numbers = pl.Series(range(first_id, first_id + raw.height), dtype=pl.Int64)
    table = pl.DataFrame({
        "review_id": whole_numbers(raw["id"]) if "id" in known else numbers,
        "file": pl.Series([file]).new_from_index(0, raw.height),
        "line": raw["line"],
        "drug": by_value(raw, "drug", _plain),
        "condition": condition.set(condition.is_in(debris), None),
        "review": texts,
        "rating": rating,
        "date": date,
        "year": date.dt.year(),
        "useful_count": useful,
        **{name: by_value(raw, name, _plain) for name in raw.columns if name not in UCI and name not in ("line", AGAIN)},
    })  # fmt: skip
    table = table.with_columns(reason=rejected_rows.reasons(table, raw))
    rejected = table.filter(pl.col("reason").is_not_null())
    kept = table.filter(pl.col("reason").is_null()).drop("reason").with_columns(pl.col("rating").cast(pl.Int8))
    reasons = rejected.group_by("reason").len().sort("reason")
    counts |= {"kept": kept.height, "rejected": dict(zip(reasons["reason"], reasons["len"], strict=True))}
    return kept, rejected, counts


def _unusable(raw: pl.DataFrame, date: pl.Series, useful: pl.Series) -> dict[str, int]:
    """Count a file's rows, and those whose values cannot be used.

    Args:
        raw: the file's rows.
        date: what was read of them.
        useful: counts of people that were read of them.
    """
    return {
        "rows": raw.height,
        "conditions_with_span": _count(raw, "condition", pl.col("condition").str.contains(SPAN, literal=True)),
        "conditions_missing": _count(raw, "condition", pl.col("condition").str.strip_chars() == ""),
        "dates_unreadable": _count(raw, "date", pl.lit(date.is_null()) & (pl.col("date").str.strip_chars() != "")),
        "useful_counts_unreadable": _count(
            raw, "useful_count", pl.lit(useful.is_null()) & (pl.col("useful_count").str.strip_chars() != "")
        ),
    }


def restore_conditions(reviews: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Restore the condition names that were cut, over all files at once.

    Returns:
        (the reviews, {rows, names: {cut name: restored name}, left: {name that still looks cut: rows}})
    """
    names = reviews["condition"].drop_nulls().unique().to_list()
    restored = condition_names.restore(names, reviews["review"])
    rows = int(reviews["condition"].is_in(list(restored)).sum())
    looks_cut = [n for n in names if n[0].islower() and n not in restored]
    left = reviews.filter(pl.col("condition").is_in(looks_cut))["condition"].value_counts().sort("condition")
    facts: dict[str, Any] = {"rows": rows, "names": restored, "left": dict(left.iter_rows())}
    complete = reviews.with_columns(pl.col("condition").replace(restored)) if restored else reviews
    return complete, facts


def group_texts(reviews: pl.DataFrame) -> pl.DataFrame:
    """Add ``group``: the smallest id of the reviews with the same text, ignoring case and white space.

    A review may occur under several drug names (brand and generic). All rows of a group belong in one split.
    """
    keys = pl.concat(in_slices(reviews.select("review_id", "review"), _keys))
    return reviews.with_columns(keys.select(group=pl.col("review_id").min().over("k1", "k2")).to_series())


def _keys(part: pl.DataFrame) -> pl.DataFrame:
    """Hash each text to 128 bits, ignoring case and white space."""
    text = pl.col("key")
    part = part.select("review_id", key=pl.col("review").str.to_lowercase()).with_columns(
        spaced=text.str.contains(r"[^\S ]|  ")
    )
    # Replace only in texts that need it: the search is ten times faster than the replacement.
    rows = part["spaced"].arg_true()
    single = part["key"].gather(rows).str.replace_all(r"\s+", " ")
    part = part.with_columns(part["key"].scatter(rows, single))
    return part.select("review_id", *(text.str.strip_chars().hash(seed).alias(f"k{seed}") for seed in (1, 2)))


def has_quirks(raw: pl.DataFrame, repaired: dict[str, int]) -> bool:
    """Return whether a file's conditions have the quirks of the UCI files, whatever the names of its columns.

    Two things must hold. The texts are in extra quotation marks, or HTML is among the conditions. No condition begins
    with F or ends in r or o (see :mod:`mllm.data.condition_names`).
    """
    if "condition" not in raw.columns:
        return False
    names = raw["condition"].str.strip_chars().unique()
    span = names.str.contains(SPAN, literal=True)
    whole = names.filter(~span).str.contains("^F|[ro]$").any()
    return not whole and bool(span.any() or repaired["reviews_quoted"])


def _texts(column: pl.Series, repairs: str) -> tuple[pl.Series, dict[str, int]]:
    """Remove carriage returns, HTML escapes, line-break tags and enclosing quotation marks; count each repair."""
    quoted = repairs == "uci"
    if repairs == "auto":
        text = column.str.strip_chars()
        share = (text.str.starts_with('"') & text.str.ends_with('"') & (text.str.len_bytes() > 1)).mean() or 0
        quoted = column.len() >= 20 and float(share) >= QUOTED  # type: ignore[arg-type]
    done = list(in_slices(column.to_frame("review"), partial(_repaired, quoted=quoted)))
    counts = {f"reviews_{name}": sum(int(part[name].sum()) for part in done) for name in REPAIRS}
    return pl.concat([part["review"] for part in done]), counts


def _repaired(part: pl.DataFrame, quoted: bool) -> pl.DataFrame:
    """Return the repaired ``review`` and a flag for each of REPAIRS."""
    text = pl.col("review")
    part = part.with_columns(
        text.str.contains(ENTITY).alias(REPAIRS[0]),
        text.str.contains("\r", literal=True).alias(REPAIRS[2]),
        review=text.str.replace_all("\r", "", literal=True),
    )
    part = part.with_columns(
        review=pl.when(REPAIRS[0]).then(text.str.replace_many(list(COMMON), list(COMMON.values()))).otherwise(text)
    )
    part = part.with_columns(
        (pl.col(REPAIRS[0]) & text.str.contains(ENTITY)).alias(REPAIRS[1]),
        slow=pl.col(REPAIRS[0]) & text.str.contains(r"&[#a-zA-Z]"),
    )
    if part["slow"].any():
        rows = part["slow"].arg_true()
        plain = part["review"].gather(rows).map_elements(unescape, return_dtype=pl.String)
        part = part.with_columns(part["review"].scatter(rows, plain))
    # After all escapes are undone, so that a row's result does not depend on its neighbours.
    part = part.with_columns(text.str.contains(BREAK).alias(REPAIRS[3]))
    if part[REPAIRS[3]].any():
        part = part.with_columns(pl.when(REPAIRS[3]).then(text.str.replace_all(BREAK, "\n")).otherwise(text))
    part = part.with_columns(text.str.strip_chars())
    around = text.str.starts_with('"') & text.str.ends_with('"') & (text.str.len_bytes() > 1) & quoted
    bare = text.str.head(-1).str.tail(-1).str.strip_chars()
    return part.select(pl.when(around).then(bare).otherwise(text), *REPAIRS[:4], around.alias(REPAIRS[4]))


def in_slices(frame: pl.DataFrame, work: Callable[[pl.DataFrame], pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield the results of ``work`` on slices of a table, in order; polars processes a text column on one core only."""
    with ThreadPoolExecutor(max_workers=pl.thread_pool_size()) as pool:
        yield from pool.map(work, frame.iter_slices(SLICE) if frame.height else [frame])


def _plain(value: str) -> str | None:
    return unescape(value).strip() or None


def _condition(value: str) -> str | None:
    return None if SPAN in value else _plain(value)


def _count(raw: pl.DataFrame, column: str, what: pl.Expr) -> int:
    return int(raw.select(what.sum()).item()) if column in raw.columns else 0
