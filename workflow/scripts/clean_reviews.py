"""Clean the raw files into one table; what cannot be repaired is kept apart with its reason."""

import argparse
import json
from pathlib import Path
from typing import Any

from mllm.core import script
from mllm.core.errors import Failure
from mllm.core.files import whole, write_json
from mllm.core.messages import log


def main(arguments: argparse.Namespace) -> None:
    import polars as pl

    from mllm.data import cleaning, text_statistics
    from mllm.data.raw_files import read_raw

    kept, rejected = [], []
    quality: dict[str, Any] = {}
    rows = 0
    for file, path in (("train", arguments.train), ("test", arguments.test)):
        if path is None:
            continue
        good, bad, counts = cleaning.clean(read_raw(path, arguments.columns), file, rows, arguments.columns is None)
        rows += counts["rows"]
        if not good.height:
            raise Failure(
                f"{path}: none of {counts['rows']} rows is usable: {counts['rejected'] or 'the file is empty'}"
            )
        log.info(
            "%s: %s rows, %s kept, rejected: %s", path, counts["rows"], counts["kept"], counts["rejected"] or "none"
        )
        kept.append(good)
        rejected.append(bad)
        quality[file] = counts
    table = cleaning.typed(pl.concat(kept))
    both = table.filter(pl.col("review_id").is_duplicated())
    if both.height:
        lines = ", ".join(f"{r['file']} line {r['line']}" for r in both.head(2).iter_rows(named=True))
        raise Failure(f"{arguments.test}: id {both['review_id'][0]} stands in both files ({lines}); ids must be unique")
    quality["conditions_mended"] = {"rows": 0, "names": {}, "left": {}}
    if arguments.columns is None:  # what cut the conditions of the UCI files has not touched other tables
        table, quality["conditions_mended"] = cleaning.mend_conditions(table)
        log.info("%s conditions were cut and are whole again", f"{quality['conditions_mended']['rows']:,}")
    table = cleaning.group_texts(table)
    table = table.hstack(text_statistics.statistics(table["review"]))
    quality["distinct_texts"] = table["group"].n_unique()
    quality["reviews"] = table.height
    refused = pl.concat(rejected)
    for frame, path in ((table, arguments.reviews), (refused, arguments.rejected)):
        with whole(path) as partial:
            frame.write_parquet(partial, compression="lz4")
    write_json(arguments.quality, quality)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--train", type=Path, required=True, help="raw file: TSV or CSV")
    parser.add_argument("--test", type=Path, help="a second raw file")
    parser.add_argument(
        "--columns", type=json.loads, help="our column -> list of the file's, as JSON (default: UCI's or Kaggle's)"
    )
    parser.add_argument("--reviews", type=Path, required=True, help="cleaned table to write (parquet)")
    parser.add_argument("--rejected", type=Path, required=True, help="rejected rows to write (parquet)")
    parser.add_argument("--quality", type=Path, required=True, help="counts to write (JSON)")
    script.run(main, parser.parse_args())
