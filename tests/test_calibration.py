"""Calibration undoes a known distortion from validation only, and does not look better there than it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from scipy.special import log_softmax, softmax

from mllm.evaluation import calibration
from mllm.evaluation.calibration import FLOOR, Calibration, calibrate, fit


def problem(n, classes, seed=0, temperature=1.0, bias=0.0, skill=2.0):
    """Draw truth, and calibrated log-probabilities that a bias and a temperature then distort."""
    rng = np.random.default_rng(seed)
    logits = skill * rng.normal(size=(n, classes)) + rng.normal(scale=0.5, size=classes)
    truth = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=classes - 1)
    return truth, log_softmax((logits - bias) * temperature, axis=1)


def nll(logp, truth, weights=None):
    return -np.average(logp[np.arange(len(truth)), truth], weights=weights)


# ── One fit ──


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("bias", [(0.0, 0.0, 0.0, 0.0), (1.0, -0.5, 0.3, -0.8)])
def test_temperature_and_bias_are_recovered(temperature, bias):
    truth, logp = problem(40_000, 4, seed=1, temperature=temperature, bias=np.array(bias))
    found = fit(logp, truth, np.ones(len(truth)))
    assert found.temperature == pytest.approx(temperature, rel=0.03)
    assert found.bias == pytest.approx(bias, abs=0.06)
    assert found.bias.sum() == pytest.approx(0, abs=1e-12)
    before = softmax(logp / temperature + np.array(bias), axis=1)
    assert np.abs(np.exp(found.apply(logp)) - before).max() < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_by_other_means(seed):
    rng = np.random.default_rng(seed)
    truth, logp = problem(60, 5, seed)
    logp[::7, 2] = -np.inf
    weights, parameters = rng.random(60) + 0.1, np.append(rng.uniform(0.2, 3), rng.normal(size=5))
    loss = calibration.loss(logp, truth, weights)
    value, gradient = loss(parameters)
    raw = log_softmax(np.where(np.isneginf(logp), FLOOR, logp) * parameters[0] + parameters[1:], axis=1)
    prior = ((parameters[0] - 1) ** 2 + (parameters[1:] ** 2).sum()) / 2
    expected = -(weights * raw[np.arange(60), truth]).sum() + prior
    assert value == pytest.approx(expected / weights.sum(), abs=1e-12)
    assert gradient == pytest.approx(approx_fprime(parameters, lambda p: loss(p)[0], 1e-7), abs=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 200), st.integers(2, 6), st.integers(0, 10**6), st.floats(0.1, 10), st.floats(0, 3))
def test_the_fit_is_a_minimum_and_never_worse_on_what_it_saw(n, classes, seed, temperature, spread):
    rng = np.random.default_rng(seed)
    truth, logp = problem(n, classes, seed, temperature, rng.normal(scale=spread, size=classes))
    weights = rng.choice([1, 1 / 2, 1 / 3], n)
    found = fit(logp, truth, weights)
    assert nll(found.apply(logp), truth, weights) <= nll(logp, truth, weights) + 1e-12
    assert np.abs(found.bias).max() < calibration.BIAS[1] / 2
    if len(set(truth)) > 1 and np.isfinite(found.temperature):
        _, gradient = calibration.loss(logp, truth, weights)(np.append(1 / found.temperature, found.bias))
        assert np.abs(gradient).max() < 1e-3


def test_worse_than_nothing_is_calibrated_to_nothing():
    """A candidate denies the truth: calibration keeps no share of its probabilities, only the frequencies of classes."""
    truth, logp = problem(3000, 3, seed=2)
    denied = log_softmax(-logp, axis=1)
    found = fit(denied, truth, np.ones(3000))
    assert found.temperature == np.inf
    calibrated = np.exp(found.apply(denied))
    assert calibrated == pytest.approx(np.tile(np.bincount(truth) / 3000, (3000, 1)), abs=1e-3)


@pytest.mark.parametrize("temperature", [6.0, 30.0])
def test_no_overconfidence_is_too_much(temperature):
    """Many of these probabilities are below 1e-12, and still distinguish classes: all of it can be undone."""
    truth, logp = problem(10_000, 5, seed=8, temperature=temperature)
    assert (logp < FLOOR).mean() > 0.1
    found = fit(logp, truth, np.ones(10_000))
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert nll(found.apply(logp), truth) == pytest.approx(nll(log_softmax(logp / temperature, axis=1), truth), abs=1e-3)


def test_the_impossible_is_never_likelier_than_the_possible():
    logp = np.array([[0.0, -40.0, -np.inf], [-np.inf, -1.0, np.log(1 - np.exp(-1))], [0.0, -np.inf, -np.inf]])
    found = Calibration(1.0, np.zeros(3)).apply(logp)
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx([0, -40, -40])
    assert found[1] == pytest.approx([FLOOR, *logp[1, 1:]])
    assert found[2] == pytest.approx([0, FLOOR, FLOOR], abs=1e-10)


@pytest.mark.parametrize("temperature", [0.1, 3.0, 1e4])
def test_a_temperature_moves_no_label(temperature):
    _, logp = problem(500, 5, seed=3)
    calibrated = Calibration(temperature, np.zeros(5)).apply(logp)
    assert np.array_equal(calibrated.argmax(axis=1), logp.argmax(axis=1))
    assert np.exp(calibrated).sum(axis=1) == pytest.approx(1)


def test_a_class_that_does_not_occur_is_rare_but_not_impossible():
    truth, logp = problem(2000, 4, seed=4)
    kept = truth != 3
    found = fit(logp[kept], truth[kept], np.ones(kept.sum()))
    p = np.exp(found.apply(logp[kept]))
    assert np.isfinite(found.bias).all()
    assert 1e-5 < p[:, 3].mean() < 0.01
    assert nll(found.apply(logp[kept]), truth[kept]) < nll(logp[kept], truth[kept])


def test_the_majority_class_becomes_the_frequencies():
    """It gives the others probability 0, of which the logarithm is -inf."""
    truth = np.repeat([0, 1, 2], [500, 300, 200])
    with np.errstate(divide="ignore"):
        logp = np.log(np.tile([1.0, 0.0, 0.0], (1000, 1)))
    found = fit(logp, truth, np.ones(1000)).apply(logp)
    assert np.exp(found[0]) == pytest.approx([0.5, 0.3, 0.2], abs=0.005)
    everything = calibrate(logp, truth, np.arange(1000), np.arange(1000) % 2 == 0, 1)
    assert np.isfinite(everything).all()


def test_few_right_answers_do_not_make_certain():
    """Without a prior the temperature would go to 0, and the first error would cost infinitely much."""
    truth = np.arange(60) % 3
    logp = np.log(np.full((60, 3), 0.1) + 0.7 * np.eye(3)[truth])
    found = fit(logp, truth, np.ones(60))
    assert 0.1 < found.temperature < 1
    assert found.apply(logp).min() > -20


# ── Validation and the others ──


def halves(n=600, classes=4, seed=0, texts=None, **more):
    truth, logp = problem(n, classes, seed, **more)
    groups = np.random.default_rng(seed).integers(0, texts, n) if texts else np.arange(n)
    return logp, truth, groups, groups % 2 == 0


def test_others_get_the_fit_on_all_of_validation():
    logp, truth, groups, valid = halves(temperature=3.0, texts=300)
    found = calibrate(logp, truth, groups, valid, 7)
    sizes = np.bincount(groups)[groups]
    expected = fit(logp[valid], truth[valid], 1 / sizes[valid]).apply(logp[~valid])
    assert np.array_equal(found[~valid], expected)
    assert np.exp(found).sum(axis=1) == pytest.approx(1)
    assert found[valid] == pytest.approx(fit(logp[valid], truth[valid], 1 / sizes[valid]).apply(logp[valid]), abs=1)


@pytest.mark.parametrize("poison", [0, -1, 10**6])
def test_nothing_of_the_others_is_looked_at(poison):
    logp, truth, groups, valid = halves()
    before = calibrate(logp, truth, groups, valid, 1)
    assert calibrate(logp, np.where(valid, truth, poison), groups, valid, 1).tobytes() == before.tobytes()
    # Neither do their probabilities, except for each one's own.
    changed = np.where(valid[:, None], logp, np.log(0.25))
    assert calibrate(changed, truth, groups, valid, 1)[valid].tobytes() == before[valid].tobytes()


def test_a_text_in_validation_does_not_see_its_own_labels():
    """Neither do those of any of its reviews; all folds except its own see them."""
    logp, truth, groups, valid = halves(texts=150)
    before = calibrate(logp, truth, groups, valid, 1)
    for text in np.unique(groups[valid])[:6]:
        mine = groups == text
        changed = np.where(mine, (truth + 1) % 4, truth)
        after = calibrate(logp, changed, groups, valid, 1)
        same = (after == before).all(axis=1)
        assert same[mine].all()
        assert 1 / 5 - 0.1 < same[valid].mean() < 1 / 5 + 0.1
        assert not same[~valid].any()


def test_out_of_fold_nobody_is_flattered():
    """Candidates are perfectly calibrated on 80 validation texts: a fit looks better on these texts than it is."""
    seen, out_of_fold, others = [], [], []
    for seed in range(60):
        logp, truth, groups, valid = halves(n=160, classes=6, seed=seed)
        found = calibrate(logp, truth, groups, valid, seed)
        in_sample = fit(logp[valid], truth[valid], np.ones(valid.sum())).apply(logp[valid])
        seen.append(nll(in_sample, truth[valid]) - nll(logp[valid], truth[valid]))
        out_of_fold.append(nll(found[valid], truth[valid]) - nll(logp[valid], truth[valid]))
        others.append(nll(found[~valid], truth[~valid]) - nll(logp[~valid], truth[~valid]))
    error = np.std(out_of_fold) / np.sqrt(60) + np.std(others) / np.sqrt(60)
    assert np.mean(seen) < -0.01
    assert np.mean(out_of_fold) > 0 and np.mean(others) > 0
    # It is a little worse than on the others, since it learns from four fifths.
    assert np.mean(out_of_fold) == pytest.approx(1.2 * np.mean(others), abs=3 * error)


def test_a_wrong_prior_is_repaired_on_both_sides():
    bias = np.array([2.0, -1.0, -1.0, 0.0])
    logp, truth, groups, valid = halves(n=4000, seed=5, temperature=2.0, bias=bias)
    found = calibrate(logp, truth, groups, valid, 1)
    for part in (valid, ~valid):
        before, after = ((x[part].argmax(axis=1) == truth[part]).mean() for x in (logp, found))
        assert after > before + 0.05
        assert nll(found[part], truth[part]) < nll(logp[part], truth[part]) - 0.1


def test_copies_of_a_text_weigh_as_one():
    logp, truth, groups, valid = halves(n=400, temperature=2.0)
    times = np.random.default_rng(6).integers(1, 5, 400)
    once = calibrate(logp, truth, groups, valid, 1)
    copied = calibrate(*(np.repeat(x, times, axis=0) for x in (logp, truth, groups, valid)), 1)
    assert copied == pytest.approx(np.repeat(once, times, axis=0), abs=1e-3)


def test_the_seed_makes_the_folds_and_nothing_else():
    logp, truth, groups, valid = halves()
    one, again, other = (calibrate(logp, truth, groups, valid, seed) for seed in (1, 1, 2))
    assert one.tobytes() == again.tobytes()
    assert np.array_equal(one[~valid], other[~valid])
    assert not np.array_equal(one[valid], other[valid])


@pytest.mark.parametrize("case", ["no validation", "one label", "one text"])
def test_where_nothing_can_be_learned_nothing_changes(case):
    logp, truth, groups, valid = halves(n=40)
    if case == "no validation":
        valid = np.zeros(40, dtype=bool)
    elif case == "one label":
        truth = np.where(valid, 2, truth)
    else:
        groups, truth = np.where(valid, 0, groups), np.where(valid, 1, truth)
    found = calibrate(logp + 3, truth, groups, valid, 1)  # not normalised
    assert found == pytest.approx(logp, abs=1e-12)


def test_all_may_be_validation_and_texts_fewer_than_folds():
    logp, truth, _, _ = halves(n=30)
    for groups in (np.arange(30), np.arange(30) % 3, np.zeros(30, dtype=int)):
        found = calibrate(logp, truth, groups, np.ones(30, dtype=bool), 1)
        assert np.exp(found).sum(axis=1) == pytest.approx(1)
    assert found == pytest.approx(logp)  # with one text nothing is out of fold
