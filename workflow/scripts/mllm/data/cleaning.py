"""Review tables cleaned: every repair is counted, every row that cannot be repaired is kept apart with its reason."""

import html
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import polars as pl

from mllm.data import condition_names
from mllm.data.column_values import by_value, date_reader, nothing, whole_numbers
from mllm.data.raw_files import AGAIN, UCI

# What a reader of HTML pages left in the condition column instead of a condition.
SPAN = "</span>"
ENTITY = r"&(#\d+|#x[0-9a-fA-F]+|\w+);"
BREAK = r"(?i)<br\s*/?>"
# All but one in a thousand of the entities in the UCI files; Python's html knows the others, more slowly.
COMMON = {
    "&#039;": "'", "&quot;": '"', "&amp;": "&", "&rsquo;": "’", "&mdash;": "—", "&gt;": ">", "&bull;": "•",
    "&rdquo;": "”", "&ldquo;": "“", "&lt;": "<", "&eacute;": "é", "&ndash;": "–", "&nbsp;": "\xa0",
}  # fmt: skip
QUOTED = 0.9  # share of texts in quotation marks of their own from which on these are a quirk of the file
WORD = r"\pL[\pM\u200c\u200d]*\pL|[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}]"
REASONS = (
    "id is no whole number", "rating is not 1 to 10", "review is empty", "review has no word", "row stands twice",
    "id stands twice",
)  # fmt: skip
REPAIRS = ("with_entities", "escaped_twice", "with_carriage_returns", "with_tags", "quoted")
SLICE = 25_000  # rows whose texts are worked on at once: bounds memory, changes nothing


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
        raw: as from :func:`mllm.data.raw_files.read_raw`; of our columns only ``review`` is needed, others are kept as they are.
        file: ``train`` or ``test``, kept as a column.
        first_id: where there is no ``id`` column, rows are numbered from here.
        repairs: uci where the file has the quirks of the UCI files (each text in quotation marks of its own, drug names
            among the conditions); none; auto finds out by their share in the file.
        dates: month-first or day-first, for dates such as 04/05/2012; none finds out by the column's other dates.

    Returns:
        (kept rows, rejected rows with ``reason`` and ``line``, counts of what was found and done).
        The columns of both: review_id, file, line, drug, condition, review, rating, date, year, useful_count, then others,
        as text: see :func:`typed`.
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
        "rows": raw.height,
        "conditions_with_span": _count(raw, "condition", pl.col("condition").str.contains(SPAN, literal=True)),
        "conditions_missing": _count(raw, "condition", pl.col("condition").str.strip_chars() == ""),
        "conditions_that_are_drugs": int(condition.is_in(debris).sum()),
        "dates_unreadable": _count(raw, "date", pl.lit(date.is_null()) & (pl.col("date").str.strip_chars() != "")),
        "useful_counts_unreadable": _count(
            raw, "useful_count", pl.lit(useful.is_null()) & (pl.col("useful_count").str.strip_chars() != "")
        ),
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
    # A long text stands for itself in comparisons by 128 bits of it; numbers that were given here tell nothing.
    hashed = [pl.col("review").hash(seed).alias(f"#{seed}") for seed in (1, 2)]
    same = [c for c in table.columns if c not in ("file", "line", "review") and (c != "review_id" or "id" in known)]
    twice = table.select(*same, *hashed).select(~pl.struct(pl.all()).is_first_distinct()).to_series()
    twice = raw[AGAIN] if AGAIN in known else twice  # without numbers: whatever columns the experiment maps
    ids = table["review_id"]
    table = table.with_columns(
        reason=pl.when(ids.is_null())
        .then(pl.lit(REASONS[0]))
        .when(_out_of_range(rating) if "rating" in known else pl.lit(False))
        .then(pl.lit(REASONS[1]))
        .when(pl.col("review").str.len_bytes() == 0)
        .then(pl.lit(REASONS[2]))
        .when(~pl.col("review").str.contains(WORD))
        .then(pl.lit(REASONS[3]))
        .when(twice)
        .then(pl.lit(REASONS[4]))
    )
    # Of the rows that are good otherwise: a number is not taken by a row that is refused.
    again = pl.col("reason").is_null() & ~pl.struct("review_id", "reason").is_first_distinct()
    table = table.with_columns(reason=pl.when(again).then(pl.lit(REASONS[5])).otherwise("reason"))
    rejected = table.filter(pl.col("reason").is_not_null())
    kept = table.filter(pl.col("reason").is_null()).drop("reason").with_columns(pl.col("rating").cast(pl.Int8))
    reasons = rejected.group_by("reason").len().sort("reason")
    counts |= {"kept": kept.height, "rejected": dict(zip(reasons["reason"], reasons["len"], strict=True))}
    return kept, rejected, counts


