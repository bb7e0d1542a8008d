"""Fine-tune a base on an expert's part of the train reviews; resume from the last checkpoint after a kill."""

import argparse
import contextlib
import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from mllm.core import node_cache, script, threads
from mllm.core.code_digest import code_digest
from mllm.core.files import read_json, whole
from mllm.core.messages import log
from mllm.models import processes, training_arguments


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    threads.fix(arguments.threads)
    script.usable_gpu()
    from transformers import set_seed

    from mllm.core import timing
    from mllm.data import labelled
    from mllm.models import cards, checkpoint_files, families, loading, training, training_rows

    start = time.perf_counter()
    names = arguments.names or labelled.task_facts(arguments.data, arguments.task)["names"]
    base = node_cache.near(arguments.base)
    asked = cards.read(base).asked()
    if asked["family"] == families.HEADED:
        checkpoint_files.check_labels(base, names)
    parts = training_rows.reviews_of(arguments.data, arguments.task, arguments.part)
    parent, data = checkpoint_files.digest(base), training_rows.digests(parts, arguments.task)
    code = code_digest("train_expert", families.module(asked["family"]))
    key = identity(code, arguments, names, asked, parent, data)
    if (same := trained_already(arguments.same, key)) is not None:
        if processes.first():
            log.info("copied the finished training of %s, which is the same", same.name)
            with whole(arguments.output) as folder:
                shutil.copytree(same, folder)
        return
    unfinished = arguments.checkpoints / key[:10]
    set_seed(arguments.hyper["seed"])
    model, tokenizer = loading.load_model(base, asked["family"])
    asked_here: cards.Asked = {**asked, "task": arguments.task}
    reviews = training_rows.prepare(parts, names, tokenizer, asked_here, arguments.hyper)
    checkpoints = training.Checkpoints(unfinished, arguments.checkpoint_seconds)
    model, facts = training.fine_tune(model, tokenizer, reviews, asked["family"], arguments.hyper, checkpoints)
    memory = timing.peak_memory()
    card = cards.FineTuned(
        family=asked["family"], model=asked["model"], task=arguments.task, part=arguments.part, hyper_parameters=arguments.hyper,
        identity=key, parents={"base": parent}, data=data[0], **facts, device=timing.device_name(), processes=processes.count(),
        seconds=round(time.perf_counter() - start, 1), peak_memory_bytes=memory["peak_memory_bytes"],
        peak_gpu_memory_bytes=memory["peak_gpu_memory_bytes"],
    )  # fmt: skip
    if not processes.first():
        return
    with whole(arguments.output) as folder:
        checkpoint_files.save(model, tokenizer, folder, card)
    shutil.rmtree(arguments.checkpoints, ignore_errors=True)
    with contextlib.suppress(OSError):  # other experts still use the folder, or it never existed
        arguments.checkpoints.parent.rmdir()


def identity(
    code: str, arguments: argparse.Namespace, names: list[str], asked: Any, parent: str, read: list[str]
) -> str:
    """Return a digest of all that a training depends on: another training must not resume from its checkpoints."""
    parts = [code, arguments.hyper, arguments.task, names, asked, parent, arguments.part, read]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def trained_already(same: list[Path], key: str) -> Path | None:
    """Return the finished training with the same identity, as after a renaming; else None."""
    cards = [folder / "model.json" for folder in same]
    return next((card.parent for card in cards if card.exists() and read_json(card).get("identity") == key), None)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--base", type=Path, required=True, help="model folder to start from")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument(
        "--names", type=json.loads, help="class names in a prompt's words, as JSON (default: the task's)"
    )
    parser.add_argument(
        "--part", type=json.loads, required=True, help="the reviews to use, as JSON: {}, {shard, of, seed} or {where}"
    )
    training_arguments.add(parser)
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    script.run(lambda given: processes.spread(main, given, given.gpus), parser.parse_args())
