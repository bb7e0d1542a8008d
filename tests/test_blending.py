"""Compare blends with plain formulas, other solvers, and problems with known answers."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mllm.core.errors import Failure
from mllm.prediction import blending
from mllm.prediction.blending import METHODS, blend

FITTED = ("weighted_vote", "stacking", "greedy")


def normal(logits):
    return logits - logsumexp(logits, axis=-1, keepdims=True)


def problem(seed=0, members=3, n=240, classes=4, skill=1.0):
    """Make members of growing skill and one without any; texts have one to three reviews, half are in validation."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, n // 2, n)
    truth = rng.integers(0, classes, n)
    skills = skill * np.arange(members)[:, None, None]
    logp = normal(rng.normal(size=(members, n, classes)) + skills * np.eye(classes)[truth])
    return [f"m{i}" for i in range(members)], logp, truth, groups, groups % 2 == 0


def nll(logp, truth):
    return -logp[np.arange(len(truth)), truth].mean()


def same(one, other):
    return one.logp.tobytes() == other.logp.tobytes() and one.facts == other.facts


# --- votes


@pytest.mark.parametrize("seed", range(3))
def test_soft_and_log_votes_are_their_formulas(seed):
    names, logp, *rest = problem(seed)
    soft = blend("soft_vote", names, logp, *rest, 1)
    assert np.allclose(soft.logp, np.log(np.exp(logp).mean(0)), rtol=0, atol=1e-9)
    geometric = logp.mean(0) - logsumexp(logp.mean(0), axis=1, keepdims=True)
    assert np.allclose(blend("log_vote", names, logp, *rest, 1).logp, geometric, rtol=0, atol=1e-9)
    assert soft.facts == {}


@pytest.mark.parametrize("members", [1, 2, 4, 5])
def test_majority_vote_counts_and_breaks_ties_by_the_mean_probability(members):
    names, logp, *rest = problem(members=members, classes=3, skill=0.2)
    found = blend("majority_vote", names, logp, *rest, 1).logp
    ties = 0
    for row in range(logp.shape[1]):
        votes = [0] * 3
        for member in range(members):
            votes[int(np.argmax(logp[member, row]))] += 1
        most = [k for k in range(3) if votes[k] == max(votes)]
        mean = [np.exp(logp[:, row, k]).mean() for k in range(3)]
        assert found[row].argmax() == max(most, key=lambda k: mean[k])
        expected = [(votes[k] + mean[k]) / (members + 1) for k in range(3)]
        assert np.exp(found[row]) == pytest.approx(expected, abs=1e-10)
        ties += len(most) > 1
    assert ties > 10 or members in (1, 5)


def test_many_votes_beat_one_sure_member():
    logp = np.log([[[0.51, 0.49]], [[0.51, 0.49]], [[1e-9, 1 - 1e-9]]])
    arguments = list("abc"), logp, np.array([0]), np.array([0]), np.array([False]), 1
    assert blend("majority_vote", *arguments).logp.argmax() == 0
    assert blend("soft_vote", *arguments).logp.argmax() == 1


# --- weighted vote


def likelihoods(seed, members=4, n=150):
    rng = np.random.default_rng(seed)
    return rng.beta(0.5, 1, size=(members, n)).clip(1e-12), rng.choice([1, 0.5, 1 / 3], n)


@pytest.mark.parametrize("seed", range(5))
def test_the_weights_are_the_optimum_that_another_solver_finds(seed):
    likelihood, weight = likelihoods(seed)
    weight = weight / weight.sum()
    other = minimize(
        lambda x: -weight @ np.log(x @ likelihood), np.full(4, 0.25), method="SLSQP", bounds=[(1e-9, 1)] * 4,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1}, options={"ftol": 1e-13, "maxiter": 500},
    )  # fmt: skip
    found = blending.mixture_weights(likelihood, weight)
    assert weight @ np.log(found @ likelihood) >= -other.fun - 1e-6
    assert found == pytest.approx(other.x, abs=5e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 60), st.floats(0.1, 9))
