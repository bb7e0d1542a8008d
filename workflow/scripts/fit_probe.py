"""Fit a linear probe, a reference: logistic regression on the base's frozen features, without fine-tuning."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllm.core import compute, script, threads

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # C of the logistic regression, on standardised features


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    threads.fix_without_torch()  # scikit-learn's threads: threads of two libraries would wait for each other
    threads.fix(arguments.threads)
    compute.keep_freed_memory()
    script.usable_gpu()
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from mllm.core import timing
    from mllm.data import labelled
    from mllm.models import cards, checkpoint_files, loading, tokens
    from mllm.prediction import asking, costs, cross_validation, features, prediction_tables, speed

    names = labelled.task_facts(arguments.data, arguments.task)["names"]
    card = replace(cards.read(arguments.model), task=arguments.task)
    cost: dict[str, Any] = {}
    with timing.timed(cost, "load_seconds"):
        model, tokenizer = loading.load_model(arguments.model, card.family)
    scorer, _ = asking.scorer_of(card.asked(), model, tokenizer, names, arguments.data, arguments.seed)
    parts = [
        labelled.labelled(arguments.data, ("train",), arguments.task),
        labelled.labelled(arguments.data, ("valid", "test"), arguments.task),
    ]
    train, rows = parts
    read = [tokens.encode(scorer, part["review"].to_list()) for part in parts]
    regression = LogisticRegression(max_iter=2000, random_state=arguments.seed)
    with timing.timed(cost, "train_seconds"):
        known = features.of_texts(model, read[0])
        found = cross_validation.fit(
            make_pipeline(StandardScaler(), regression), STRENGTHS, known, train, arguments.seed
        )
    with timing.timed(cost, "predict_seconds"):
        fitted = cross_validation.log_probabilities(found.model, features.of_texts(model, read[1]), len(names))
    prediction_tables.write_predictions(arguments.output, rows, fitted)
    cost |= {
        "cross_validation": found.facts, "n_parameters": model.num_parameters(), "device": timing.device_name(),
        "weights_bytes": sum(f.stat().st_size for f in checkpoint_files.weight_files(arguments.model)),
        "flops_per_review": speed.counted_flops(scorer, read[1]), "reviews": rows.height, "cut_reviews": read[1].cut,
        "reviews_per_second": round(rows.height / cost["predict_seconds"], 1), **timing.peak_memory(),
    }  # fmt: skip
    costs.Cost(**cost).write(arguments.cost)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="prepared model folder, a sequence classifier")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument("--seed", type=int, required=True, help="seed of the folds")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--output", type=Path, required=True, help="predictions to write (parquet)")
    parser.add_argument("--cost", type=Path, required=True, help="cost to write (JSON)")
    script.run(main, parser.parse_args())
