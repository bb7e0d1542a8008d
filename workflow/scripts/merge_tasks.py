"""Merge experts of several tasks by one recipe into one model, with a complete folder for each task."""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllm.core import compute, node_cache, script, threads
from mllm.core.files import whole


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    compute.keep_freed_memory()
    threads.fix(1)
    if arguments.gpus:
        script.usable_gpu()
    import torch

    from mllm.merging import parents
    from mllm.merging.over_tasks import Part, TaskMerge
    from mllm.merging.recipe_file import mergekit_yaml
    from mllm.models import cards, checkpoint_files

    recipe = arguments.recipe
    parts = {task: Part(part["base"], tuple(part["members"])) for task, part in arguments.tasks.items()}
    folders = {name: arguments.models / name for part in parts.values() for name in (part.base, *part.members)}
    read = {name: node_cache.near(folder) for name, folder in folders.items()}
    device = "cuda" if arguments.gpus and torch.cuda.is_available() else "cpu"
    with ThreadPoolExecutor(1) as beside, whole(arguments.output / "model") as folder:
        merge = TaskMerge(recipe, read, parts, device, arguments.kept)
        digests = {name: beside.submit(parents.digest, folders[name], read[name], arguments.kept) for name in read}
        weights = merge.write(folder)
        facts: dict[str, Any] = {
            "recipe": recipe, "dtype": str(merge.backbone.out_dtype).removeprefix("torch."), "weights": weights,
            "parents": {name: digest.result() for name, digest in digests.items()}, "device": merge.backbone.device,
            "versions": checkpoint_files.versions(),
        }  # fmt: skip
        for task, donor in merge.donors.items():
            card = cards.Merge(**cards.read(donor).asked(), **facts)
            card.write(folder / task / cards.FILE)
        with whole(arguments.output / "mergekit.yaml") as partial:
            partial.write_text(mergekit_yaml(merge.backbone, folders, merge.body), encoding="utf-8")
        replace(card, task=", ".join(parts)).write(arguments.output / "merge.json")


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument(
        "--recipe", type=json.loads, required=True, help="method, members, parameters and base, as JSON"
    )
    parser.add_argument("--tasks", type=json.loads, required=True, help="task -> its base and members, as JSON")
    parser.add_argument("--models", type=Path, required=True, help="folder with the model folders of bases and members")
    parser.add_argument("--gpus", type=int, default=0, choices=[0, 1], help="1: compute on a GPU, where there is one")
    parser.add_argument("--kept", type=Path, help="folder where merges of the same models share their digests")
    parser.add_argument("--output", type=Path, required=True, help="folder for mergekit.yaml, merge.json and model/")
    script.run(main, parser.parse_args())
