"""Cut the cleaned reviews into train, validation and test, and give them the tasks' labels."""

import argparse
import hashlib
import json
from pathlib import Path

from mllm import cli


def main(arguments: argparse.Namespace) -> None:
    import polars as pl

    from mllm import splits

    parts, facts = splits.split(pl.read_parquet(arguments.reviews), arguments.mode, arguments.valid, arguments.seed)
    leak = f"{facts['test_rows_also_in_train']:,} of {facts['test_rows']:,} test reviews stand in the train file too"
    if arguments.mode == "official":
        cli.log.warning("WARNING: %s and are KEPT (split.mode: official); scores on them are too good", leak)
    else:
        cli.log.info("%s; left out of test", leak)
    tasks = {}
    for task in arguments.tasks:
        name, label = task["name"], task["label"]
        names = splits.label_map(parts["train"], label, task.get("top"))
        column = splits.label_expression(label, names).alias(splits.label_column(name))
        parts = {split: frame.with_columns(column) for split, frame in parts.items()}
        counts = splits.check_classes(parts, name, names)
        tasks[name] = {"label": label, "names": names, "ordered": label != "condition", "counts": counts}
    digests = {}
    for split, frame in parts.items():
        cli.log.info("%s: %s reviews", split, f"{frame.height:,}")
        with cli.whole(arguments.output / f"{split}.parquet") as partial:
            frame.write_parquet(partial)
            digests[split] = hashlib.sha256(partial.read_bytes()).hexdigest()
    cli.write_json(arguments.output / "split.json", {**facts, "tasks": tasks, "sha256": digests})


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--reviews", type=Path, required=True, help="cleaned table (parquet)")
    parser.add_argument("--mode", required=True, choices=["official-clean", "official"])
    parser.add_argument("--valid", type=float, required=True, help="fraction of train's texts for validation")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--tasks", type=json.loads, required=True, help="JSON list of {name, label, top}")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for {train,valid,test}.parquet and split.json"
    )
    cli.run(main, parser.parse_args())
