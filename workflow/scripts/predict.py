"""Predict class log-probabilities of all validation and test reviews with one model."""

import argparse
import json
from pathlib import Path
from typing import Any

from mllm.core import compute, script, threads
from mllm.prediction import script_arguments


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    threads.fix(arguments.threads)
    compute.keep_freed_memory()
    from mllm.core import timing
    from mllm.models import checkpoint_files, families, loading
    from mllm.prediction import asking, first_layers, one_task, run_model, shards

    dtype = run_model.dtype_of(arguments.dtype)
    how = one_task.How(
        "predict", arguments.data, arguments.seed, arguments.threads, arguments.gpus, dtype, arguments.tokens
    )
    to = arguments.output, arguments.cost
    question = one_task.question(how, arguments.model, arguments.task, arguments.names, to, arguments.prompt)
    if one_task.taken(question):
        return
    weights_mb = checkpoint_files.parameters(arguments.model) * (2 if dtype == "bfloat16" else 4) / 2**20
    script.usable_gpu(weights_mb, arguments.gpus)
    cost: dict[str, Any] = {}
    asked, rows = question.card.asked(), question.rows
    with timing.timed(cost, "load_seconds"):
        model, tokenizer = loading.load_model(arguments.model, asked["family"], spread=arguments.gpus > 1, dtype=dtype)
    scorer, _ = asking.scorer_of(asked, model, tokenizer, question.names, arguments.data, arguments.seed)
    key = one_task.shards_key(question.identity)
    kept = shards.Shards(arguments.shards, key, arguments.checkpoint_seconds) if arguments.shards else None
    texts = [*rows["review"].to_list(), *families.load(asked["family"]).BESIDE]
    with timing.timed(cost, "tokenise_seconds"):
        read = one_task.read(how, scorer, texts, asked["family"])
    run_model.warm_up(scorer, read)
    cost["start_seconds"] = compute.seconds_since_start()
    sharing = first_layers.shared(arguments.first_layers, scorer, read, how.tokens, one_task.others_share(question))
    with sharing as first, timing.timed(cost, "predict_seconds"):
        found = run_model.log_probabilities(scorer, read, kept, first)
    cost["shared_layers"] = arguments.first_layers if first and first.known else None
    cost |= {"n_parameters": model.num_parameters(), "reviews": rows.height}
    cost |= one_task.speeds(how, question, scorer, read, cost)
    one_task.write(question, found[: rows.height], found[rows.height :], cost)
    if kept:
        kept.remove()


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument(
        "--names", type=json.loads, help="class names in a prompt's words, as JSON (default: the task's)"
    )
    parser.add_argument("--prompt", type=json.loads, help="the prompt's settings, as JSON (default: the card's)")
    script_arguments.add(parser)
    parser.add_argument("--output", type=Path, required=True, help="predictions to write (parquet)")
    parser.add_argument("--cost", type=Path, required=True, help="cost to write (JSON)")
    script.run(main, parser.parse_args())
