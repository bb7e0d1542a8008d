"""Write the tokens of all validation and test reviews for one prepared checkpoint, before any job holds a GPU."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from mllm.core import script, threads
from mllm.core.code_digest import code_digest
from mllm.core.files import write_json


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    threads.fix(1)
    from mllm.data import labelled
    from mllm.models import cards, families, loading, tokens
    from mllm.models.tokenizers import load_tokenizer
    from mllm.prediction import asking

    card = replace(cards.read(arguments.model), task=arguments.task)
    names = arguments.names or labelled.task_facts(arguments.data, arguments.task)["names"]
    model = loading.without_weights(arguments.model, card.family)
    tokenizer = load_tokenizer(arguments.model)
    scorer, _ = asking.scorer_of(card.asked(), model, tokenizer, names, arguments.data, arguments.seed)
    reviews = labelled.labelled(arguments.data, ("valid", "test"), arguments.task)["review"].to_list()
    texts = [*reviews, *families.load(card.family).BESIDE]
    code = code_digest("tokenise", families.module(card.family))
    found = tokens.shared(scorer, texts, arguments.output.parent, code)
    write_json(arguments.output, {"texts": len(found), "tokens": len(found.flat), "cut": found.cut})


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the prepared checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument(
        "--names", type=json.loads, help="class names in a prompt's words, as JSON (default: the task's)"
    )
    parser.add_argument("--seed", type=int, default=17, help="seed of a prompt's examples")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="numbers of texts and tokens (JSON); the tokens are written beside it",
    )
    script.run(main, parser.parse_args())