def test_the_weights_meet_the_conditions_of_the_optimum(seed, members, n, spread):
    """Check the Karush-Kuhn-Tucker conditions, also if members are equal, sure and wrong, or more than the reviews."""
    rng = np.random.default_rng(seed)
    likelihood = np.exp(-np.abs(rng.normal(scale=spread, size=(members, n)))).clip(1e-12)
    likelihood[-1] = likelihood[0]
    weight = rng.random(n) + 0.01
    found = blending.mixture_weights(likelihood, weight)
    assert found.min() >= 0 and found.sum() == pytest.approx(1)
    gain = (likelihood / (found @ likelihood)) @ (weight / weight.sum())
    assert gain.max() <= 1 + 1.01 * blending.GAP
    assert found @ (1 - gain) == pytest.approx(0, abs=1e-9)


def test_known_weights_of_a_mixture_are_recovered():
    """Draw labels from a mixture of the members' own distributions; one member has no part in it."""
    rng = np.random.default_rng(3)
    logp = normal(rng.normal(scale=2, size=(4, 30_000, 5)))
    parts = np.array([0.5, 0.3, 0.2, 0.0])
    p = np.einsum("m,mnk->nk", parts, np.exp(logp))
    truth = (p.cumsum(1) < rng.random((30_000, 1))).sum(1).clip(max=4)
    everything = np.ones(30_000, dtype=bool)
    facts = blend("weighted_vote", list("abcd"), logp, truth, np.arange(30_000), everything, 1).facts
    assert [facts["weights"][m] for m in "abcd"] == pytest.approx(parts, abs=0.02)


# --- stacking


def halves(seed=0, n=1500):
    """Make eight classes of three bits. Each member knows one bit and is overconfident; half of the reviews validate."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 8, n)
    logits = []
    for bit in range(3):
        side = (truth >> bit & 1) * 2 - 1
        belief = side * 1.5 + rng.normal(size=n) * 1.2
        logits.append(6 * belief[:, None] * ((np.arange(8) >> bit & 1) * 2 - 1))
    return list("abc"), normal(np.array(logits)), truth, np.arange(n), np.arange(n) < n // 2


def design(logp):
    """Return members' centred log-probabilities side by side."""
    clipped = normal(np.maximum(logp, np.log(1e-12)))
    return np.concatenate([member - member.mean(1, keepdims=True) for member in clipped], axis=1)


def test_stacking_is_scikit_learns_logistic_regression_with_the_c_of_its_cross_validation():
    names, logp, truth, groups, valid = problem(n=600, skill=0.7)
    found = blend("stacking", names, logp, truth, groups, valid, 5)
    x, y = design(logp), truth[valid]
    weight = np.array([1 / (groups[valid] == g).sum() for g in groups[valid]])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=found.facts["C"], tol=1e-8, max_iter=5000))
    model.fit(x[valid], y, standardscaler__sample_weight=weight, logisticregression__sample_weight=weight)
    expected = model.predict_proba(x[~valid])
    assert np.abs(np.exp(found.logp[~valid]) - expected).max() < 2e-3
    # A plain cross-validation, without weights in scaler or score, finds the best C, or one as good.
    split = PredefinedSplit(blending.folds(groups[valid], 5))
    losses = {
        c: -cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000)), x[valid], y, cv=split,
            scoring="neg_log_loss", params={"logisticregression__sample_weight": weight},
        ).mean()
        for c in blending.STRENGTHS
    }  # fmt: skip
    assert losses[found.facts["C"]] <= min(losses.values()) + 0.003
    assert max(losses.values()) > min(losses.values()) + 0.006  # so there was a choice


def test_stacking_joins_what_members_know_apart():
    names, logp, truth, groups, valid = halves()
    found = blend("stacking", names, logp, truth, groups, valid, 1).logp
    soft = blend("soft_vote", names, logp, truth, groups, valid, 1).logp
    for rows in (valid, ~valid):
        stacked = nll(found[rows], truth[rows])
        assert stacked < min(nll(member[rows], truth[rows]) for member in logp) - 0.5
        assert stacked < nll(soft[rows], truth[rows]) - 0.3


