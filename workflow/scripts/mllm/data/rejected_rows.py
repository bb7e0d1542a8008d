"""Decide which rows of a raw file are rejected, with the reason."""

import polars as pl

from mllm.data.raw_files import AGAIN

WORD = r"\pL[\pM\u200c\u200d]*\pL|[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}]"
REASONS = (
    "id is not a whole number", "rating is not 1 to 10", "review is empty", "review has no word", "duplicate row",
    "duplicate id",
)  # fmt: skip


def reasons(table: pl.DataFrame, raw: pl.DataFrame) -> pl.Series:
    """Return why each row is rejected; null for a good row."""
    # Long texts are compared by 128-bit hashes. Ids numbered here are left out: they differ in duplicates, too.
    hashed = [pl.col("review").hash(seed).alias(f"#{seed}") for seed in (1, 2)]
    same = [
        c for c in table.columns if c not in ("file", "line", "review") and (c != "review_id" or "id" in raw.columns)
    ]
    twice = table.select(*same, *hashed).select(~pl.struct(pl.all()).is_first_distinct()).to_series()
    twice = raw[AGAIN] if AGAIN in raw.columns else twice  # without ids: compares all columns, mapped or not
    out_of_range = _out_of_range(table["rating"]) if "rating" in raw.columns else pl.lit(False)
    table = table.with_columns(
        reason=pl.when(pl.col("review_id").is_null())
        .then(pl.lit(REASONS[0]))
        .when(out_of_range)
        .then(pl.lit(REASONS[1]))
        .when(pl.col("review").str.len_bytes() == 0)
        .then(pl.lit(REASONS[2]))
        .when(~pl.col("review").str.contains(WORD))
        .then(pl.lit(REASONS[3]))
        .when(twice)
        .then(pl.lit(REASONS[4]))
    )
    # Only otherwise good rows are compared: a rejected row does not reserve its id.
    again = pl.col("reason").is_null() & ~pl.struct("review_id", "reason").is_first_distinct()
    return table.select(reason=pl.when(again).then(pl.lit(REASONS[5])).otherwise("reason")).to_series()


def _out_of_range(rating: pl.Series) -> pl.Series:
    return ~(rating.is_between(1, 10) & (rating == rating.round())).fill_null(False)
