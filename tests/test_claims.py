"""Test how often claims are wrong by chance: score intervals, corrected nested statements, differences of small counts."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import kstest, norm, poisson
from sklearn.metrics import f1_score
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

from mllm.evaluation import bootstrap, claims, intervals, metrics, paired

MARGIN = 0.01


# ── Score intervals ──


@pytest.mark.parametrize(("right", "n"), [(150, 150), (0, 7), (3, 10), (4000, 50_000)])
def test_wilson_is_statsmodels(right, n):
    assert intervals.wilson(right / n, n) == pytest.approx(proportion_confint(right, n, method="wilson"), abs=1e-12)


def by_likelihood(a, b, n, null):
    """Compute Tango's statistic, with the restricted maximum of the likelihood found numerically."""

    def loss(q):
        cells = np.array([q + null, q, 1 - 2 * q - null])
        counts = np.array([a, b, n - a - b])
        return -(counts * np.log(np.maximum(cells, 1e-300))).sum()

    ends = max(0, -null), (1 - null) / 2
    q = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
    return (a - b - n * null) / np.sqrt(n * (2 * q + null * (1 - null)))


@pytest.mark.parametrize(("a", "b", "n"), [(3, 9, 60), (1, 7, 21), (40, 25, 1000), (5, 0, 80)])
def test_tango_is_the_score_test(a, b, n):
    for null in (-0.2, -MARGIN, 0.0, 0.05):
        assert intervals.tango(a, b, n, null) == pytest.approx(by_likelihood(a, b, n, null), abs=1e-3)
    low, high = intervals.tango_interval(a, b, n)
    assert intervals.tango(a, b, n, low) == pytest.approx(intervals.Z, abs=1e-6)
    assert intervals.tango(a, b, n, high) == pytest.approx(-intervals.Z, abs=1e-6)
    assert intervals.tango_interval(b, a, n) == pytest.approx((-high, -low))


def test_tango_at_the_edges():
    assert intervals.tango_interval(1, 7, 21) == pytest.approx(
        (-0.517, -0.026), abs=5e-4
    )  # Fagerland et al. 2014, table 4
    z2 = intervals.Z**2
    assert intervals.tango_interval(0, 0, 100) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)))
    assert intervals.tango_interval(30, 0, 30)[1] == 1.0


@pytest.mark.parametrize("n", [50, 100, 200, 400])
def test_one_text_proves_no_non_inferiority(n):
    """A rival is right on 1 % more texts, the margin: the bootstrap says no worse in up to 60 % of samples."""
    only = np.random.default_rng(n).binomial(n, MARGIN, 4000)
    said = [intervals.tango_p(0, b, n, -MARGIN) <= 0.025 for b in only]
    assert np.mean(said) <= 0.03


def test_reach_is_a_step_of_one_text():
    confusion = np.array([[40.0, 5, 0], [3, 30, 2], [0, 1, 2]])
    truth, label = (np.repeat(axis.ravel(), confusion.astype(int).ravel()) for axis in np.indices((3, 3)))
    before, steps = f1_score(truth, label, average="macro"), []
    for k, wrong in enumerate((1, 0, 1)):
        changed = label.copy()
        changed[np.flatnonzero((truth == k) & (label == k))[0]] = wrong
        steps.append(abs(f1_score(truth, changed, average="macro") - before))
    assert intervals.reach(metrics.macro_f1, confusion) == pytest.approx(
        np.sqrt(np.average(np.square(steps), weights=confusion.sum(1)))
    )
    assert intervals.reach(metrics.accuracy, confusion) == pytest.approx(1 / 83)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "kappa", "mcc", "balanced_accuracy"])
def test_all_right_is_not_certain(metric):
    """150 of 150 right is not 1.000 (1.000 to 1.000): Wilson's interval begins at 0.975."""
    truth = np.arange(150) % 3
    logp = np.log(np.full((150, 3), 0.05) + 0.85 * np.eye(3)[truth])
    found = bootstrap.Sample(truth, np.arange(150), 3, False, 1, 200).evaluate(logp)
    ends = found.intervals()[metric]
    assert ends["high"] == 1.0 and 0.92 < ends["low"] < 0.98
    assert all(0.9 < r["low"] < 0.94 and r["high"] == 1 for r in found.recalls("abc").values())


def test_many_rare_classes_do_not_push_the_interval_off_its_estimate():
    """Resamples lose classes, so that their macro-F1 is smaller than the sample's."""
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 150
    logp = np.log(
        np.full((300, 150), 1e-3) + 0.851 * np.eye(150)[np.where(rng.random(300) < 0.6, truth, (truth + 1) % 150)]
    )
    found = bootstrap.Sample(truth, np.arange(300), 150, False, 1, 300).evaluate(logp)
    for ends in found.intervals().values():
        assert ends["low"] <= ends["value"] <= ends["high"]


# ── Statements ──


