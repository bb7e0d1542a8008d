"""Blend several members' predictions into one, without their weights.

Three votes need no fit; three methods are fitted on the validation reviews, to their weighted log-likelihood. No method
sees a label of a test review. A fitted blend predicts validation reviews out of fold (by text), so that its validation
scores are unbiased like a vote's. For all other reviews it is fitted on the full validation split.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mllm.core.arrays import Array, text_weights
from mllm.core.errors import Failure

METHODS = ("soft_vote", "log_vote", "majority_vote", "weighted_vote", "stacking", "greedy")
LEAST = 1e-12  # the smallest probability: no single member can rule out a class, and all logarithms are finite
FOLDS = 5
ALL = -1  # in place of a fold's number: no fold is held out
GAP = 1e-6  # weighted_vote: distance from the best mean log-likelihood at which to stop, in nats per text
CYCLES = 5000  # weighted_vote: stop here where the optimum is too flat to reach GAP
STRENGTHS = (0.01, 0.03, 0.1, 0.3)  # stacking: values of C, inverse to the L2 penalty, from strong to weak
ADDITIONS = 25  # greedy: members added, one by one; also the most members to begin with


@dataclass(frozen=True)
class Blend:
    """``logp``: (reviews, classes) finite natural log-probabilities; ``facts``: fitted values, ready for JSON."""

    logp: Array
    facts: dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """The labelled validation reviews: their indices among all, class indices, weights, folds; each (reviews,)."""

    rows: Array
    truth: Array
    weight: Array
    fold: Array


# (the fold to hold out, or ALL; indices of rows) -> these rows' log-probabilities, (rows, classes), and the fit's facts
Fit = Callable[[int, Array], tuple[Array, dict[str, Any]]]


def blend(method: str, members: list[str], logp: Array, truth: Array, groups: Array, valid: Array, seed: int) -> Blend:
    """Combine members' predictions by one of METHODS.

    Args:
        members: names, (members,). Their order has no influence: they are sorted first.
        logp: (members, reviews, classes) natural log-probabilities; -inf is allowed. For all methods, probabilities
            are raised to at least LEAST, and each row is normalised to sum to 1.
        truth: (reviews,) class indices; read only where ``valid``.
        groups: (reviews,) ids of texts. Reviews of one text share a fold, and the weight of one review.
        valid: (reviews,) booleans, the reviews to fit on.
        seed: of the division into folds. Nothing else is random.

    Raises:
        Failure: a member's rows are no distributions, or validation has too few texts for the folds.
        ValueError: the method is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"unknown blend {method!r}, expected one of {', '.join(METHODS)}")
    rows, others = np.flatnonzero(valid), np.flatnonzero(~valid)
    labels, texts = truth[rows], groups[rows]
    del truth  # the code below cannot see a test label
    members, logp = _sorted(members, logp)
    votes = {"soft_vote": soft_vote, "log_vote": log_vote, "majority_vote": majority_vote}
    if method in votes:
        return Blend(votes[method](logp), {})
    if (count := len(np.unique(texts))) < FOLDS:
        raise Failure(
            f"{method}: too few texts in validation for {FOLDS} folds (found {count}, expected at least {FOLDS}). "
            "Fix: enlarge the validation split, or use soft_vote, which needs no fit"
        )
    sample = Sample(rows, labels, text_weights(texts), folds(texts, seed))
    weigh = mixture_weights if method == "weighted_vote" else greedy_weights
    result = np.empty(logp.shape[1:])
    with threadpool_limits(1):  # the products are too small for more threads, whose number would change their last bits
        fit = _stacking(logp, sample) if method == "stacking" else _weighting(weigh, members, logp, sample)
        for fold in range(FOLDS):
            held = rows[sample.fold == fold]
            result[held] = fit(fold, held)[0]
        result[others], facts = fit(ALL, others)
    return Blend(result, facts | {"valid_texts": count, "valid_reviews": len(rows), "folds": FOLDS})


def folds(groups: Array, seed: int) -> Array:
    """Return each review's fold, (reviews,), 0 to FOLDS - 1. A text is in one fold; sizes differ by at most one."""
    texts, text = np.unique(groups, return_inverse=True)
    return np.random.default_rng(seed).permutation(np.arange(len(texts)) % FOLDS)[text]


