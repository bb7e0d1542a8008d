"""Fit a reference that needs no language model, and predict with it: TF-IDF and logistic regression, or the majority."""

import argparse
from pathlib import Path
from typing import Any

from mllm import cli


def main(arguments: argparse.Namespace) -> None:
    cli.threads(1)
    import numpy as np
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from mllm import prediction, tables

    classes = len(tables.task_facts(arguments.data, arguments.task)["names"])
    train = tables.labelled(arguments.data, ("train",), arguments.task)
    rows = tables.labelled(arguments.data, ("valid", "test"), arguments.task)
    if arguments.kind == "tfidf":
        # C is scikit-learn's default, chosen by no data; words and pairs as in Graesser et al. 2018, less the triples.
        features = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, strip_accents="unicode")
        classifier = LogisticRegression(max_iter=1000, random_state=arguments.seed)
        model = make_pipeline(features, classifier)
    else:
        model = classifier = DummyClassifier(strategy="prior")
    cost: dict[str, Any] = {}
    with prediction.timed(cost, "train_seconds"):
        model.fit(train["review"].to_list(), train["label"].to_numpy())
    with prediction.timed(cost, "predict_seconds"):
        fitted = model.predict_log_proba(rows["review"].to_list())
    logp = np.full((rows.height, classes), -np.inf)
    logp[:, model.classes_] = fitted
    tables.write_predictions(arguments.output, rows, logp)
    words = features.transform(rows["review"].to_list()).nnz / rows.height if arguments.kind == "tfidf" else 0
    weights = sum(np.size(getattr(classifier, name, [])) for name in ("coef_", "intercept_", "class_prior_"))
    cost |= {
        "n_parameters": weights, "weights_bytes": weights * 8, "device": "cpu", "load_seconds": 0.0,
        "flops_per_review": round(2 * words * classes),
        "reviews": rows.height, "reviews_per_second": round(rows.height / cost["predict_seconds"], 1),
        **prediction.peak_memory(),
    }  # fmt: skip
    cli.write_json(arguments.cost, cost)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--kind", required=True, choices=["tfidf", "majority"])
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="predictions to write (parquet)")
    parser.add_argument("--cost", type=Path, required=True, help="cost to write (JSON)")
    cli.run(main, parser.parse_args())