def p_values(difference, error, margin=MARGIN):
    better, not_worse = norm.sf(difference / error), norm.sf((difference + margin) / error)
    return claims.Tests(better, not_worse, 1 - better, 1 - not_worse)


def held(differences, error):
    """Return the statements that hold for several claims after correction."""
    p = [p_values(d, error) for d in differences]
    weak = claims.adjusted(*(np.array([getattr(t, k) for t in p]) for k in ("not_worse", "better")))
    strong = claims.adjusted(*(np.array([getattr(t, k) for t in p]) for k in ("behind", "worse")))
    return [claims.strongest(b, n, h, w) for n, b, h, w in zip(*weak, *strong, strict=True)]


def test_a_lead_never_erases_non_inferiority():
    """24 claims have a standard error of .004: above some lead all are no worse, and a larger lead never says less."""
    order = ["undecided", "no worse", "better"]
    leads = np.arange(0, 0.03, 0.001)
    found = [order.index(held([lead] + [0.0] * 23, 0.004)[0]) for lead in leads]
    assert found == sorted(found) and found[-1] == 2 and 1 in found


def test_adjusted_is_the_closed_test():
    """Compare with all intersections of the null hypotheses, one by one."""
    rng = np.random.default_rng(2)
    for _ in range(30):
        strong = rng.uniform(0, 0.1, 4)
        weak = strong * rng.uniform(0, 1, 4)
        found = claims.adjusted(weak, strong)
        # Each claim is not in the intersection, in it by its strong null, or by its weak one, which implies the strong one.
        local = {
            which: min((4 - which.count(0)) * (0, strong[i], weak[i])[w] for i, w in enumerate(which) if w)
            for which in itertools.product((0, 1, 2), repeat=4)
            if any(which)
        }
        for i in range(4):
            assert found[0][i] == pytest.approx(max(p for which, p in local.items() if which[i] == 2))
            assert found[1][i] == pytest.approx(max(p for which, p in local.items() if which[i] >= 1))


@pytest.mark.parametrize("count", [4, 12, 24])
@pytest.mark.parametrize("truth", [-MARGIN, 0.0])
def test_family_wise_error_at_each_border(count, truth):
    """*Worse* means worse than the margin: as a test of a difference from 0 it would err in 9, 25 and 46 % of runs."""
    rng = np.random.default_rng(count)
    false = {-MARGIN: {"worse", "no worse", "better"}, 0.0: {"better", "behind", "worse"}}[truth]
    wrong = [bool(false & set(held(truth + 0.004 * rng.normal(size=count), 0.004))) for _ in range(800)]
    assert np.mean(wrong) <= 0.065  # 5 % plus two standard errors


def test_what_is_detectable_knows_of_the_correction():
    """With 12 claims the power is 47 % instead of 80 %: the difference must be larger."""
    alone, of_twelve = claims.detectable(0.004), claims.detectable(0.004, 12)
    assert of_twelve / alone == pytest.approx(1.32, abs=0.01)
    assert claims.detectable(0.004, 24) / alone == pytest.approx(1.40, abs=0.01)
    draws = of_twelve + 0.004 * np.random.default_rng(0).normal(size=20_000)
    assert np.mean(norm.sf(draws / 0.004) <= 0.025 / 12) == pytest.approx(0.8, abs=0.01)


# ── Differences ──


def two(seed, n=300, classes=3, copies=True):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 2 * n // 3, n) if copies else np.arange(n)
    _, groups = np.unique(groups, return_inverse=True)
    truth, a, b = rng.integers(0, classes, (3, n))
    a, b = np.where(rng.random(n) < 0.6, truth, a), np.where(rng.random(n) < 0.5, truth, b)
    return truth, a, b, groups


@pytest.mark.parametrize("copies", [True, False])
def test_kinds_of_texts_are_all_of_them(copies):
    truth, a, b, groups = two(1, copies=copies)
    sums, count = paired.kinds(truth, a, b, groups, 3)
    weight = 1 / np.bincount(groups)[groups]
    assert count.sum() == groups.max() + 1 and len(count) < count.sum()
    for one, labels in zip(sums, (a, b), strict=True):
        assert count @ one == pytest.approx(np.bincount(truth * 3 + labels, weight, 9))


@pytest.mark.parametrize("copies", [True, False])
def test_draws_of_kinds_are_those_of_texts(copies):
    """Mean, deviation and ends of the difference in macro-F1 equal those from drawing the texts themselves."""
    truth, a, b, groups = two(2, copies=copies)
    sums, count = paired.kinds(truth, a, b, groups, 3)
    found = paired.draw(metrics.macro_f1, sums, count, 3, 20_000, 0)
    rng, weight, texts = np.random.default_rng(5), 1 / np.bincount(groups)[groups], groups.max() + 1
    slow = []
    for _ in range(4000):
        times = np.bincount(rng.integers(0, texts, texts), minlength=texts)[groups] * weight
        one = [np.bincount(truth * 3 + x, times, 9).reshape(3, 3) for x in (a, b)]
        slow.append(metrics.macro_f1(one[0]) - metrics.macro_f1(one[1]))
    assert found.mean() == pytest.approx(np.mean(slow), abs=4 * np.std(slow) / 60)
    assert found.std() == pytest.approx(np.std(slow), rel=0.04)
    assert np.quantile(found, [0.025, 0.975]) == pytest.approx(
        np.quantile(slow, [0.025, 0.975]), abs=0.12 * np.std(slow)
    )


