"""Prepare the checkpoint that experts start from; its head is initialised once, from a seed."""

import argparse
import json
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from mllm.core import script, threads
from mllm.core.files import whole
from mllm.models import processes


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    threads.fix(arguments.threads)
    if arguments.model.get("pretrain"):
        script.usable_gpu()
    from mllm.data import labelled
    from mllm.models import cards, checkpoint_files, families, licences

    spec = arguments.model
    names = labelled.task_facts(arguments.data, arguments.task)["names"]
    make: Any = import_module(families.maker(spec["source"]))
    if spec["source"] == "scratch":
        import polars as pl

        texts = pl.read_parquet(arguments.data / "train.parquet")["review"].to_list()
        with tempfile.TemporaryDirectory() as scratch:
            model, tokenizer = make.from_scratch(spec, texts, names, arguments.seed, Path(scratch))
    else:
        model, tokenizer = make.from_checkpoint(
            arguments.checkpoint, spec["family"], names, spec["max_length"], arguments.seed
        )
    licence = licences.license_of(arguments.checkpoint) if arguments.checkpoint else None
    card = cards.Base(family=spec["family"], model=spec, task=arguments.task, seed=arguments.seed, license=licence)
    with whole(arguments.output) as folder:
        checkpoint_files.save(model, tokenizer, folder, card)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--model", type=json.loads, required=True, help="the model's entry in the experiment, as JSON")
    parser.add_argument("--checkpoint", type=Path, help="pretrained folder (sources hub and local)")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument("--seed", type=int, required=True, help="seed of the head, and of models from scratch")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    # On one GPU: the Trainer would split batches over all GPUs that it sees.
    script.run(lambda given: processes.spread(main, given, 1), parser.parse_args())
