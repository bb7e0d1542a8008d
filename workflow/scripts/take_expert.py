"""Take a fine-tuned checkpoint as it is: as an expert, merged like the experts trained here, or as a reference."""

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
    from mllm.models import cards, checkpoint_files, families, licences, loading, outputs, pretrained
    from mllm.models.tokenizers import load_tokenizer

    neutral = labelled.task_facts(arguments.data, arguments.task)["names"]
    base = node_cache.near(arguments.base) if arguments.base else None
    family = cards.read(base).family if base else arguments.model["family"]
    headed = family == families.HEADED
    checkpoint_files.check_usable(arguments.checkpoint)
    checkpoint_files.check_whole(arguments.checkpoint)
    order = outputs.order_of(arguments.checkpoint, arguments.names or neutral, arguments.labels) if headed else []
    if base:
        compatibility.check_tokenizer(arguments.checkpoint, base)
        model = loading.load_weights(arguments.checkpoint, family, headless=False)
        tokenizer = load_tokenizer(base)
        model.config.pad_token_id = tokenizer.pad_token_id
    else:
        model, tokenizer = pretrained.as_it_is(arguments.checkpoint, family, arguments.model["max_length"])
    if headed:
        outputs.reorder(model, tokenizer, arguments.checkpoint, order)
        model.config.id2label = dict(enumerate(neutral))
        model.config.label2id = {name: i for i, name in enumerate(neutral)}
    card = cards.Published(
        family=family, model=cards.read(base).model if base else arguments.model, task=arguments.task, source=arguments.model,
        license=licences.license_of(arguments.checkpoint), parents={"base": checkpoint_files.digest(base)} if base else {},
    )  # fmt: skip
    with whole(arguments.output) as folder:
        checkpoint_files.save(model, tokenizer, folder, card)
        if base:
            compatibility.check_config(folder, base, arguments.checkpoint)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--model", type=json.loads, required=True, help="the model's entry in the experiment, as JSON")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the checkpoint's folder")
    parser.add_argument("--base", type=Path, help="for an expert: prepared base of its merges")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument("--names", type=json.loads, help="classes that it must have, as JSON (default: the task's)")
    parser.add_argument(
        "--labels", type=json.loads, help="class -> the checkpoint's name for it, as JSON (default: the same)"
    )
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    script.run(main, parser.parse_args())
