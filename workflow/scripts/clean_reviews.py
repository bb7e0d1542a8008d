"""Clean the raw train and test files into one table; what cannot be repaired is kept apart with its reason."""

import argparse
from pathlib import Path
from typing import Any

from mllm import cli


def main(arguments: argparse.Namespace) -> None:
    import polars as pl

    from mllm import reviews

    kept, rejected = [], []
    quality: dict[str, Any] = {}
    for file, path in (("train", arguments.train), ("test", arguments.test)):
        good, bad, counts = reviews.clean(reviews.read_raw(path), file)
        if not good.height:
            raise cli.Failure(
                f"{path}: none of {counts['rows']} rows is usable: {counts['rejected'] or 'the file is empty'}"
            )
        cli.log.info(
            "%s: %s rows, %s kept, rejected: %s", path, counts["rows"], counts["kept"], counts["rejected"] or "none"
        )
        kept.append(good)
        rejected.append(bad)
        quality[file] = counts
    table = reviews.group_texts(pl.concat(kept))
    both = table.filter(pl.col("review_id").is_duplicated())
    if both.height:
        lines = ", ".join(f"{r['file']} line {r['line']}" for r in both.head(2).iter_rows(named=True))
        raise cli.Failure(
            f"{arguments.test}: id {both['review_id'][0]} stands in both files ({lines}); ids must be unique"
        )
    quality["distinct_texts"] = table["group"].n_unique()
    quality["reviews"] = table.height
    for frame, path in ((table, arguments.reviews), (pl.concat(rejected), arguments.rejected)):
        with cli.whole(path) as partial:
            frame.write_parquet(partial)
    cli.write_json(arguments.quality, quality)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--train", type=Path, required=True, help="raw train TSV")
    parser.add_argument("--test", type=Path, required=True, help="raw test TSV")
    parser.add_argument("--reviews", type=Path, required=True, help="cleaned table to write (parquet)")
    parser.add_argument("--rejected", type=Path, required=True, help="rejected rows to write (parquet)")
    parser.add_argument("--quality", type=Path, required=True, help="counts to write (JSON)")
    cli.run(main, parser.parse_args())
