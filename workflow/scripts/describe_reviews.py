"""Describe the reviews: statistics of every text, summary tables, and figures."""

import argparse
from pathlib import Path
from typing import Any

from mllm.core import script
from mllm.core.files import read_json, whole
from mllm.core.messages import log

WORDS, MOST = 25, 500  # width of a bar of the histogram, and start of the last bar
TOP = 20


def main(arguments: argparse.Namespace) -> None:
    import polars as pl

    from mllm.core import chart_style
    from mllm.data import text_statistics

    data = arguments.data
    reviews = pl.read_parquet(data / "reviews.parquet")
    reviews = reviews.hstack(text_statistics.statistics(reviews["review"]))
    quality, split = read_json(data / "quality.json"), read_json(data / "split.json")
    if arguments.model:
        reviews = reviews.with_columns(text_statistics.token_counts(reviews["review"], arguments.model))
    numbers = [n for n in text_statistics.STATISTICS if n in reviews.columns]
    where = pl.concat(
        pl.read_parquet(data / f"{name}.parquet", columns=["review_id"]).with_columns(split=pl.lit(name))
        for name in ("train", "valid", "test")
    )
    known = reviews.drop("review").join(where, on="review_id", how="left")
    known = known.with_columns(pl.col("split").fill_null("left out"))
    order = {name: i for i, name in enumerate(("train", "valid", "test", "left out"))}
    known = known.sort(pl.col("split").replace_strict(order), "review_id")
    with whole(arguments.statistics) as partial:
        reviews.select("review_id", *numbers).write_parquet(partial)
    with whole(data / "summary.csv") as partial:
        text_statistics.summary(known, [*numbers, "rating", "useful_count", "year"]).write_csv(
            partial, float_precision=4
        )
    found = text_statistics.repairs(quality, split)
    with whole(data / "repairs.csv") as partial:
        found.write_csv(partial, float_precision=4)
    with whole(arguments.figures) as folder:
        chart_style.write(charts(known, found), folder, f"{known.height:,} reviews")
    for row in found.filter(pl.col("what").str.contains("also in the train")).iter_rows(named=True):
        log.info("%s test reviews (%.1f %%) are also in the train file", f"{row['rows']:,}", 100 * row["share"])


def charts(known: Any, found: Any) -> dict[str, Any]:
    """Make a chart for every column that has values; return them by name."""
    import polars as pl

    from mllm.core import chart_style

    made = {}
    used = known.filter(pl.col("split") != "left out")
    if used["rating"].drop_nulls().len():
        shares = used.group_by("split", "rating", maintain_order=True).len("reviews").drop_nulls().sort("rating")
        shares = shares.with_columns(share=pl.col("reviews") / pl.col("reviews").sum().over("split"))
        made["ratings"] = chart_style.bars(
            shares, "rating", "share", "Ratings, share of each split", label="rating", colour="split"
        )
    words = known.select(words=pl.col("words").clip(upper_bound=MOST) // WORDS * WORDS).group_by("words").len("reviews")
    steps = pl.DataFrame(
        {"words": pl.Series(range(0, int(words["words"].max()) + 1, WORDS), dtype=words["words"].dtype)}
    )
    words = steps.join(words, on="words", how="left", maintain_order="left").fill_null(0)
    made["words"] = chart_style.bars(
        words, "words", "reviews", "Words per review", label=f"words, in steps of {WORDS} (the last: and more)"
    )
    if known["useful_count"].drop_nulls().len():
        counts = _useful_counts(known["useful_count"].drop_nulls())
        made["useful_counts"] = chart_style.bars(
            counts, "useful", "reviews", "How many found a review useful", label="people"
        )
    for column, plural in (("drug", "drugs"), ("condition", "conditions")):
        if known[column].drop_nulls().len():
            top = (
                known[column]
                .drop_nulls()
                .value_counts(name="reviews")
                .sort(["reviews", column], descending=[True, False])
            )
            made[f"top_{plural}"] = chart_style.ranking(
                top.head(TOP), column, "reviews", f"The {plural} with the most reviews"
            )
    if known["year"].drop_nulls().len():
        years = known.select("year").drop_nulls().group_by("year").len("reviews").sort("year")
        made["years"] = chart_style.bars(years, "year", "reviews", "Reviews per year", label="year")
    shown = found.filter(pl.col("rows") > 0).select("what", "file", "share", "rows").sort("share", descending=True)
    if shown.height:
        made["leak_and_repairs"] = chart_style.ranking(
            shown, "what", "share", "Found in the raw files, share of rows", colour="file"
        )
    return made


def _useful_counts(people: Any) -> Any:
    """Count the reviews by how many people found them useful: useful (a range), reviews."""
    import polars as pl

    useful = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500]
    cut = people.cut([s - 1 for s in useful[1:]], labels=_ranges(useful)).cast(pl.String)
    counts = cut.value_counts(name="reviews").rename({"useful_count": "useful"})
    return pl.DataFrame({"useful": _ranges(useful)}).join(counts, on="useful", how="left").fill_null(0)


def _ranges(steps: list[int]) -> list[str]:
    ends = [b - 1 for b in steps[1:]]
    return [f"{a}" if a == b else f"{a}–{b}" for a, b in zip(steps, ends, strict=False)] + [f"{steps[-1]} +"]


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of clean_reviews and split_reviews")
    parser.add_argument("--model", type=Path, help="model folder whose tokenizer counts tokens")
    parser.add_argument("--statistics", type=Path, required=True, help="statistics per review to write (parquet)")
    parser.add_argument("--figures", type=Path, required=True, help="folder of figures to write")
    script.run(main, parser.parse_args())
