"""Cut the cleaned reviews into train, validation and test, and give them the tasks' labels."""

import argparse
import json
import shutil
from pathlib import Path

from mllm import cli


def main(arguments: argparse.Namespace) -> None:
    import polars as pl

    from mllm import splits, tables
    from mllm.columns import STATISTICS

    reviews = pl.read_parquet(arguments.reviews)
    splits.check_values(reviews, arguments.tasks, arguments.wheres)
    first = arguments.tasks[0]
    stratum = None
    if arguments.split["mode"] == "random":
        stratum = splits.label_expression(first, splits.label_map(reviews, first), reviews.schema)
    parts, facts = splits.split(reviews, arguments.split, arguments.seed, stratum)
    if facts["mode"] != "random":
        leak = (
            f"{facts['test_rows_also_in_train']:,} of {facts['test_rows']:,} test reviews stand in the train file too"
        )
        if facts["mode"] == "official":
            cli.log.warning("WARNING: %s and are KEPT (split.mode: official); scores on them are too good", leak)
        else:
            cli.log.info("%s; left out of test", leak)
    tasks = {}
    for task in arguments.tasks:
        name = task["name"]
        names = splits.label_map(parts["train"], task)
        column = splits.label_expression(task, names, reviews.schema).alias(splits.label_column(name))
        parts = {split: frame.with_columns(column) for split, frame in parts.items()}
        counts = splits.check_classes(parts, name, names)
        none = {split: int(frame[splits.label_column(name)].null_count()) for split, frame in parts.items()}
        if any(none.values()):
            cli.log.info("task %s: %s of the reviews have no label, and are left out", name, f"{sum(none.values()):,}")
        label = task.get("label") or task["column"]
        tasks[name] = {
            "label": label,
            "names": names,
            "ordered": splits.is_ordered(task),
            "counts": counts,
            "unlabelled": none,
        }
    shutil.rmtree(arguments.output / "tokens", ignore_errors=True)  # of other reviews
    digests = {}
    for split, frame in parts.items():
        cli.log.info("%s: %s reviews", split, f"{frame.height:,}")
        with cli.whole(arguments.output / f"{split}.parquet") as partial:
            frame.write_parquet(partial, compression="lz4")
        # Trainings and predictions do not depend on the statistics, which only slices are made of.
        digests[split] = tables.digest(frame.select(pl.exclude(STATISTICS)))
    cli.write_json(arguments.output / "split.json", {**facts, "tasks": tasks, "sha256": digests})


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--reviews", type=Path, required=True, help="cleaned table (parquet)")
    parser.add_argument(
        "--split", type=json.loads, required=True, help="mode (official-clean, official, random), valid, test; as JSON"
    )
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument(
        "--tasks",
        type=json.loads,
        required=True,
        help="JSON list of {name, label, top} or {name, column, classes, ordered}",
    )
    parser.add_argument(
        "--wheres", type=json.loads, default={}, help="expert -> {column: values}, to be checked; as JSON"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for {train,valid,test}.parquet and split.json"
    )
    cli.run(main, parser.parse_args())
