"""Clean the raw files into one table; write rows that cannot be repaired to another, with their reasons."""

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

    from mllm.data import cleaning, column_values, rejected_rows
    from mllm.data.raw_files import read_raw

    kept, rejected = [], []
    quality: dict[str, Any] = {}
    rows = 0
    repairs = arguments.repairs if arguments.columns is not None or arguments.repairs != "auto" else "uci"
    for file, path in (("train", arguments.train), ("test", arguments.test)):
        if path is None:
            continue
        raw = read_raw(path, arguments.columns, arguments.quotes == "csv")
        good, bad, counts = cleaning.clean(raw, file, rows, repairs, arguments.dates)
        rows += counts["rows"]
        if not good.height:
            texts = counts["rejected"].get(rejected_rows.REASONS[0], 0)
            hint = ". Fix: leave id out of data.columns, since ids are text; rows are then numbered" if texts else ""
            raise Failure(
                f"{path}: none of {counts['rows']} rows is usable: {counts['rejected'] or 'the file is empty'}{hint}"
            )
        log.info(
            "%s: %s rows, %s kept, rejected: %s", path, counts["rows"], counts["kept"], counts["rejected"] or "none"
        )
        _say(path, counts)
        kept.append(good)
        rejected.append(bad)
        quality[file] = counts
    table = column_values.typed(pl.concat(kept))
    both = table.filter(pl.col("review_id").is_duplicated())
    if both.height:
        lines = ", ".join(f"{r['file']} line {r['line']}" for r in both.head(2).iter_rows(named=True))
        raise Failure(f"{arguments.test}: id {both['review_id'][0]} is in both files ({lines}); ids must be unique")
    quality["conditions_mended"] = {"rows": 0, "names": {}, "left": {}}
    if any(quality[file]["condition_names"] == "uci" for file in ("train", "test") if file in quality):
        table, quality["conditions_mended"] = cleaning.restore_conditions(table)
        log.info("%s truncated conditions were restored", f"{quality['conditions_mended']['rows']:,}")
    table = cleaning.group_texts(table)
    quality["distinct_texts"] = table["group"].n_unique()
    quality["reviews"] = table.height
    refused = pl.concat(rejected)
    for frame, path in ((table, arguments.reviews), (refused, arguments.rejected)):
        with whole(path) as partial:
            frame.write_parquet(partial, compression="lz4")
    write_json(arguments.quality, quality)


def _say(path: Path, counts: dict[str, Any]) -> None:
    """Log the repairs of a file's texts and conditions, and its lost dates."""
    if counts["reviews_quoted"]:
        log.info("%s: quotation marks around %s texts are removed", path, f"{counts['reviews_quoted']:,}")
    if counts["condition_names"] == "uci":
        log.info("%s: conditions are repaired as in the UCI files (data.repairs: none keeps them)", path)
    if counts["dates_unreadable"] > 0.05 * counts["rows"]:
        log.warning("WARNING: %s: %s of %s dates cannot be read and are left empty", path,
                    f"{counts['dates_unreadable']:,}", f"{counts['rows']:,}")  # fmt: skip


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--train", type=Path, required=True, help="raw file: TSV or CSV")
    parser.add_argument("--test", type=Path, help="a second raw file")
    parser.add_argument(
        "--columns", type=json.loads, help="column -> list of the file's columns, as JSON (default: UCI's or Kaggle's)"
    )
    parser.add_argument(
        "--repairs", default="auto", choices=["auto", "uci", "none"], help="whether to repair the UCI files' errors"
    )
    parser.add_argument("--dates", choices=["month-first", "day-first"], help="how to read dates like 04/05/2012")
    parser.add_argument(
        "--quotes",
        default="csv",
        choices=["csv", "none"],
        help="csv: quotation marks enclose fields; none: they are part of the text",
    )
    parser.add_argument("--reviews", type=Path, required=True, help="cleaned table to write (parquet)")
    parser.add_argument("--rejected", type=Path, required=True, help="rejected rows to write (parquet)")
    parser.add_argument("--quality", type=Path, required=True, help="counts to write (JSON)")
    script.run(main, parser.parse_args())
