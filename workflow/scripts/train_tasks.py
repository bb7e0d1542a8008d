"""Train one model on the reviews of several tasks at once; resume from the last checkpoint after a kill."""

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
    from mllm.models import cards, checkpoint_files, families, joint, task_folders, training, training_rows

    start = time.perf_counter()
    bases = {task: node_cache.near(arguments.models / name) for task, name in sorted(arguments.bases.items())}
    tasks = {task: Task(arguments, task, folder) for task, folder in bases.items()}
    family = next(iter(tasks.values())).asked["family"]
    code = code_digest("train_tasks", families.module(family))
    key = identity(code, arguments.hyper, tasks)
    if (same := trained_already(arguments.same, key, tasks)) is not None:
        if processes.first():
            log.info("copied the finished training of %s, which is the same", same.name)
            with whole(arguments.output) as folder:
                task_folders.copy_linked(same, folder)
        return
    set_seed(arguments.hyper["seed"])
    model, tokenizer = joint.load(bases, family)
    read = {
        name: training_rows.prepare(task.reviews, task.names, tokenizer, task.asked, arguments.hyper)
        for name, task in tasks.items()
    }
    classes = {name: len(task.names) for name, task in tasks.items()}
    reviews = joint.together(read, classes, family == families.HEADED)
    checkpoints = training.Checkpoints(arguments.checkpoints / key[:10], arguments.checkpoint_seconds)
    model, facts = training.fine_tune(model, tokenizer, reviews, family, arguments.hyper, checkpoints)
    if not processes.first():
        return
    facts |= {"device": timing.device_name(), "processes": processes.count(), **timing.peak_memory()}
    seconds = round(time.perf_counter() - start, 1)
    with whole(arguments.output) as folder:
        joint.write(model, bases, folder)
        for name, task in tasks.items():
            card = cards.FineTuned(
                **task.asked, part=task.part, hyper_parameters=arguments.hyper, identity=key, parents={"base": task.parent},
                data=task.data[0], seconds=seconds, versions=checkpoint_files.versions(), **facts,
            )  # fmt: skip
            card.write(folder / name / cards.FILE)
    shutil.rmtree(arguments.checkpoints, ignore_errors=True)
    with contextlib.suppress(OSError):  # other jobs still use the folder, or it never existed
        arguments.checkpoints.parent.rmdir()


class Task:
    """One of the tasks: its base, its class names, its reviews.

    Raises:
        Failure: the base's outputs belong to other classes.
    """

    def __init__(self, arguments: argparse.Namespace, task: str, base: Path):
        from mllm.data import labelled
        from mllm.models import cards, checkpoint_files, families, training_rows

        self.part = arguments.parts[task]
        self.asked: cards.Asked = {**cards.read(base).asked(), "task": task}
        self.names: list[str] = arguments.names.get(task) or labelled.task_facts(arguments.data, task)["names"]
        if self.asked["family"] == families.HEADED:
            checkpoint_files.check_labels(base, self.names)
        self.reviews = training_rows.reviews_of(arguments.data, task, self.part)
        self.parent, self.data = checkpoint_files.digest(base), training_rows.digests(self.reviews, task)

    def definition(self) -> list[Any]:
        """Return all of this task that a training depends on."""
        return [self.names, self.asked, self.parent, self.part, self.data]


def identity(code: str, hyper: dict[str, Any], tasks: dict[str, Task]) -> str:
    """Return a digest of all that a training depends on: another training must not resume from its checkpoints."""
    parts = [code, hyper, {name: task.definition() for name, task in tasks.items()}]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def trained_already(same: list[Path], key: str, tasks: dict[str, Task]) -> Path | None:
    """Return the finished training with the same identity, as after a renaming; else None."""
    cards = {folder: folder / next(iter(tasks)) / "model.json" for folder in same}
    return next((at for at, card in cards.items() if card.exists() and read_json(card).get("identity") == key), None)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--models", type=Path, required=True, help="folder with the bases' model folders")
    parser.add_argument("--bases", type=json.loads, required=True, help="task -> name of its base, as JSON")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument(
        "--names",
        type=json.loads,
        default={},
        help="task -> classes in a prompt's words, as JSON (default: the tasks')",
    )
    parser.add_argument(
        "--parts", type=json.loads, required=True, help="task -> its reviews, as JSON: {} or {union: [part, …]}"
    )
    training_arguments.add(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder to write, with a model folder for each task")
    script.run(lambda given: processes.spread(main, given, given.gpus), parser.parse_args())
