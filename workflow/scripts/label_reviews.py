"""Label the split reviews for one task."""

import argparse
import json
from pathlib import Path

from mllm.core import script
from mllm.core.messages import log


def main(arguments: argparse.Namespace) -> None:
    import polars as pl

    from mllm.data import labelled, labels, splitting

    task = arguments.task
    parts = {split: pl.read_parquet(arguments.data / f"{split}.parquet") for split in ("train", "valid", "test")}
    splitting.check_values(pl.concat(parts.values()), task, arguments.wheres)
    names = labels.label_map(parts["train"], task)
    label = labels.label_expression(task, names, parts["train"].schema).alias("label")
    found = {split: frame.select("review_id", label) for split, frame in parts.items()}
    counts = splitting.count_classes(found, task["name"], names)
    none = {split: int(frame["label"].null_count()) for split, frame in found.items()}
    if any(none.values()):
        log.info("task %s: %s reviews have no label, and are left out", task["name"], f"{sum(none.values()):,}")
    facts = {
        "label": task.get("label") or task["column"],
        "names": labels.neutral_names(task, names),
        "counts": counts,
        "unlabelled": none,
    }
    labelled.write_task(arguments.data, task["name"], facts, pl.concat(found.values()).drop_nulls("label"))


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument(
        "--task", type=json.loads, required=True, help="{name, label, top} or {name, column, classes, ordered}, as JSON"
    )
    parser.add_argument("--wheres", type=json.loads, default={}, help="expert -> {column: values} to check, as JSON")
    script.run(main, parser.parse_args())
