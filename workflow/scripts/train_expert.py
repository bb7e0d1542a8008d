"""Fine-tune a base on an expert's part of the train reviews; goes on from the last checkpoint after a kill."""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import time
from pathlib import Path

from mllm import cli, ranks, staging
from mllm.code import code_digest


def main(arguments: argparse.Namespace) -> None:
    cli.offline()
    cli.threads(arguments.threads)
    cli.usable_gpu()
    import polars as pl
    from transformers import set_seed

    from mllm import checkpoints, families, prediction, splits, tables, training

    start = time.perf_counter()
    names = [str(n) for n in tables.task_facts(arguments.data, arguments.task)["names"]]
    base = staging.near(arguments.base)
    asked = checkpoints.asked_as(base)
    if asked["family"] == families.HEADED:
        checkpoints.check_labels(base, names)
    rows = splits.select_part(pl.read_parquet(arguments.data / "train.parquet"), arguments.part, arguments.task)
    where = {k: v for k, v in arguments.part.items() if k == "where"}
    valid = splits.select_part(pl.read_parquet(arguments.data / "valid.parquet"), where, arguments.task, strict=False)
    parent = checkpoints.digest(base)
    # Whoever trains something else must not go on from this training's checkpoints.
    read = [tables.digest(rows), tables.digest(valid)]
    identity = [code_digest("train_expert"), arguments.hyper, arguments.task, names, asked, parent, read]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
    unfinished = arguments.checkpoints / key
    set_seed(arguments.hyper["seed"])
    model, tokenizer = checkpoints.load_model(base, asked["family"])
    model, facts = training.fine_tune(
        model, tokenizer, {"train": rows, "valid": valid}, names, {**asked, "task": arguments.task}, arguments.hyper,
        unfinished, arguments.checkpoint_seconds,
    )  # fmt: skip
    card = {
        **asked, "kind": "fine_tuned", "task": arguments.task, "part": arguments.part, "hyper_parameters": arguments.hyper,
        "parents": {"base": parent}, "data": tables.digest(rows), **facts, "device": prediction.device_name(), "processes": ranks.count(),
        "seconds": round(time.perf_counter() - start, 1), **prediction.peak_memory(),
    }  # fmt: skip
    if not ranks.first():
        return
    with cli.whole(arguments.output) as folder:
        checkpoints.save(model, tokenizer, folder, card)
    shutil.rmtree(arguments.checkpoints, ignore_errors=True)
    with contextlib.suppress(OSError):  # other experts are still at work there, or it never was
        arguments.checkpoints.parent.rmdir()


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--base", type=Path, required=True, help="model folder to start from")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True)
    parser.add_argument(
        "--part", type=json.loads, required=True, help="which reviews, as JSON: {}, {shard, of, seed} or {where}"
    )
    parser.add_argument("--hyper", type=json.loads, required=True, help="hyper-parameters, as JSON")
    parser.add_argument(
        "--checkpoints", type=Path, required=True, help="folder for unfinished training; survives the job"
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=float(os.environ.get("MLLM_CHECKPOINT_SECONDS", 300)),
        help="time between checkpoints (default: $MLLM_CHECKPOINT_SECONDS, or 300)",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of this machine to train on; processes without any")
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    cli.run(lambda given: ranks.spread(main, given, given.gpus), parser.parse_args())
