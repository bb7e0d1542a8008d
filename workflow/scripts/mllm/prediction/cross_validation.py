"""References that are fitted in one go: strength and class weights by cross-validation on train alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mllm.core.messages import log

WEIGHTS = (None, "balanced")  # of the classes; balanced is what a rival in macro averages needs
FOLDS = 3
SCORING = "f1_macro"  # whatever the experiment compares by: another metric there fits nothing again


@dataclass(frozen=True)
class Fitted:
    """A fitted pipeline, whose last step is a logistic regression, and what was tried."""

    model: Any
    facts: dict[str, Any] | None
    """C, class_weight, scoring, scores; none where rare classes left no folds."""


def fit(model: Any, strengths: tuple[float, ...], features: Any, train: pl.DataFrame, seed: int) -> Fitted:
    """Fit a pipeline that ends in a logistic regression.

    The reviews of a text are in one fold; earlier steps are fitted anew in each. Rare classes cannot be in all folds.

    Args:
        model: of scikit-learn, unfitted.
        strengths: values of C.
        features: (reviews, …) or texts, in train's order.
        train: ``label`` and ``group`` of each review.
        seed: of the folds.
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
    """(reviews, classes); -inf for classes that train lacks."""
    fitted = model.predict_log_proba(features)
    logp = np.full((len(fitted), classes), -np.inf)
    logp[:, model.classes_] = fitted
    return logp