def test_stacking_is_calibrated_where_it_was_fitted():
    """The mean probability of each class is its share of the texts."""
    rng = np.random.default_rng(2)
    _, logp, truth, *_ = halves()
    weight = rng.choice([1, 0.5], len(truth))
    x = design(logp)
    found = np.exp(blending.stack(x, truth, weight, x, 8, [0.1], 1e-6)[0])
    share = np.bincount(truth, weight) / weight.sum()
    assert np.average(found, axis=0, weights=weight) == pytest.approx(share, abs=1e-4)
    top, right = found.max(1), found.argmax(1) == truth
    assert abs(top.mean() - right.mean()) < 0.05  # the members are much surer than that:
    assert np.exp(logp).max(2).mean() * 4 > 0.95 and 0.15 < (logp.argmax(2) == truth).mean() < 0.25


# --- greedy


@pytest.mark.parametrize("seed", range(6))
def test_greedy_is_no_worse_than_its_best_member_nor_better_than_the_best_weights(seed):
    likelihood, weight = likelihoods(seed, members=30)
    weight = weight / weight.sum()
    found = blending.greedy_weights(likelihood, weight)
    reached = weight @ np.log(found @ likelihood)
    assert reached >= (np.log(likelihood) @ weight).max()
    best = weight @ np.log(blending.mixture_weights(likelihood, weight) @ likelihood)
    assert best - 0.05 < reached <= best + blending.GAP
    assert found.sum() == pytest.approx(1)


def greedy_by_hand(likelihood, weight):
    def value(bag):
        return sum(w * np.log(np.mean([likelihood[m][i] for m in bag])) for i, w in enumerate(weight))

    ranked = sorted(range(len(likelihood)), key=lambda m: -value([m]))
    bag = max((ranked[:size] for size in range(1, len(ranked) + 1)), key=value)
    best = bag
    for _ in range(blending.ADDITIONS):
        bag = [*bag, max(range(len(likelihood)), key=lambda m: value([*bag, m]))]
        best = max(best, bag, key=value)
    return np.bincount(best, minlength=len(likelihood)) / len(best)


@pytest.mark.parametrize("seed", range(3))
def test_greedy_adds_what_a_search_by_hand_adds(seed):
    likelihood, weight = likelihoods(seed, members=5, n=25)
    assert blending.greedy_weights(likelihood, weight) == pytest.approx(greedy_by_hand(likelihood, weight))


@pytest.mark.parametrize("method", ["greedy", "weighted_vote"])
def test_a_member_that_knows_nothing_gets_no_weight(method):
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 2000)
    logp = normal(rng.normal(scale=0.5, size=(3, 2000, 4)) + np.array([3, 3, 0])[:, None, None] * np.eye(4)[truth])
    facts = blend(method, ["a", "b", "noise"], logp, truth, np.arange(2000), np.arange(2000) < 1000, 1).facts
    assert facts["weights"]["noise"] < 1e-3
    assert min(facts["weights"][m] for m in "ab") > 0.1


def test_greedy_finds_three_good_members_among_a_hundred():
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 3, 1000)
    skill = np.where(np.arange(100) % 40 == 7, 2.0, 0.1)[:, None, None]
    logp = normal(rng.normal(size=(100, 1000, 3)) + skill * np.eye(3)[truth])
    names = [f"m{i:03}" for i in range(100)]
    weights = blend("greedy", names, logp, truth, np.arange(1000), np.arange(1000) < 500, 1).facts["weights"]
    assert weights["m007"] + weights["m047"] + weights["m087"] > 0.9


# --- what a blend may know


@pytest.mark.parametrize("method", METHODS)
def test_test_labels_change_no_byte(method):
    names, logp, truth, groups, valid = problem()
    first = blend(method, names, logp, truth, groups, valid, 1)
    for poison in (999, -1):
        assert same(first, blend(method, names, logp, np.where(valid, truth, poison), groups, valid, 1))


