"""Merge checkpoints by one recipe, and write down how the mergekit-yaml command would do the same."""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mllm import cli, machine, staging


def main(arguments: argparse.Namespace) -> None:
    cli.offline()
    machine.keep_freed_memory()
    cli.threads(1)
    import torch

    from mllm import checkpoints, merging

    recipe = arguments.recipe
    folders = {name: arguments.models / name for name in (arguments.base, *recipe["members"])}
    read = {name: staging.near(folder) for name, folder in folders.items()}
    donor = read[arguments.base]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with ThreadPoolExecutor(1) as beside, cli.whole(arguments.output / "model") as folder:
        merge = merging.Merge(recipe, read, donor, device)
        digests = {name: beside.submit(checkpoints.digest, parent) for name, parent in read.items()}
        weights = merging.write_model(merge, donor, folder)
        card = {
            **checkpoints.asked_as(donor), "kind": "merge", "recipe": recipe, "dtype": str(merge.out_dtype).removeprefix("torch."), "weights": weights,
            "parents": {name: digest.result() for name, digest in digests.items()}, "device": merge.device,
            "versions": checkpoints.versions(),
        }  # fmt: skip
        (folder / checkpoints.CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
        with cli.whole(arguments.output / "mergekit.yaml") as partial:
            partial.write_text(merging.mergekit_yaml(merge, folders))
        cli.write_json(arguments.output / "merge.json", card)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--recipe", type=json.loads, required=True, help="method, members, parameters and base, as JSON"
    )
    parser.add_argument("--models", type=Path, required=True, help="folder with the model folders <base> and <member>")
    parser.add_argument("--base", default="base", help="name of the members' base")
    parser.add_argument("--output", type=Path, required=True, help="folder for mergekit.yaml, merge.json and model/")
    cli.run(main, parser.parse_args())
