"""Take a fine-tuned checkpoint as an expert, as it is: merged and compared like those that were trained here."""

import argparse
import json
from pathlib import Path

from mllm.core import node_cache, script, threads
from mllm.core.files import whole


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    threads.fix(1)
    from mllm.data import labelled
    from mllm.merging import compatibility
    from mllm.models import cards, checkpoint_files, families, licences, loading
    from mllm.models.tokenizers import load_tokenizer

    base = node_cache.near(arguments.base)
    asked = cards.read(base).asked()
    neutral = labelled.task_facts(arguments.data, arguments.task)["names"]
    checkpoint_files.check_usable(arguments.checkpoint)
    checkpoint_files.check_whole(arguments.checkpoint)
    if asked["family"] == families.HEADED:
        checkpoint_files.check_labels(arguments.checkpoint, arguments.names or neutral)
    compatibility.check_tokenizer(arguments.checkpoint, base)
    model = loading.load_weights(arguments.checkpoint, asked["family"], headless=False)
    tokenizer = load_tokenizer(base)
    model.config.pad_token_id = tokenizer.pad_token_id
    if asked["family"] == families.HEADED:
        model.config.id2label = dict(enumerate(neutral))
        model.config.label2id = {name: i for i, name in enumerate(neutral)}
    card = cards.Published(
        family=asked["family"], model=asked["model"], task=arguments.task, source=arguments.model,
        license=licences.license_of(arguments.checkpoint), parents={"base": checkpoint_files.digest(base)},
    )  # fmt: skip
    with whole(arguments.output) as folder:
        checkpoint_files.save(model, tokenizer, folder, card)
        compatibility.check_config(folder, base, arguments.checkpoint)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--model", type=json.loads, required=True, help="its entry in the experiment, as JSON")
    parser.add_argument("--checkpoint", type=Path, required=True, help="its folder")
    parser.add_argument("--base", type=Path, required=True, help="prepared base that it is to be merged with")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True)
    parser.add_argument("--names", type=json.loads, help="the classes that it must have, as JSON (default: the task's)")
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    script.run(main, parser.parse_args())
