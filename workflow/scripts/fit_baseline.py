"""Fit a reference that needs no language model, and predict with it: TF-IDF and logistic regression, or the majority."""

import argparse
from pathlib import Path
from typing import Any

from mllm.core import script, threads
from mllm.core.messages import log

STRENGTHS = (0.5, 4.0, 32.0)  # C of the logistic regression
WEIGHTS = (None, "balanced")  # of the classes; balanced is what a rival in macro averages needs
FOLDS = 3
SCORING = "f1_macro"  # whatever the experiment compares by: another metric there fits nothing again


SPACELESS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"


def units(texts: Any) -> dict[str, Any]:
    """What TF-IDF counts: words and pairs as in Graesser et al. 2018, less the triples, or characters.

    Runs of up to three characters where words have no spaces between them; runs within words where marks are parts of them
    (Hindi): scikit-learn's words end at each mark.
    """
    letters, spaceless, marks = (int(texts.str.count_matches(p).sum()) for p in (r"\pL", SPACELESS, r"[\p{Mc}\p{Mn}]"))
    if spaceless > 0.3 * letters:
        return {"analyzer": "char", "ngram_range": (1, 3)}
    if marks > 0.1 * letters:
        return {"analyzer": "char_wb", "ngram_range": (1, 5)}
    return {"ngram_range": (1, 2), "strip_accents": "unicode"}


def main(arguments: argparse.Namespace) -> None:
    threads.fix(1)
    import numpy as np
    import polars as pl
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline

    from mllm.core import timing
    from mllm.data import labelled
    from mllm.prediction import costs, prediction_tables

    classes = len(labelled.task_facts(arguments.data, arguments.task)["names"])
    train = labelled.labelled(arguments.data, ("train",), arguments.task)
    rows = labelled.labelled(arguments.data, ("valid", "test"), arguments.task)
    if arguments.kind == "tfidf":
        features = TfidfVectorizer(min_df=2, sublinear_tf=True, **units(train["review"]))
        classifier = LogisticRegression(max_iter=1000, random_state=arguments.seed)
        model = make_pipeline(features, classifier)
    else:
        model = classifier = DummyClassifier(strategy="prior")
    # On train alone, the reviews of a text in one fold; features are found anew in each. Rare classes cannot be in all folds.
    texts = train.group_by("label").agg(pl.col("group").n_unique())["group"].min() or 0
    search = None
    if arguments.kind == "tfidf" and isinstance(texts, int) and texts >= FOLDS:
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=arguments.seed)
        tried = {"logisticregression__C": STRENGTHS, "logisticregression__class_weight": WEIGHTS}
        search = GridSearchCV(model, tried, scoring=SCORING, cv=folds)
    cost: dict[str, Any] = {}
    with timing.timed(cost, "train_seconds"):
        reviews, labels = train["review"].to_list(), train["label"].to_numpy()
        if search:
            search.fit(reviews, labels, groups=train["group"].to_numpy())
            model = search.best_estimator_
            features, classifier = (step for _, step in model.steps)
            points = search.cv_results_["params"]
            found = {
                f"C {point['logisticregression__C']:g}, classes {point['logisticregression__class_weight'] or 'as they are'}": round(float(score), 6)
                for point, score in zip(points, search.cv_results_["mean_test_score"], strict=True)
            }  # fmt: skip
            cost["cross_validation"] = {
                "C": classifier.C, "class_weight": classifier.class_weight, "scoring": SCORING, "scores": found,
            }  # fmt: skip
            log.info("C %g, class weights %s, by %s in %d-fold cross-validation on train: %s",
                     classifier.C, classifier.class_weight, SCORING, FOLDS, found)  # fmt: skip
        else:
            model.fit(reviews, labels)
    with timing.timed(cost, "predict_seconds"):
        fitted = model.predict_log_proba(rows["review"].to_list())
    logp = np.full((rows.height, classes), -np.inf)
    logp[:, model.classes_] = fitted
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
    parser.add_argument("--kind", required=True, choices=["tfidf", "majority"])
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="predictions to write (parquet)")
    parser.add_argument("--cost", type=Path, required=True, help="cost to write (JSON)")
    script.run(main, parser.parse_args())
