"""Merge checkpoints by one recipe, and write the same recipe for the mergekit-yaml command."""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
    from mllm.merging.merge import Merge, write_model
    from mllm.merging.recipe_file import mergekit_yaml
    from mllm.models import cards, checkpoint_files

    recipe = arguments.recipe
    folders = {name: arguments.models / name for name in (arguments.base, *recipe["members"])}
    read = {name: node_cache.near(folder) for name, folder in folders.items()}
    donor = read[arguments.base]
    device = "cuda" if arguments.gpus and torch.cuda.is_available() else "cpu"
    with ThreadPoolExecutor(1) as beside, whole(arguments.output / "model") as folder:
        merge = Merge(recipe, read, donor, device)
        digests = {name: beside.submit(parents.digest, folders[name], read[name], arguments.kept) for name in read}
        weights = write_model(merge, donor, folder)
        card = cards.Merge(
            **cards.read(donor).asked(), recipe=recipe, dtype=str(merge.out_dtype).removeprefix("torch."), weights=weights,
            parents={name: digest.result() for name, digest in digests.items()}, device=merge.device,
            versions=checkpoint_files.versions(),
        )  # fmt: skip
        card.write(folder / cards.FILE)
        with whole(arguments.output / "mergekit.yaml") as partial:
            partial.write_text(mergekit_yaml(merge, folders), encoding="utf-8")
        card.write(arguments.output / "merge.json")


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument(
        "--recipe", type=json.loads, required=True, help="method, members, parameters and base, as JSON"
    )
    parser.add_argument("--models", type=Path, required=True, help="folder with the model folders <base> and <member>")
    parser.add_argument("--base", required=True, help="name of the members' base")
    parser.add_argument("--gpus", type=int, default=0, choices=[0, 1], help="1: compute on a GPU, where there is one")
    parser.add_argument("--kept", type=Path, help="folder where merges of the same models share their digests")
    parser.add_argument("--output", type=Path, required=True, help="folder for mergekit.yaml, merge.json and model/")
    script.run(main, parser.parse_args())