@pytest.mark.parametrize("method", METHODS)
def test_a_texts_own_labels_do_not_change_its_predictions(method):
    names, logp, truth, groups, valid = problem(skill=0.5, n=160)
    first = blend(method, names, logp, truth, groups, valid, 1)
    for text in np.unique(groups[valid])[:2]:
        mine = groups == text
        other = blend(method, names, logp, np.where(mine, (truth + 1) % 4, truth), groups, valid, 1)
        assert np.array_equal(first.logp[mine], other.logp[mine])
        if method in ("weighted_vote", "stacking"):  # but the fit uses them
            assert not np.array_equal(first.logp[~valid], other.logp[~valid])


def test_a_texts_own_labels_do_not_choose_the_penalty_either():
    """With 15 texts each label can change the choice of C: every fold must choose anew."""
    names, logp, truth, *_ = problem(n=15, classes=2, skill=0.3)
    texts, everything = np.arange(15), np.ones(15, dtype=bool)
    first = blend("stacking", names, logp, truth, texts, everything, 1)
    chosen = set()
    for text in texts[::2]:
        other = blend("stacking", names, logp, np.where(texts == text, 1 - truth, truth), texts, everything, 1)
        assert np.array_equal(first.logp[text], other.logp[text])
        chosen.add(other.facts["C"])
    assert len(chosen) > 1


@pytest.mark.parametrize("method", FITTED)
def test_validation_scores_are_not_in_sample(method):
    """For members that know nothing, a fit looks too good on its own reviews; out of fold it must not."""
    rng = np.random.default_rng(0)
    n, members = 120, 15
    truth, logp = rng.integers(0, 3, n), normal(rng.normal(scale=1.5, size=(members, n, 3)))
    names, everything = [f"m{i:02}" for i in range(members)], np.ones(n, dtype=bool)
    honest = nll(blend(method, names, logp, truth, np.arange(n), everything, 1).logp, truth)
    twice = [np.concatenate([a, a], axis=axis) for a, axis in ((logp, 1), (truth, 0))]
    copied = blend(method, names, *twice, np.arange(2 * n), np.arange(2 * n) < n, 1).logp[n:]
    assert nll(copied, truth) < honest - 0.02
    assert honest > np.log(3)


def test_a_text_is_in_one_fold_and_folds_are_even():
    groups = np.random.default_rng(0).integers(0, 103, 500)
    fold = blending.folds(groups, 1)
    assert all(len(set(fold[groups == text])) == 1 for text in groups)
    sizes = [len(set(groups[fold == k])) for k in range(blending.FOLDS)]
    assert max(sizes) - min(sizes) <= 1 and sum(sizes) == len(set(groups))
    assert not np.array_equal(fold, blending.folds(groups, 2))


@pytest.mark.parametrize("method", FITTED)
def test_copies_of_a_text_are_no_new_evidence(method):
    names, logp, truth, groups, valid = problem(n=200, skill=0.5)
    once = blend(method, names, logp, truth, groups, valid, 1)
    # All validation texts get twice the rows with half the weight; nothing may change.
    twice = np.repeat(np.arange(200), np.where(valid, 2, 1))
    copied = blend(method, names, logp[:, twice], truth[twice], groups[twice], valid[twice], 1)
    first = np.flatnonzero(np.diff(twice, prepend=-1))
    assert np.allclose(copied.logp[first], once.logp, rtol=0, atol=1e-3)


def test_copies_that_pass_for_texts_of_their_own_are_evidence():
    """Duplicates make the most frequent class seem even more frequent: the weights of reviews correct that."""
    names, logp, truth, groups, valid = problem(n=200, skill=0.5)
    rows = np.repeat(np.arange(200), np.where(valid & (truth == 0), 10, 1))
    grouped = blend("stacking", names, logp[:, rows], truth[rows], groups[rows], valid[rows], 1)
    naive = blend("stacking", names, logp[:, rows], truth[rows], np.arange(len(rows)), valid[rows], 1)
    p, q = (np.exp(found.logp[~valid[rows], 0]).mean() for found in (grouped, naive))
    assert q > p + 0.1


