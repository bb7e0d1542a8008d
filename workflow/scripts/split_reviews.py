"""Cut the cleaned reviews into train, validation and test, and give them the tasks' labels."""

import argparse
import json
import shutil
from pathlib import Path

from mllm.core import script
from mllm.core.files import whole, write_json
from mllm.core.messages import log


def main(arguments: argparse.Namespace) -> None:
    import polars as pl

    from mllm.data import labelled, labels, splitting
    from mllm.experiment.review_columns import STATISTICS

    reviews = pl.read_parquet(arguments.reviews)
    splitting.check_values(reviews, arguments.tasks, arguments.wheres)
    first = arguments.tasks[0]
    stratum = None
    if arguments.split["mode"] == "random":
        stratum = labels.label_expression(first, labels.label_map(reviews, first), reviews.schema)
    parts, facts = splitting.split(reviews, arguments.split, arguments.seed, stratum)
    if facts["mode"] != "random":
        leak = (
            f"{facts['test_rows_also_in_train']:,} of {facts['test_rows']:,} test reviews stand in the train file too"
        )
        if facts["mode"] == "official":
            log.warning("WARNING: %s and are KEPT (split.mode: official); scores on them are too good", leak)
        else:
            log.info("%s; left out of test", leak)
    tasks = {}
    for task in arguments.tasks:
        name = task["name"]
        names = labels.label_map(parts["train"], task)
        column = labels.label_expression(task, names, reviews.schema).alias(labels.label_column(name))
        parts = {split: frame.with_columns(column) for split, frame in parts.items()}
        counts = splitting.check_classes(parts, name, names)
        none = {split: int(frame[labels.label_column(name)].null_count()) for split, frame in parts.items()}
        if any(none.values()):
            log.info("task %s: %s of the reviews have no label, and are left out", name, f"{sum(none.values()):,}")
        label = task.get("label") or task["column"]
        tasks[name] = {
            "label": label,
            "names": names,
            "ordered": labels.is_ordered(task),
            "counts": counts,
            "unlabelled": none,
        }
    shutil.rmtree(arguments.output / "tokens", ignore_errors=True)  # of other reviews
    digests = {}
    for split, frame in parts.items():
        log.info("%s: %s reviews", split, f"{frame.height:,}")
        with whole(arguments.output / f"{split}.parquet") as partial:
            frame.write_parquet(partial, compression="lz4")
        # Trainings and predictions do not depend on the statistics, which only slices are made of.
        digests[split] = labelled.digest(frame.select(pl.exclude(STATISTICS)))
    write_json(arguments.output / "split.json", {**facts, "tasks": tasks, "sha256": digests})


if __name__ == "__main__":
    parser = script.parser(__doc__)
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
    script.run(main, parser.parse_args())
