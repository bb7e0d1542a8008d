"""Fit references that are a logistic regression: cross-validation on train chooses strength and class weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mllm.core.messages import log

WEIGHTS = (None, "balanced")  # class weights; a rival in macro averages needs balanced ones
FOLDS = 3
SCORING = "f1_macro"  # for every experiment: a change of its metric reruns no fit


@dataclass(frozen=True)
class Fitted:
    """A fitted pipeline, whose last step is a logistic regression, and all tried settings."""

    model: Any
    facts: dict[str, Any] | None
    """C, class_weight, scoring, scores; None if a class is too rare for the folds."""


def fit(model: Any, strengths: tuple[float, ...], features: Any, train: pl.DataFrame, seed: int) -> Fitted:
    """Fit a pipeline that ends in a logistic regression.

    All reviews of a text are in one fold; each fold refits the earlier steps. If a class is too rare to be in all
    folds, there is no cross-validation, and the model is fitted with its own settings.

    Args:
        model: an unfitted pipeline of scikit-learn.
        strengths: values of C to try.
        features: (reviews, …) or texts, in train's order.
        train: ``label`` and ``group`` of each review.
        seed: seed of the folds.
    """
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

    labels = train["label"].to_numpy()
    texts = train.group_by("label").agg(pl.col("group").n_unique())["group"].min() or 0
    if not isinstance(texts, int) or texts < FOLDS:
        return Fitted(model.fit(features, labels), None)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    tried = {"logisticregression__C": strengths, "logisticregression__class_weight": WEIGHTS}
    search = GridSearchCV(model, tried, scoring=SCORING, cv=folds)
    search.fit(features, labels, groups=train["group"].to_numpy())
    classifier = search.best_estimator_[-1]
    found = {
        f"C {point['logisticregression__C']:g}, classes {point['logisticregression__class_weight'] or 'as they are'}": round(float(score), 6)
        for point, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True)
    }  # fmt: skip
    log.info("C %g, class weights %s, by %s in %d-fold cross-validation on train: %s",
             classifier.C, classifier.class_weight, SCORING, FOLDS, found)  # fmt: skip
    facts = {"C": classifier.C, "class_weight": classifier.class_weight, "scoring": SCORING, "scores": found}
    return Fitted(search.best_estimator_, facts)


def log_probabilities(model: Any, features: Any, classes: int) -> np.ndarray[Any, Any]:
    """Predict log-probabilities, (reviews, classes), with -inf for classes that are missing in train."""
    fitted = model.predict_log_proba(features)
    logp = np.full((len(fitted), classes), -np.inf)
    logp[:, model.classes_] = fitted
    return logp
