"""Predict class log-probabilities of all validation and test reviews for several tasks with one model."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core import compute, script, threads
from mllm.prediction import script_arguments

if TYPE_CHECKING:
    from mllm.prediction.one_task import How, Question


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    threads.fix(arguments.threads)
    compute.keep_freed_memory()
    from mllm.models import checkpoint_files, families
    from mllm.prediction import one_task, run_model

    dtype = run_model.dtype_of(arguments.dtype)
    how = one_task.How(
        "predict_tasks", arguments.data, arguments.seed, arguments.threads, arguments.gpus, dtype, arguments.tokens
    )
    questions = [
        one_task.question(
            how, arguments.model / task, task, part["names"],
            (Path(f"{part['output']}.parquet"), Path(f"{part['output']}.cost.json")),
        )
        for task, part in arguments.tasks.items()
    ]  # fmt: skip
    questions = [question for question in questions if not one_task.taken(question)]
    if not questions:
        return
    first = questions[0]
    script.usable_gpu(
        checkpoint_files.parameters(first.model) * (2 if dtype == "bfloat16" else 4) / 2**20, arguments.gpus
    )
    (with_heads if first.card.family == families.HEADED else asked_in_turn)(arguments, how, questions)


def with_heads(arguments: argparse.Namespace, how: "How", questions: "list[Question]") -> None:
    """Predict all tasks in one pass over their reviews, with a head for each task."""
    import polars as pl

    from mllm.core import timing
    from mllm.models import families
    from mllm.prediction import first_layers, heads, one_task, run_model

    cost: dict[str, Any] = {"parameters_of_whole": parameters_of_whole(arguments)}
    with timing.timed(cost, "load_seconds"):
        models, tokenizer = heads.load_together([q.model for q in questions], spread=how.gpus > 1, dtype=how.dtype)
    numbers = [model.num_parameters() for model in models]
    scorer = heads.scorer_of([q.card.asked() for q in questions], models, tokenizer, [q.names for q in questions])
    union = pl.concat(q.rows.select("review_id", "review") for q in questions).unique(
        "review_id", keep="first", maintain_order=True
    )
    kept = shards_in(arguments, arguments.shards, *(q.identity for q in questions))
    with timing.timed(cost, "tokenise_seconds"):
        read = one_task.read(how, scorer, union["review"].to_list(), families.HEADED)
    run_model.warm_up(scorer, read)
    cost["start_seconds"] = compute.seconds_since_start()
    sharing = first_layers.shared(arguments.first_layers, scorer, read, how.tokens, one_task.others_share(questions[0]))
    with sharing as first, timing.timed(cost, "predict_seconds"):
        found = run_model.log_probabilities(scorer, read, kept, first)
    cost["shared_layers"] = arguments.first_layers if first and first.known else None
    whole = {**cost, "reviews": union.height}
    begin = 0
    places = union.select("review_id").with_row_index("place")
    for question, number in zip(questions, numbers, strict=True):
        own = question.rows.select("review_id").join(places, on="review_id", how="left", maintain_order="left")
        logp = found[own["place"].to_numpy(), begin : begin + len(question.names)]
        begin += len(question.names)
        # One pass answers all tasks: each gets its reviews' share of the seconds, and the speed of the pass.
        seconds = round(cost["predict_seconds"] * question.rows.height / union.height, 6)
        own_cost = {**cost, **one_task.speeds(how, question, scorer, read, whole)}
        one_task.write(question, logp, found[:0], {**own_cost, "n_parameters": number, "predict_seconds": seconds})
    if kept:
        kept.remove()


def asked_in_turn(arguments: argparse.Namespace, how: "How", questions: "list[Question]") -> None:
    """Load the model once, and ask it task by task."""
    from mllm.core import timing
    from mllm.models import families, loading
    from mllm.prediction import asking, one_task, run_model

    first: dict[str, Any] = {"parameters_of_whole": parameters_of_whole(arguments)}
    family = questions[0].card.family
    with timing.timed(first, "load_seconds"):
        model, tokenizer = loading.load_model(questions[0].model, family, spread=how.gpus > 1, dtype=how.dtype)
    for question in questions:
        cost, rows = dict(first), question.rows
        asked = question.card.asked()
        scorer, _ = asking.scorer_of(asked, model, tokenizer, question.names, how.data, how.seed)
        folder = arguments.shards / asked["task"] if arguments.shards else None
        kept = shards_in(arguments, folder, question.identity)
        texts = [*rows["review"].to_list(), *families.load(family).BESIDE]
        with timing.timed(cost, "tokenise_seconds"):
            read = one_task.read(how, scorer, texts, family)
        run_model.warm_up(scorer, read)
        cost["start_seconds"] = compute.seconds_since_start()
        with timing.timed(cost, "predict_seconds"):
            found = run_model.log_probabilities(scorer, read, kept)
        cost |= {"n_parameters": model.num_parameters(), "reviews": rows.height}
        cost |= one_task.speeds(how, question, scorer, read, cost)
        one_task.write(question, found[: rows.height], found[rows.height :], cost)
        if kept:
            kept.remove()


def parameters_of_whole(arguments: argparse.Namespace) -> int:
    """Count the parameters of the model with the heads of all its tasks."""
    from mllm.models import task_folders

    return task_folders.parameters([arguments.model / task for task in arguments.tasks])


def shards_in(arguments: argparse.Namespace, folder: Path | None, *identities: str) -> Any:
    """Return the place for unfinished predictions of these identities, or None without a folder."""
    from mllm.prediction import one_task, shards

    key = one_task.shards_key(*identities)
    return shards.Shards(folder, key, arguments.checkpoint_seconds) if folder else None


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with a model folder for each task")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument(
        "--tasks", type=json.loads, required=True,
        help="task -> names (classes in a prompt's words, or null) and output (path without its ending), as JSON",
    )  # fmt: skip
    script_arguments.add(parser)
    script.run(main, parser.parse_args())
