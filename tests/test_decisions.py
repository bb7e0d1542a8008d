"""Test decisions tuned on validation for a metric: their scores, the data they must not see, differences without resamples."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score, matthews_corrcoef

from mllm.core.arrays import text_weights
from mllm.evaluation import calibration, decisions, delta, metrics, paired

REFERENCE = {
    "accuracy": lambda t, y: (t == y).mean(),
    "balanced_accuracy": balanced_accuracy_score,
    "macro_f1": lambda t, y: f1_score(t, y, average="macro"),
    "mcc": matthews_corrcoef,
    "kappa": cohen_kappa_score,
}
SHARES = np.array([0.7, 0.25, 0.05])


def sample(n, seed, noise=1.0):
    """Draw truth, and its posterior from a noisy observation."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n, p=SHARES)
    seen = np.eye(3)[truth] + noise * rng.normal(size=(n, 3))
    logits = np.log(SHARES) + seen / noise**2
    return truth, logits - np.logaddexp.reduce(logits, axis=1)[:, None]


def tuned(valid, test, truth, seed=0):
    """Make them from raw log-probabilities as ``score`` does; each review is a separate text."""
    groups, n = np.arange(len(truth)), len(truth)
    whole = np.concatenate([truth, np.zeros(len(test), dtype=int)])
    done = calibration.calibrate(
        np.concatenate([valid, test]), whole, np.arange(len(whole)), np.arange(len(whole)) < n, seed
    )
    fold = calibration.folds(groups, seed)
    return decisions.tune(done[:n], done[n:], truth, np.ones(n), fold, list(REFERENCE))


def test_strengths_are_the_best_on_validation_by_scikit_learn():
    truth, logp = sample(800, 1)
    fold = np.arange(800) % decisions.FOLDS
    found = decisions.tune(logp, logp, truth, np.ones(800), fold, list(REFERENCE))
    prior = np.log((np.bincount(truth) + 1 / 3) / 801)
    for name, score in REFERENCE.items():
        values = [score(truth, (logp - s * prior).argmax(1)) for s in decisions.STRENGTHS]
        mine = score(truth, found.test[name])
        assert mine == pytest.approx(max(values)) and mine >= score(truth, logp.argmax(1))
    # For the true posterior, accuracy needs its own offsets, balanced accuracy those of equal classes.
    large, posterior = sample(100_000, 2)
    fold = np.arange(len(large)) % decisions.FOLDS
    found = decisions.tune(posterior, posterior, large, np.ones(len(large)), fold, ["accuracy", "balanced_accuracy"])
    assert found.strength["accuracy"] == pytest.approx(0, abs=0.11)
    assert found.strength["balanced_accuracy"] == pytest.approx(1, abs=0.21)


def test_no_fold_sees_its_own_labels():
    truth, logp = sample(500, 3)
    fold, names = np.arange(500) % decisions.FOLDS, list(REFERENCE)
    before = decisions.tune(logp, logp, truth, np.ones(500), fold, names)
    own = fold == 2
    changed = truth.copy()
    changed[own] = np.random.default_rng(0).permutation(truth[own])  # the classes' shares stay
    after = decisions.tune(logp, logp, changed, np.ones(500), fold, names)
    for name in names:
        assert np.array_equal(before.valid[name][own], after.valid[name][own])
        assert len(before.valid[name]) == 500


def test_sharpening_and_shifted_priors_gain_nothing():
    """The knowledge is the same, temperature and offsets are not: raw macro-F1 differs, tuned macro-F1 does not."""
    truth, valid = sample(3000, 4)
    answers, test = sample(20_000, 5)
    shifted = [1.7 * logp + np.array([0.0, 0.8, 1.9]) for logp in (valid, test)]
    of = [tuned(valid, test, truth).test["macro_f1"], tuned(*shifted, truth).test["macro_f1"]]
    raw = [f1_score(answers, logp.argmax(1), average="macro") for logp in (test, shifted[1])]
    repaired = [f1_score(answers, label, average="macro") for label in of]
    assert abs(raw[0] - raw[1]) > 0.03 and abs(repaired[0] - repaired[1]) < 0.005
    assert min(repaired) > max(raw) - 0.01


def test_two_fits_are_the_same_and_one_class_changes_nothing():
    truth, logp = sample(300, 6)
    first, second = tuned(logp, logp, truth), tuned(logp, logp, truth)
    assert first.strength == second.strength
    assert all(np.array_equal(first.test[n], second.test[n]) for n in REFERENCE)
    alone = decisions.tune(logp, logp, np.zeros(300, dtype=int), np.ones(300), np.arange(300) % 5, ["macro_f1"])
    assert f1_score(np.zeros(300), alone.test["macro_f1"], average="macro") >= f1_score(
        np.zeros(300), logp.argmax(1), average="macro"
    )


@pytest.mark.parametrize("name", ["macro_f1", "balanced_accuracy", "mcc", "kappa", "kappa_quadratic", "mae"])
def test_differences_without_resamples_are_those_of_resamples(name):
    """Compare with 20,000 resamples of texts, some of which have several reviews."""
    rng = np.random.default_rng(7)
    texts = np.unique(rng.integers(0, 900, 1500), return_inverse=True)[1]
    truth, logp = sample(1500, 8)
    _, noise = sample(1500, 9, noise=3)
    a, b = logp.argmax(1), (logp + 0.6 * noise).argmax(1)
    function, weights = metrics.OF_CONFUSION[name], text_weights(texts)
    of = [delta.of_decisions(function, truth, label, weights, 3) for label in (a, b)]
    value, low, high = paired.of_decisions(function, *of, texts)
    sums, count = paired.kinds(truth, a, b, texts, 3)
    draws = paired.draw(function, sums, count, 3, 20_000, 0)
    error = delta.standard_error(of[0].influence - of[1].influence, texts)
    assert error == pytest.approx(draws.std(), rel=0.05)
    assert low < value < high and value == pytest.approx(draws.mean(), abs=0.2 * draws.std())
    assert of[0].influence.sum() == pytest.approx(0, abs=1e-3 * np.abs(of[0].influence).sum())
