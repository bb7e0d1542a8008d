"""Split the cleaned reviews into train, validation and test, independently of tasks and experts.

Mode random can stratify by one task's classes.
"""

import argparse
import json
from pathlib import Path

from mllm.core import script
from mllm.core.files import whole, write_json
from mllm.core.messages import log


def main(arguments: argparse.Namespace) -> None:
    import polars as pl

    from mllm.data import labelled, labels, splitting

    reviews = pl.read_parquet(arguments.reviews)
    stratum = None
    if task := arguments.stratum:
        splitting.check_values(reviews, task)
        stratum = labels.label_expression(task, labels.label_map(reviews, task), reviews.schema)
    parts, facts = splitting.split(reviews, arguments.split, arguments.seed, stratum)
    if facts["mode"] != "random":
        leak = f"{facts['test_rows_also_in_train']:,} of {facts['test_rows']:,} test reviews are also in the train file"
        if facts["mode"] == "official":
            log.warning("WARNING: %s and are KEPT (split.mode: official); scores on them are too high", leak)
        else:
            log.info("%s, and are left out of test", leak)
    digests = {}
    for split, frame in parts.items():
        log.info("%s: %s reviews", split, f"{frame.height:,}")
        with whole(arguments.output / f"{split}.parquet") as partial:
            frame.write_parquet(partial, compression="lz4")
        digests[split] = labelled.digest(frame.select("review_id", "group", "review"))
    rows = {split: frame.height for split, frame in parts.items()}
    write_json(arguments.output / "split.json", {**facts, "rows": rows, "sha256": digests})


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--reviews", type=Path, required=True, help="cleaned table (parquet)")
    parser.add_argument(
        "--split", type=json.loads, required=True, help="mode (official-clean, official, random), valid, test; as JSON"
    )
    parser.add_argument("--seed", type=int, required=True, help="seed of the split")
    parser.add_argument(
        "--stratum", type=json.loads, help="mode random: the task whose classes stratify the split, as JSON"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for {train,valid,test}.parquet and split.json"
    )
    script.run(main, parser.parse_args())