# --- robustness


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_members_does_not_matter(method):
    names, logp, *rest = problem(members=5)
    first = blend(method, names, logp, *rest, 1)
    order = [3, 0, 4, 2, 1]
    assert same(first, blend(method, [names[i] for i in order], logp[order], *rest, 1))


@pytest.mark.parametrize("method", METHODS)
def test_results_are_distributions_whatever_members_rule_out(method):
    """Cover a majority baseline, a class without validation reviews, and a class that is never predicted."""
    names, logp, truth, groups, valid = problem(classes=5)
    truth[valid & (truth == 3)] = 1
    logp[:, :, 4] = -np.inf
    logp = normal(logp)
    logp[0] = np.log([1, 0, 0, 0, 0], where=[True, False, False, False, False], out=np.full(5, -np.inf))
    truth[truth == 4] = 2
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        found = blend(method, names, logp.astype(np.float32), truth, groups, valid, 1)
    assert found.logp.shape == logp.shape[1:] and found.logp.dtype == np.float64
    assert np.isfinite(found.logp).all()
    assert np.exp(found.logp).sum(1) == pytest.approx(1, abs=1e-12)
    assert found.logp[:, 4].max() < np.log(1e-9)
    if method == "stacking":
        assert found.logp[:, 3].max() < np.log(1e-11)
    json.dumps(found.facts, allow_nan=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("members", [1, 2])
def test_two_classes_of_which_validation_has_one(method, members):
    names, logp, truth, groups, valid = problem(classes=2, members=members, n=40)
    found = blend(method, names, logp, np.where(valid, 1, truth), groups, valid, 1)
    assert np.isfinite(found.logp).all()
    if method == "stacking":
        assert found.logp[:, 0].max() < np.log(1e-11)
    if members == 1 and method not in ("stacking", "majority_vote"):
        assert np.allclose(found.logp, logp[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_without_test_reviews(method):
    names, logp, truth, groups, valid = problem()
    found = blend(method, names, logp[:, valid], truth[valid], groups[valid], np.ones(valid.sum(), dtype=bool), 1)
    assert np.array_equal(found.logp, blend(method, names, logp, truth, groups, valid, 1).logp[valid])


def test_facts_say_what_was_fitted():
    names, logp, truth, groups, valid = problem()
    for method in FITTED:
        facts = blend(method, names, logp, truth, groups, valid, 1).facts
        assert facts["valid_texts"] == len(set(groups[valid])) < facts["valid_reviews"] == valid.sum()
        if method == "stacking":
            assert facts["C"] in blending.STRENGTHS
        else:
            assert list(facts["weights"]) == names and sum(facts["weights"].values()) == pytest.approx(1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("texts", [0, 4])
def test_too_few_validation_texts(method, texts):
    names, logp, truth, groups, _ = problem()
    valid = np.isin(groups, np.unique(groups)[:texts])
    if method in FITTED:
        with pytest.raises(Failure, match=f"{method}: too few texts .*found {texts}, expected at least 5.*soft_vote"):
            blend(method, names, logp, truth, groups, valid, 1)
    else:
        assert np.isfinite(blend(method, names, logp, truth, groups, valid, 1).logp).all()


def test_five_texts_are_enough():
    names, logp, truth, groups, _ = problem()
    valid = np.isin(groups, np.unique(groups)[:5])
    for method in FITTED:
        assert np.isfinite(blend(method, names, logp, truth, groups, valid, 1).logp).all()


def test_members_that_are_no_distributions_and_methods_that_are_none():
    names, logp, *rest = problem()
    for value, words in ((np.nan, "nan"), (1.0, "sum to")):
        wrong = logp.copy()
        wrong[1, 7, 2] = value
        with pytest.raises(Failure, match=f"m1: the probabilities of row 7 .*{words}"):
            blend("soft_vote", names, wrong, *rest, 1)
    with pytest.raises(ValueError, match=r"'softvote'.*soft_vote"):
        blend("softvote", names, logp, *rest, 1)
