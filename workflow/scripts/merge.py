"""Merge checkpoints by one recipe, and write down how the mergekit-yaml command would do the same."""

import argparse
import json
from pathlib import Path

from mllm import cli, staging


def main(arguments: argparse.Namespace) -> None:
    cli.offline()
    cli.threads(1)
    from mllm import checkpoints, merging

    recipe = arguments.recipe
    folders = {name: arguments.models / name for name in (arguments.base, *recipe["members"])}
    read = {name: staging.near(folder) for name, folder in folders.items()}
    donor = read[arguments.base]
    state = merging.merge(recipe, read, donor)
    card = {
        "kind": "merge", "recipe": recipe, "dtype": "float32",
        "parents": {name: checkpoints.digest(read[name]) for name in read}, "versions": checkpoints.versions(),
    }  # fmt: skip
    text = merging.mergekit_yaml(recipe, folders)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with cli.whole(arguments.output / "mergekit.yaml") as partial:
        partial.write_text(text)
    cli.write_json(arguments.output / "merge.json", card)
    with cli.whole(arguments.output / "model") as folder:
        merging.write(state, donor, folder, card)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--recipe", type=json.loads, required=True, help="method, members, parameters and base, as JSON"
    )
    parser.add_argument("--models", type=Path, required=True, help="folder with the model folders <base> and <member>")
    parser.add_argument("--base", default="base", help="name of the members' base")
    parser.add_argument("--output", type=Path, required=True, help="folder for mergekit.yaml, merge.json and model/")
    cli.run(main, parser.parse_args())