def soft_vote(logp: Array) -> Array:
    """Average the members' probabilities."""
    return mixture(logp, np.full(len(logp), 1 / len(logp)))


def log_vote(logp: Array) -> Array:
    """Return the normalised geometric mean of the members' probabilities (logarithmic opinion pool)."""
    return _normalised(logp.mean(0))


def majority_vote(logp: Array) -> Array:
    """Count the members that find each class most probable, and add one vote split as in the soft vote.

    The added vote keeps all probabilities above 0 and breaks ties by the mean probability. It changes nothing else,
    since each class gets less than 1 of it.
    """
    votes = np.exp(soft_vote(logp))
    for member in logp:
        votes[np.arange(len(votes)), member.argmax(1)] += 1
    return np.log(votes / (len(logp) + 1))


def mixture(logp: Array, weights: Array, rows: Array | slice = slice(None)) -> Array:
    """Return the log of the weighted mean of the members' probabilities, (rows, classes). ``weights``: (members,)."""
    total = sum(weight * np.exp(member[rows]) for weight, member in zip(weights, logp, strict=True) if weight > 0)
    return _normalised(np.log(total))


def mixture_weights(likelihood: Array, weight: Array) -> Array:
    """Find the weights, (members,), of the mixture with the highest mean log-likelihood, a convex problem.

    EM for the proportions of known components (Dempster, Laird & Rubin 1977) climbs in every step. Squared
    extrapolation (Varadhan & Roland 2008, SQUAREM S3) accelerates it, wherever that climbs higher. Let g be the mean
    ratio of a member's likelihood to the mixture's. Then max(g) - 1 bounds the gain of any other weights (Lindsay 1983,
    "The geometry of mixture likelihoods"). It is the stopping rule, and proves the optimum.
    ``likelihood``: (members, reviews) probabilities of the true class, above 0; ``weight``: (reviews,).
    """
    weight = weight / weight.sum()
    now = np.full(len(likelihood), 1 / len(likelihood))
    for _ in range(CYCLES):
        gain = likelihood @ (weight / (now @ likelihood))
        if gain.max() - 1 <= GAP:
            break
        once = now * gain
        twice = once * (likelihood @ (weight / (once @ likelihood)))
        step, bend = once - now, twice - 2 * once + now
        length = np.sqrt(step @ step / max(bend @ bend, 1e-300))
        far = np.maximum(now + 2 * length * step + length**2 * bend, twice / 100)
        far /= far.sum()
        now = far if weight @ np.log(far @ likelihood) > weight @ np.log(twice @ likelihood) else twice
    return now / now.sum()


def greedy_weights(likelihood: Array, weight: Array) -> Array:
    """Find weights, (members,), by ensemble selection: shares in a bag to which each step adds the best member.

    The method is from Caruana et al. 2004, "Ensemble selection from libraries of models". It begins with the N best
    members, for the best N, and returns the best bag of all steps. Arguments are as in :func:`mixture_weights`.
    """
    weight = weight / weight.sum()
    ranks = np.argsort(-(np.log(likelihood) @ weight), kind="stable")[:ADDITIONS]
    starts = np.log(np.cumsum(likelihood[ranks], axis=0) / np.arange(1, len(ranks) + 1)[:, None]) @ weight
    counts = np.isin(np.arange(len(likelihood)), ranks[: starts.argmax() + 1]).astype(float)
    best, result = starts.max(), counts / counts.sum()
    for _ in range(ADDITIONS):
        scores = np.log((counts @ likelihood + likelihood) / (counts.sum() + 1)) @ weight
        counts[scores.argmax()] += 1
        if scores.max() > best:
            best, result = scores.max(), counts / counts.sum()
    return result


