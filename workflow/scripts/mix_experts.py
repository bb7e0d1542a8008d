"""Make a mixture of experts by one recipe: mergekit-moe's, around the members' average."""

import argparse
import json
from pathlib import Path

from mllm.core import node_cache, script, threads
from mllm.core.files import whole


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    threads.fix(1)
    from mllm.data import labelled, splitting
    from mllm.merging import mixture, router
    from mllm.models import cards, checkpoint_files

    recipe = arguments.recipe
    parameters, members = recipe["parameters"], recipe["members"]
    folders = {name: node_cache.near(arguments.models / name) for name in (arguments.base, *members)}
    base, prompts = cards.read(folders[arguments.base]), {}
    if parameters["gate_mode"] not in router.RANDOM:
        train = labelled.with_labels(arguments.data, "train", base.task).sort("review_id")
        for name in members:
            member = cards.read(folders[name])
            part = member.part if isinstance(member, cards.FineTuned) else {}
            own = splitting.select_part(train, part, member.task)
            drawn = own.sample(min(parameters["prompts"], own.height), seed=parameters["seed"], shuffle=True)
            prompts[name] = drawn["review"].to_list()
    filled = {**recipe, "base": arguments.base, "out_dtype": parameters["out_dtype"]}
    with whole(arguments.output / "model") as folder:
        weights = mixture.build(filled, folders, prompts, folder)
        card = cards.Merge(
            **base.asked(), recipe=recipe, dtype=parameters["out_dtype"], weights=weights,
            parents={name: checkpoint_files.digest(parent) for name, parent in folders.items()}, device="cpu",
            versions=checkpoint_files.versions(),
        )  # fmt: skip
        card.write(folder / cards.FILE)
        with whole(arguments.output / "mergekit.yaml") as partial:
            partial.write_text(
                mixture.mergekit_yaml(recipe, {n: arguments.models / n for n in members}, prompts), encoding="utf-8"
            )
        card.write(arguments.output / "merge.json")


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--recipe", type=json.loads, required=True, help="method, members and parameters, as JSON")
    parser.add_argument("--models", type=Path, required=True, help="folder with the model folders <base> and <member>")
    parser.add_argument("--base", required=True, help="name of the members' base")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder for mergekit.yaml, merge.json and model/")
    script.run(main, parser.parse_args())
