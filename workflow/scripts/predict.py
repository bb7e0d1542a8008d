"""Predict the class log-probabilities of all validation and test reviews with one model."""

import argparse
from pathlib import Path
from typing import Any

from mllm import cli


def main(arguments: argparse.Namespace) -> None:
    cli.offline()
    cli.threads(arguments.threads)
    cli.usable_gpu()
    from mllm import checkpoints, prediction, tables

    names = [str(n) for n in tables.task_facts(arguments.data, arguments.task)["names"]]
    checkpoints.check_labels(arguments.model, names)
    card = cli.read_json(arguments.model / checkpoints.CARD)
    rows = tables.labelled(arguments.data, ("valid", "test"), arguments.task)
    reviews = rows["review"].to_list()
    cost: dict[str, Any] = {}
    with prediction.timed(cost, "load_seconds"):
        model, tokenizer = checkpoints.load_classifier(arguments.model, spread=arguments.gpus > 1)
    with prediction.timed(cost, "predict_seconds"):
        logp = prediction.log_probabilities(model, tokenizer, reviews)
    cost |= {
        "n_parameters": model.num_parameters(),
        "weights_bytes": sum(f.stat().st_size for f in checkpoints.weight_files(arguments.model)),
        # A merge's are its members', a blend's too: the leaderboard adds them up.
        "train_seconds": card["seconds"] if card.get("kind") == "fine_tuned" else 0.0,
        "device": prediction.device_name(),
        "reviews": rows.height,
        "reviews_per_second": round(rows.height / cost["predict_seconds"], 1),
        **prediction.peak_memory(),
    }
    flops, tokens = prediction.flops_per_review(model, tokenizer, reviews)
    cost |= {"flops_per_review": flops, "mean_tokens": round(tokens, 2)}
    tables.write_predictions(arguments.output, rows, logp)
    cli.write_json(arguments.cost, cost)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=1, help="GPUs over which the model's layers are spread")
    parser.add_argument("--output", type=Path, required=True, help="predictions to write (parquet)")
    parser.add_argument("--cost", type=Path, required=True, help="cost to write (JSON)")
    cli.run(main, parser.parse_args())