@pytest.mark.parametrize("mean", [1, 3, 40, 5000])
def test_looked_up_draws_are_poisson(mean):
    found = paired.poisson(np.random.default_rng(mean), np.array([mean, mean + 1]), 200_000)[0]
    assert found.mean() == pytest.approx(mean, abs=4 * np.sqrt(mean / 200_000))
    assert found.var() == pytest.approx(mean, rel=0.02)
    values, counts = np.unique(found, return_counts=True)
    often = counts > 100
    assert counts[often] == pytest.approx(200_000 * poisson.pmf(values[often], mean), rel=0.45)
    assert kstest(found + np.random.default_rng(1).random(200_000), poisson_cdf(mean)).statistic < 0.005


def poisson_cdf(mean):
    """Return the distribution of a Poisson number plus a uniform one, which is continuous."""
    return lambda x: poisson.cdf(np.floor(x) - 1, mean) + (x - np.floor(x)) * poisson.pmf(np.floor(x), mean)


def test_a_border_does_not_hang_on_the_seed():
    """The low end of a claim's interval moves by a fiftieth of the standard error between seeds."""
    truth, a, b, groups = two(3, n=1000)
    sums, count = paired.kinds(truth, a, b, groups, 3)
    draws = [paired.draw(metrics.macro_f1, sums, count, 3, paired.DRAWS, seed) for seed in range(8)]
    ends = [np.quantile(d, 0.025) for d in draws]
    assert np.std(ends) < 0.035 * draws[0].std()


def test_copies_with_different_labels_have_one_accuracy():
    """Each review of a text counts its share, both in the difference and in the counts."""
    right_a, right_b = np.array([1.0, 0.5, 0.0, 1 / 3]), np.array([0.5, 0.5, 1.0, 0.0])
    found = paired.of_shares(right_a - right_b, MARGIN)
    assert found.value == pytest.approx((right_a - right_b).mean())
    assert found.low < found.value < found.high


def test_without_a_differing_text_a_difference_has_width():
    confusion = np.diag([30.0, 30.0, 30.0])
    reach = intervals.reach(metrics.macro_f1, confusion)
    found = paired.of_draws(0.0, np.zeros(20_000), reach, MARGIN)
    assert -found.low == pytest.approx(intervals.Z**2 * reach, rel=0.03) == found.high
    assert found.tests.not_worse > 0.3


# ── Equivalence ──


def test_equivalence_is_two_one_sided_tests():
    """Compare with statsmodels' TOST for means and Tango's score at both margins for shares; draws must agree with both."""
    rng = np.random.default_rng(4)
    gain = rng.choice([-1.0, 0.0, 1.0], 20_000, p=[0.05, 0.9, 0.05])
    expected, *_ = ttost_paired(gain, np.zeros(len(gain)), -MARGIN, MARGIN)
    exact = paired.of_shares(gain, MARGIN).tests
    assert exact.equivalent == pytest.approx(expected, rel=0.1, abs=1e-4)
    error = gain.std() / np.sqrt(len(gain))
    drawn = paired.of_draws(gain.mean(), gain.mean() + error * rng.normal(size=20_000), 0.0, MARGIN).tests
    assert drawn.equivalent == pytest.approx(expected, abs=4 * np.sqrt(expected / 20_000) + 1e-4)
    apart = paired.of_draws(0.02, 0.02 + 0.001 * rng.normal(size=20_000), 0.0, MARGIN).tests
    assert apart.not_worse < 0.001 and apart.not_better == apart.equivalent > 0.999


@pytest.mark.parametrize("off", [-MARGIN, MARGIN])
def test_equivalence_errs_in_few_families(off):
    """12 claims are at a border: at most 2.5 % of runs, plus two standard errors, have a false equivalence."""
    rng, wrong = np.random.default_rng(5), 0
    for _ in range(800):
        found = off + 0.004 * rng.normal(size=12)
        p = {k: norm.sf(side * (found - null) / 0.004) for k, side, null in
             (("better", 1, 0), ("not_worse", 1, -MARGIN), ("worse", -1, -MARGIN), ("not_better", -1, MARGIN))}  # fmt: skip
        up, down = claims.adjusted(p["not_worse"], p["better"])[0], claims.adjusted(p["not_better"], p["worse"])[0]
        wrong += bool((np.maximum(up, down) <= 0.025).any())
    assert wrong / 800 <= 0.025 + 2 * np.sqrt(0.025 / 800)
