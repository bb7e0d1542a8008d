"""Calibrate probabilities on validation: one temperature, and one bias per class.

"Bias-corrected temperature scaling" (Alexandari et al. 2020, arXiv 1901.06852) adds a bias per class to temperature scaling (Guo
et al. 2017, arXiv 1706.04599). Merging easily shifts how frequent a model takes each class to be, and the biases repair that.
Calibration shows how much of a difference between candidates these few numbers explain.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from mllm.core.arrays import Array, text_weights

FOLDS = 5
FLOOR = float(np.log(1e-12))  # replaces -inf: the constant answer gives all other classes a probability of 0
INVERSE, BIAS = (0.0, 1e3), (-50.0, 50.0)  # bounds that prevent overflow, far from fitted values


@dataclass(frozen=True)
class Calibration:
    """Map raw to calibrated log-probabilities."""

    temperature: float
    """Above 1 where the raw probabilities are too extreme; infinite where they say nothing about the class."""
    bias: Array
    """(classes,) added to the logits; they sum to 0."""

    def apply(self, logp: Array) -> Array:
        """Return calibrated log-probabilities, normalised, in double precision.

        Args:
            logp: (reviews, classes) natural logarithms of the probabilities; 0 counts as 1e-12.
        """
        logits = _logits(logp) / self.temperature + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def _logits(logp: Array) -> Array:
    """Return (reviews, classes) finite logits, the largest of each row 0.

    Only -inf is raised, and no higher than the row's other classes. A floor under all probabilities would erase much of what
    overconfident candidates know.
    """
    logits = logp.astype(float)
    impossible = np.isneginf(logits)
    if impossible.any():
        least = np.where(impossible, FLOOR, logits).min(axis=1, keepdims=True)
        logits = np.where(impossible, np.minimum(least, FLOOR), logits)
    return np.asarray(logits - logits.max(axis=1, keepdims=True))


def fit(logp: Array, truth: Array, weights: Array) -> Calibration:
    """Fit the calibration to the labels by maximum likelihood with weak priors.

    Inverse temperature and biases have normal priors of variance 1 around the values that change nothing; a few texts outweigh
    them. Without priors the bias of a class that does not occur would diverge, and so would the temperature of a candidate
    without errors.

    Args:
        logp: (reviews, classes) natural logarithms of the probabilities; 0 counts as 1e-12.
        truth: (reviews,) class indices.
        weights: (reviews,) their sum is the number of texts.

    Returns:
        The calibration; one that changes nothing where fewer than two classes occur.
    """
    classes = logp.shape[1]
    if len(np.unique(truth)) < 2:
        return Calibration(1.0, np.zeros(classes))
    found = minimize(
        loss(logp, truth, weights), np.append(1.0, np.zeros(classes)), jac=True, method="L-BFGS-B",
        bounds=[INVERSE, *[BIAS] * classes], options={"ftol": 1e-10, "gtol": 1e-6, "maxiter": 200},
    )  # fmt: skip
    inverse, bias = float(found.x[0]), found.x[1:]
    return Calibration(1 / inverse if inverse > 0 else np.inf, bias - bias.mean())


def loss(logp: Array, truth: Array, weights: Array) -> Callable[[Array], tuple[float, Array]]:
    """Return the function that :func:`fit` minimises: (1 + classes,) inverse temperature and biases -> value, gradient.

    The value is the weighted mean of the negative log-likelihood, plus that of the priors divided by the sum of weights.
    """
    logits = np.ascontiguousarray(_logits(logp).T)  # one row per class is quicker to sum
    unchanged = np.append(1.0, np.zeros(len(logits)))
    share, prior = weights / weights.sum(), 1 / weights.sum()
    true = np.append(share @ logits[truth, np.arange(len(truth))], np.bincount(truth, share, len(logits)))

    def value_and_gradient(parameters: Array) -> tuple[float, Array]:
        p = logits * parameters[0]
        p += parameters[1:, None]
        np.exp(p, out=p)
        total = p.sum(axis=0)
        p *= share / total
        off = parameters - unchanged
        value = share @ np.log(total) - parameters @ true + prior * (off @ off) / 2
        return float(value), np.append(np.vdot(logits, p), p.sum(axis=1)) - true + prior * off

    return value_and_gradient


def calibrate(logp: Array, truth: Array, groups: Array, valid: Array, seed: int) -> Array:
    """Calibrate log-probabilities on validation: out of fold for validation itself, by all of validation for other reviews.

    Args:
        logp: (reviews, classes) natural logarithms of the probabilities; 0 counts as 1e-12.
        truth: (reviews,) class indices; only those of validation are used.
        groups: (reviews,) ids. Reviews of one text share one id and one fold, and together weigh as much as one review.
        valid: (reviews,) which are validation.
        seed: of the folds; they do not depend on the candidate.

    Returns:
        (reviews, classes) normalised; unchanged where the reviews to learn from have fewer than two classes.
    """
    logp_valid, truth, groups = logp[valid], truth[valid], groups[valid]
    weights, fold = text_weights(groups), folds(groups, seed)
    out_of_fold = np.empty(logp_valid.shape)
    for k in np.unique(fold):
        own, others = fold == k, fold != k
        out_of_fold[own] = fit(logp_valid[others], truth[others], weights[others]).apply(logp_valid[own])
    result = np.empty(logp.shape)
    result[~valid] = fit(logp_valid, truth, weights).apply(logp[~valid])
    result[valid] = out_of_fold
    return result


def folds(groups: Array, seed: int) -> Array:
    """Return (reviews,) each review's fold of FOLDS; reviews of one text share a fold."""
    texts, text = np.unique(groups, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(len(texts))[text] % FOLDS)
