"""Fit a reference without a language model, and predict with it: TF-IDF with logistic regression, or the majority."""

import argparse
from pathlib import Path
from typing import Any

from mllm.core import script, threads

STRENGTHS = (0.5, 4.0, 32.0)  # C of the logistic regression

SPACELESS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"


def units(texts: Any) -> dict[str, Any]:
    """Choose what TF-IDF counts: words and pairs as in Graesser et al. 2018, without their triples, or characters.

    Without spaces between words, it counts runs of up to three characters. If marks are parts of words (Hindi), it
    counts runs within words: scikit-learn's words end at each mark.
    """
    letters, spaceless, marks = (int(texts.str.count_matches(p).sum()) for p in (r"\pL", SPACELESS, r"[\p{Mc}\p{Mn}]"))
    if spaceless > 0.3 * letters:
        return {"analyzer": "char", "ngram_range": (1, 3)}
    if marks > 0.1 * letters:
        return {"analyzer": "char_wb", "ngram_range": (1, 5)}
    return {"ngram_range": (1, 2), "strip_accents": "unicode"}


def main(arguments: argparse.Namespace) -> None:
    threads.fix_without_torch()
    import numpy as np
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from mllm.core import timing
    from mllm.data import labelled
    from mllm.prediction import costs, cross_validation, prediction_tables

    classes = len(labelled.task_facts(arguments.data, arguments.task)["names"])
    train = labelled.labelled(arguments.data, ("train",), arguments.task)
    rows = labelled.labelled(arguments.data, ("valid", "test"), arguments.task)
    if arguments.kind == "tfidf":
        features = TfidfVectorizer(min_df=2, sublinear_tf=True, **units(train["review"]))
        classifier = LogisticRegression(max_iter=1000, random_state=arguments.seed)
        model = make_pipeline(features, classifier)
    else:
        model = classifier = DummyClassifier(strategy="prior")
    cost: dict[str, Any] = {}
    reviews = train["review"].to_list()
    with timing.timed(cost, "train_seconds"):
        if arguments.kind == "tfidf":
            found = cross_validation.fit(model, STRENGTHS, reviews, train, arguments.seed)
            model, cost["cross_validation"] = found.model, found.facts
            features, classifier = (step for _, step in model.steps)
        else:
            model.fit(reviews, train["label"].to_numpy())
    with timing.timed(cost, "predict_seconds"):
        logp = cross_validation.log_probabilities(model, rows["review"].to_list(), classes)
    prediction_tables.write_predictions(arguments.output, rows, logp)
    words = features.transform(rows["review"].to_list()).nnz / rows.height if arguments.kind == "tfidf" else 0
    weights = sum(np.size(getattr(classifier, name, [])) for name in ("coef_", "intercept_", "class_prior_"))
    cost |= {
        "n_parameters": weights, "weights_bytes": weights * 8, "device": "cpu", "load_seconds": 0.0,
        "flops_per_review": round(2 * words * classes),
        "reviews": rows.height, "reviews_per_second": round(rows.height / cost["predict_seconds"], 1),
        **timing.peak_memory(),
    }  # fmt: skip
    costs.Cost(**cost).write(arguments.cost)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--kind", required=True, choices=["tfidf", "majority"], help="the reference to fit")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument("--seed", type=int, required=True, help="seed of the folds")
    parser.add_argument("--output", type=Path, required=True, help="predictions to write (parquet)")
    parser.add_argument("--cost", type=Path, required=True, help="cost to write (JSON)")
    script.run(main, parser.parse_args())
