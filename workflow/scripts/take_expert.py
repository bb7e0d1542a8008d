"""Take a fine-tuned checkpoint as an expert, as it is: merged and compared like those that were trained here."""

import argparse
import json
from pathlib import Path

from mllm import cli, staging


def main(arguments: argparse.Namespace) -> None:
    cli.offline()
    cli.threads(1)
    from mllm import bases, checkpoints, families, parents, tables

    base = staging.near(arguments.base)
    asked = checkpoints.asked_as(base)
    names = [str(n) for n in tables.task_facts(arguments.data, arguments.task)["names"]]
    checkpoints.check_whole(arguments.checkpoint)
    if asked["family"] == families.HEADED:
        checkpoints.check_labels(arguments.checkpoint, names)
    parents.check_tokenizer(arguments.checkpoint, base)
    try:
        model, _ = checkpoints.load_model(arguments.checkpoint, asked["family"])
    except (RuntimeError, ValueError) as error:
        raise cli.Failure(
            f"{arguments.checkpoint}: cannot be loaded as {families.load(asked['family']).WHAT}: {str(error).splitlines()[0]}"
        ) from None
    checkpoints.check_loaded(model, arguments.checkpoint, [])
    _, tokenizer = checkpoints.load_model(base, asked["family"])
    model.config.pad_token_id = tokenizer.pad_token_id
    card = {
        **asked, "kind": "published", "task": arguments.task, "source": arguments.model,
        "license": bases.license_of(arguments.checkpoint), "parents": {"base": checkpoints.digest(base)},
    }  # fmt: skip
    with cli.whole(arguments.output) as folder:
        checkpoints.save(model, tokenizer, folder, card)
        parents.check_config(folder, base)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--model", type=json.loads, required=True, help="its entry in the experiment, as JSON")
    parser.add_argument("--checkpoint", type=Path, required=True, help="its folder")
    parser.add_argument("--base", type=Path, required=True, help="prepared base that it is to be merged with")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True)
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    cli.run(main, parser.parse_args())