def stack(
    features: Array, truth: Array, weight: Array, new: Array, classes: int, strengths: Sequence[float], tol: float
) -> Array:
    """Predict log-probabilities, (strengths, new reviews, classes), by multinomial logistic regressions with these C.

    Their loss is a proper score, which corrects members' over- and underconfidence. The intercepts are not penalised:
    on the fitted reviews, the weighted mean probability of a class is its share. Features, (reviews, features), are
    standardised, since the penalty and the solver's speed depend on their scale. Classes that do not occur get LEAST.
    """
    from sklearn.linear_model import LogisticRegression

    found = np.full((len(strengths), len(new), classes), LEAST)
    if (truth == truth[0]).all():  # scikit-learn refuses a single class
        found[:, :, truth[0]] = 1
    elif len(new):
        centre = np.average(features, 0, weight)
        spread = np.sqrt(np.average((features - centre) ** 2, 0, weight))
        features, new = ((x - centre) / np.where(spread > 1e-9, spread, 1) for x in (features, new))
        model = LogisticRegression(tol=tol, max_iter=1000, warm_start=True)
        for probabilities, strength in zip(found, strengths, strict=True):
            model.set_params(C=strength).fit(features, truth, sample_weight=weight)
            probabilities[:, model.classes_] = np.maximum(model.predict_proba(new), LEAST)
    return _normalised(np.log(found))


def _weighting(weigh: Callable[[Array, Array], Array], members: list[str], logp: Array, sample: Sample) -> Fit:
    likelihood = np.exp(logp[:, sample.rows, sample.truth])

    def fit(fold: int, rows: Array) -> tuple[Array, dict[str, Any]]:
        seen = sample.fold != fold
        weights = weigh(likelihood[:, seen], sample.weight[seen])
        return mixture(logp, weights, rows), {"weights": dict(zip(members, weights.tolist(), strict=True))}

    return fit


def _stacking(logp: Array, sample: Sample) -> Fit:
    """Stack the members' centred logits; each fit chooses its own C, by folds of the reviews that it may see."""

    def features(rows: Array) -> Array:
        logits = logp[:, rows] - logp[:, rows].mean(2, keepdims=True)
        return logits.transpose(1, 0, 2).reshape(len(rows), len(logp) * logp.shape[2])

    def fitted(seen: Array, new: Array, strengths: Sequence[float], tol: float) -> Array:
        return stack(known[seen], sample.truth[seen], sample.weight[seen], new, logp.shape[2], strengths, tol)

    known = features(sample.rows)
    # losses[k, j]: on fold j, by models that saw neither fold j nor fold k; one for each strength. The fit without fold
    # k chooses by row k, the fit on all folds by the diagonal.
    losses = np.zeros((FOLDS, FOLDS, len(STRENGTHS)))
    for j, k in itertools.combinations_with_replacement(range(FOLDS), 2):
        away = (sample.fold == j) | (sample.fold == k)
        found = fitted(~away, known[away], STRENGTHS, 1e-3)  # choosing a strength needs no higher precision
        loss = -sample.weight[away] * found[:, np.arange(away.sum()), sample.truth[away]]
        losses[k, j], losses[j, k] = (loss[:, sample.fold[away] == fold].sum(1) for fold in (j, k))

    def fit(fold: int, rows: Array) -> tuple[Array, dict[str, Any]]:
        mine = losses[range(FOLDS), range(FOLDS)] if fold == ALL else np.delete(losses[fold], fold, axis=0)
        strength = STRENGTHS[int(mine.sum(0).argmin())]
        return fitted(sample.fold != fold, features(rows), [strength], 1e-4)[0], {"C": strength}

    return fit


def _normalised(logp: Array) -> Array:
    return np.asarray(logp - np.logaddexp.reduce(logp, axis=-1, keepdims=True))


def _sorted(members: list[str], logp: Array) -> tuple[list[str], Array]:
    """Sort the members by name; check their log-probabilities, and make them finite and normalised."""
    order = sorted(range(len(members)), key=members.__getitem__)
    result = np.empty(logp.shape)
    for into, i in enumerate(order):
        total = np.exp(logp[i].astype(float)).sum(1)
        off = np.flatnonzero(~(np.abs(total - 1) < 1e-3))
        if len(off):
            raise Failure(f"{members[i]}: the probabilities of row {off[0]} sum to {total[off[0]]:.6g}, expected 1")
        result[into] = _normalised(np.maximum(logp[i], np.log(LEAST)))
    return [members[i] for i in order], result
