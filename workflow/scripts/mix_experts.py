"""Make a mixture of experts by one recipe: mergekit-moe's, around the members' average."""

import argparse
import json
from pathlib import Path

from mllm import cli, staging


def main(arguments: argparse.Namespace) -> None:
    cli.offline()
    cli.threads(1)
    import polars as pl

    from mllm import checkpoints, moe, splits

    recipe = arguments.recipe
    parameters, members = recipe["parameters"], recipe["members"]
    folders = {name: staging.near(arguments.models / name) for name in (arguments.base, *members)}
    prompts = {}
    if parameters["gate_mode"] not in moe.RANDOM:
        train = pl.read_parquet(arguments.data / "train.parquet").sort("review_id")
        for name in members:
            card = cli.read_json(folders[name] / checkpoints.CARD)
            own = splits.select_part(train, card.get("part", {}), card["task"])
            drawn = own.sample(min(parameters["prompts"], own.height), seed=parameters["seed"], shuffle=True)
            prompts[name] = drawn["review"].to_list()
    whole = {**recipe, "base": arguments.base, "out_dtype": parameters["out_dtype"]}
    with cli.whole(arguments.output / "model") as folder:
        weights = moe.build(whole, folders, prompts, folder)
        card = {
            **checkpoints.asked_as(folders[arguments.base]), "kind": "merge", "recipe": recipe, "dtype": parameters["out_dtype"], "weights": weights,
            "parents": {name: checkpoints.digest(parent) for name, parent in folders.items()}, "device": "cpu",
            "versions": checkpoints.versions(),
        }  # fmt: skip
        (folder / checkpoints.CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
        with cli.whole(arguments.output / "mergekit.yaml") as partial:
            partial.write_text(moe.mergekit_yaml(recipe, {n: arguments.models / n for n in members}, prompts))
        cli.write_json(arguments.output / "merge.json", card)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True, help="method, members and parameters, as JSON")
    parser.add_argument("--models", type=Path, required=True, help="folder with the model folders <base> and <member>")
    parser.add_argument("--base", default="base", help="name of the members' base")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder for mergekit.yaml, merge.json and model/")
    cli.run(main, parser.parse_args())