def mend_conditions(reviews: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Complete the condition names that were cut, over all files at once.

    Returns:
        (the reviews, {rows, names: {cut: whole}, left: {name that looks cut: rows}})
    """
    names = reviews["condition"].drop_nulls().unique().to_list()
    mended = condition_names.mend(names, reviews["review"])
    rows = int(reviews["condition"].is_in(list(mended)).sum())
    looks_cut = [n for n in names if n[0].islower() and n not in mended]
    left = reviews.filter(pl.col("condition").is_in(looks_cut))["condition"].value_counts().sort("condition")
    facts: dict[str, Any] = {"rows": rows, "names": mended, "left": dict(left.iter_rows())}
    whole = reviews.with_columns(pl.col("condition").replace(mended)) if mended else reviews
    return whole, facts


def group_texts(reviews: pl.DataFrame) -> pl.DataFrame:
    """Add ``group``: the smallest id of the reviews with the same text, case and white space aside.

    One review stands under several drug names (brand and generic); a group must never straddle splits.
    """
    keys = pl.concat(in_slices(reviews.select("review_id", "review"), _keys))
    return reviews.with_columns(keys.select(group=pl.col("review_id").min().over("k1", "k2")).to_series())


def _keys(part: pl.DataFrame) -> pl.DataFrame:
    """128 bits that stand for each text, case and white space aside."""
    text = pl.col("key")
    part = part.select("review_id", key=pl.col("review").str.to_lowercase()).with_columns(
        spaced=text.str.contains(r"[^\S ]|  ")
    )
    # Only where there is something to replace: the search is ten times faster than the replacement.
    rows = part["spaced"].arg_true()
    single = part["key"].gather(rows).str.replace_all(r"\s+", " ")
    part = part.with_columns(part["key"].scatter(rows, single))
    return part.select("review_id", *(text.str.strip_chars().hash(seed).alias(f"k{seed}") for seed in (1, 2)))


def has_quirks(raw: pl.DataFrame, repaired: dict[str, int]) -> bool:
    """Whether a file's conditions are those of the UCI files, whatever its columns are called.

    Its texts are in quotation marks of their own, or HTML is among its conditions, and no condition begins with F or ends
    in r or o (see :mod:`mllm.data.condition_names`).
    """
    if "condition" not in raw.columns:
        return False
    names = raw["condition"].str.strip_chars().unique()
    span = names.str.contains(SPAN, literal=True)
    whole = names.filter(~span).str.contains("^F|[ro]$").any()
    return not whole and bool(span.any() or repaired["reviews_quoted"])


def _texts(column: pl.Series, repairs: str) -> tuple[pl.Series, dict[str, int]]:
    """Texts without carriage returns, HTML escapes, line-break tags and the quotation marks around the whole."""
    quoted = repairs == "uci"
    if repairs == "auto":
        text = column.str.strip_chars()
        share = (text.str.starts_with('"') & text.str.ends_with('"') & (text.str.len_bytes() > 1)).mean() or 0
        quoted = column.len() >= 20 and float(share) >= QUOTED  # type: ignore[arg-type]
    done = list(in_slices(column.to_frame("review"), partial(_repaired, quoted=quoted)))
    counts = {f"reviews_{name}": sum(int(part[name].sum()) for part in done) for name in REPAIRS}
    return pl.concat([part["review"] for part in done]), counts


def _repaired(part: pl.DataFrame, quoted: bool) -> pl.DataFrame:
    """``review``, repaired, and a flag for each of REPAIRS."""
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
    # Once all escapes are undone: each row by itself, whatever stands in its neighbours.
    part = part.with_columns(text.str.contains(BREAK).alias(REPAIRS[3]))
    if part[REPAIRS[3]].any():
        part = part.with_columns(pl.when(REPAIRS[3]).then(text.str.replace_all(BREAK, "\n")).otherwise(text))
    part = part.with_columns(text.str.strip_chars())
    around = text.str.starts_with('"') & text.str.ends_with('"') & (text.str.len_bytes() > 1) & quoted
    bare = text.str.head(-1).str.tail(-1).str.strip_chars()
    return part.select(pl.when(around).then(bare).otherwise(text), *REPAIRS[:4], around.alias(REPAIRS[4]))


def in_slices(frame: pl.DataFrame, work: Callable[[pl.DataFrame], pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Results of ``work`` on slices of a table, in order: polars works on one column of text with one core alone."""
    with ThreadPoolExecutor(max_workers=pl.thread_pool_size()) as pool:
        yield from pool.map(work, frame.iter_slices(SLICE) if frame.height else [frame])


def _plain(value: str) -> str | None:
    return unescape(value).strip() or None


def _condition(value: str) -> str | None:
    return None if SPAN in value else _plain(value)


def _out_of_range(rating: pl.Series) -> pl.Series:
    return ~(rating.is_between(1, 10) & (rating == rating.round())).fill_null(False)


def _count(raw: pl.DataFrame, column: str, what: pl.Expr) -> int:
    return int(raw.select(what.sum()).item()) if column in raw.columns else 0
