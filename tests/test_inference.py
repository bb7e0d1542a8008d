"""Compare p-values and corrections with statsmodels, papers and simulation, and luck with the effect of selection."""

from itertools import product
from math import comb, pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from mllm.evaluation import significance


def resampled(samples, draws, seed=0):
    """Return (…, draws) means of bootstrap resamples of (…, reviews)."""
    n = samples.shape[-1]
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)
    return samples @ times.T / n


# ── Two candidates ──


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 9), st.integers(0, 40), st.integers(0, 40), st.integers(0, 9))
def test_mcnemar_is_statsmodels_and_the_definition_of_mid_p(both, a_only, b_only, neither):
    found = significance.mcnemar(a_only, b_only)
    exact = mcnemar([[both, a_only], [b_only, neither]], exact=True).pvalue
    assert found.p_exact == pytest.approx(1 if a_only == b_only else exact, abs=1e-12)
    n = a_only + b_only
    if n == 0:
        assert found.p_mid == 1
        return
    # The probability of values farther from the half than the observed one, and half of that of values as far.
    mid = sum(
        comb(n, k) / 2**n * (1 if abs(2 * k - n) > abs(2 * a_only - n) else 0.5)
        for k in range(n + 1)
        if abs(2 * k - n) >= abs(2 * a_only - n)
    )
    assert found.p_mid == pytest.approx(mid, abs=1e-12)


@pytest.mark.parametrize(
    ("counts", "exact", "mid"), [((1, 1, 7, 12), 0.0703, 0.0391), ((59, 6, 16, 80), 0.0525, 0.0347)]
)
def test_the_examples_of_fagerland_lydersen_and_laake(counts, exact, mid):
    _, a, b, _ = counts
    for found in (significance.mcnemar(a, b), significance.mcnemar(b, a)):
        assert (found.p_exact, found.p_mid) == (pytest.approx(exact, abs=5e-5), pytest.approx(mid, abs=5e-5))


def two_sided(draws):
    """Return the p-value of no difference: twice the share of resamples on the rarer side of 0; 0 counts on both sides."""
    return min(1.0, 2 * min(significance.share_up_to(draws, 0.0), significance.share_up_to(-draws, 0.0)))


def test_shares_of_resamples_are_uniform_where_nothing_differs():
    """Simulate 2,000 experiments of 200 reviews."""
    differences = np.random.default_rng(1).normal(size=(2000, 200))
    p = np.array([two_sided(draws) for draws in resampled(differences, 1000)])
    assert kstest(p, "uniform").pvalue > 0.001
    assert 0.035 < np.mean(p <= 0.05) < 0.065


def test_shares_of_few_draws():
    draws = np.array([-1.0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert two_sided(draws) == two_sided(-draws) == 2 * 2 / 10
    assert two_sided(np.ones(999)) == 2 / 1000
    assert two_sided(np.zeros(999)) == 1
    assert significance.share_up_to(draws, -0.5) == significance.share_up_to(draws, -1.0) == 2 / 10
    assert significance.share_up_to(draws, -1.1) == 1 / 10


def test_no_p_is_smaller_than_its_draws_can_show():
    draws = np.random.default_rng(4).normal(size=2000) + 30
    assert two_sided(draws) == 2 / 2001 and significance.share_up_to(draws, 0) == 1 / 2001


def test_not_worse_is_said_falsely_as_often_as_it_says():
    """It errs in 5 % of runs for candidates that are worse by exactly the margin, and rarely misses equal ones."""
    differences = np.random.default_rng(2).normal(size=(2000, 200))
    for truth, low, high in ((-0.25, 0.035, 0.065), (0.0, 0.95, 1.0)):
        p = [significance.share_up_to(draws, -0.25) for draws in resampled(differences + truth, 1000)]
        assert low < np.mean(np.array(p) <= 0.05) < high


@pytest.mark.parametrize(("power", "level"), [(0.8, 0.05), (0.5, 0.05), (0.9, 0.01)])
def test_a_detectable_difference_is_found_as_often_as_it_says(power, level):
    samples = np.random.default_rng(3).normal(size=(2000, 200))
    draws = resampled(samples, 2000)
    difference = np.mean([significance.detectable_difference(d.std(), power, level) for d in draws])
    p = np.array([two_sided(d + difference) for d in draws])
    assert np.mean(p <= level) == pytest.approx(power, abs=0.03)


def test_overlap_by_hand():
    truth = np.array([0, 0, 1, 1, 2, 2, 2, 0])
    a = np.array([0, 1, 1, 1, 2, 0, 1, 0])
    b = np.array([0, 1, 0, 1, 2, 0, 0, 0])
    found = significance.overlap(a, b, truth, np.ones(8))
    assert found == pytest.approx({
        "agreement": 6 / 8, "both_wrong": 3 / 8, "same_error": 2 / 8, "error_jaccard": 3 / 4,
        "phi": np.corrcoef(a == truth, b == truth)[0, 1],
    })  # fmt: skip
    assert significance.overlap(b, a, truth, np.ones(8)) == pytest.approx(found)


@pytest.mark.parametrize("seed", range(5))
def test_weights_of_overlap_are_repetitions(seed):
    rng = np.random.default_rng(seed)
    truth, a, b = rng.integers(0, 3, (3, 50))
    times = rng.integers(1, 5, 50)
    weighted = significance.overlap(a, b, truth, times / 7)
    repeated = significance.overlap(*(np.repeat(x, times) for x in (a, b, truth)), np.ones(times.sum()))
    assert weighted == pytest.approx(repeated)


def test_overlap_without_errors_or_without_variation():
    truth, weights = np.arange(7) % 3, np.full(7, 0.1)
    wrong = (truth + 1) % 3
    same = significance.overlap(truth, truth, truth, weights)
    assert same == {
        "agreement": pytest.approx(1), "both_wrong": 0, "same_error": 0, "error_jaccard": 0.0, "phi": None,
    }  # fmt: skip
    assert significance.overlap(wrong, wrong, truth, weights)["error_jaccard"] == pytest.approx(1)
    assert significance.overlap(truth, np.zeros(7), truth, weights)["phi"] is None


# ── Many p-values ──

# Few distinct values make many ties.
P_VALUES = st.lists(
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.001, 0.01, 0.04, 0.05, 1.0])), min_size=1, max_size=20
)


@settings(deadline=None, max_examples=30)  # statsmodels' holm collects garbage each time, which is slow
@given(P_VALUES, st.integers(0, 2**32 - 1))
def test_corrections_are_statsmodels(p, seed):
    """Some tests between the others were not made."""
    rng = np.random.default_rng(seed)
    tested = np.sort(rng.permutation(len(p) + 3)[: len(p)])
    padded = np.full(len(p) + 3, np.nan)
    padded[tested] = p
    for function, method in ((significance.holm, "holm"), (significance.benjamini_hochberg, "fdr_bh")):
        found = function(padded)
        np.testing.assert_allclose(found[tested], multipletests(p, method=method)[1], rtol=0, atol=1e-12)
        assert np.isnan(found).sum() == 3


@pytest.mark.parametrize("function", [significance.holm, significance.benjamini_hochberg])
def test_no_tests_need_no_correction(function):
    assert function(np.array([])).shape == (0,)
    assert np.isnan(function(np.full(2, np.nan))).all()


# ── Many candidates ──


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_rank_sets_hold_all_true_ranks_as_often_as_they_say(larger_is_better):
    """Three of twelve candidates are equally the best; each one's set holds its true rank in 95 % of samples or more."""
    rng = np.random.default_rng(3)
    truth = (1 if larger_is_better else -1) * np.array([0.3, 0.3, 0.3, *np.linspace(0.25, 0, 9)])
    true_low = np.array([1, 1, 1, *range(4, 13)])
    true_high = np.array([3, 3, 3, *range(4, 13)])
    held = []
    for _ in range(150):
        samples = truth[:, None] + 0.5 * rng.normal(size=150) + rng.normal(size=(12, 150))
        rank, low, high = significance.rank_sets(
            samples.mean(1), resampled(samples, 300, rng.integers(2**31)), larger_is_better
        )
        held.append((low <= true_low) & (high >= true_high))
        assert ((low <= rank) & (rank <= high)).all() and low.dtype.kind == "i"
    assert np.mean(held, axis=0).min() >= 0.93


def test_clear_ranks_have_no_width_equal_candidates_all_of_it_and_copies_none_between_them():
    rng = np.random.default_rng(0)
    values = np.array([0.5, 0.9, 0.1])
    clear = significance.rank_sets(values, values[:, None] + rng.normal(scale=1e-3, size=(3, 500)), True)
    assert [x.tolist() for x in clear] == [[2, 1, 3]] * 3
    _, low, high = significance.rank_sets(np.zeros(3), rng.normal(size=(3, 500)), True)
    assert (low.tolist(), high.tolist()) == ([1] * 3, [3] * 3)
    same = significance.rank_sets(np.zeros(3), np.tile(rng.normal(size=500), (3, 1)), True)
    assert [x.tolist() for x in same] == [[1] * 3, [1] * 3, [3] * 3]


def test_the_front_is_counted_in_each_resample():
    rng = np.random.default_rng(1)
    quality, costs = rng.normal(size=(6, 200)).round(1), np.array([1, 1, 2, 3, 3, 5.0])

    def on_front(i, q):
        return not any(q[j] >= q[i] and costs[j] <= costs[i] and (q[j] > q[i] or costs[j] < costs[i]) for j in range(6))

    expected = [np.mean([on_front(i, q) for q in quality.T]) for i in range(6)]
    assert significance.front_shares(quality, costs) == pytest.approx(expected)


def candidates(rng, m, n, shared):
    """Draw (m, n) whether the labels of equally good candidates are right; errors are partly shared."""
    luck = sqrt(shared) * rng.normal(size=n) + sqrt(1 - shared) * rng.normal(size=(m, n))
    return (luck < 0.5244).astype(float)  # 0.7 of them


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.95])
def test_optimism_is_what_choosing_the_best_of_equals_adds(shared):
    """On validation, the best of 20 candidates with true accuracy 0.7 looks better than it is by this amount."""
    rng = np.random.default_rng(4)
    gains = []
    for _ in range(1500):
        accuracies = candidates(rng, 20, 300, shared).mean(axis=1)
        luck_of_all = accuracies.mean() - 0.7  # 0 on average: without it the mean over so few repetitions is sharper
        gains.append(accuracies.max() - 0.7 - luck_of_all)
    expected = [
        significance.expected_optimism(resampled(candidates(rng, 20, 300, shared), 400, seed), True)
        for seed in range(25)
    ]
    error = np.std(gains) / sqrt(len(gains)) + np.std(expected) / sqrt(len(expected))
    assert np.mean(expected) == pytest.approx(np.mean(gains), abs=3 * error)
    assert error < 0.02 * np.mean(gains)
    independent = significance.independent_optimism(np.full(20, sqrt(0.7 * 0.3 / 300)))
    if shared == 0:
        assert independent == pytest.approx(np.mean(gains), rel=0.03)
    else:
        assert independent > np.mean(gains)


def test_there_is_no_luck_in_choosing_the_only_one_or_among_copies():
    draws = np.random.default_rng(5).normal(loc=0.1, size=(1, 2000))
    assert significance.expected_optimism(draws, True) == 0.0
    copies = np.repeat(draws, 10, axis=0) + np.arange(10)[:, None]
    assert significance.expected_optimism(copies, True) == pytest.approx(0, abs=1e-12)


def test_luck_has_the_direction_of_the_metric_and_no_bias_in_it():
    draws = np.random.default_rng(6).exponential(size=(8, 4000))
    large, small = (significance.expected_optimism(draws, larger) for larger in (True, False))
    # Of eight exponential variables the largest is on average 1 + 1/2 + … + 1/8, the smallest 1/8.
    assert large == pytest.approx(sum(1 / k for k in range(1, 9)) - 1, rel=0.05)
    assert small == pytest.approx(1 - 1 / 8, rel=0.05)
    assert significance.expected_optimism(-draws, False) == pytest.approx(large)
    # A metric that resampling shifts, such as the calibration error, has no luck because of that.
    assert significance.expected_optimism(draws + np.arange(8)[:, None], True) == pytest.approx(large)


@pytest.mark.parametrize(
    ("m", "expected"),
    [(1, 0), (2, 1 / sqrt(pi)), (3, 1.5 / sqrt(pi)), (10, 1.538753), (100, 2.507594)],  # Harter 1961, table 1
)
def test_the_largest_of_normal_deviates(m, expected):
    for error in (1.0, 0.03):
        assert significance.independent_optimism(np.full(m, error)) == pytest.approx(error * expected, abs=1e-6 * error)


@pytest.mark.parametrize(("m", "error"), product((7, 300), (1.0, 0.01)))
def test_the_largest_of_normal_deviates_by_simulation(m, error):
    largest = np.random.default_rng(7).normal(scale=error, size=(20_000, m)).max(axis=1)
    tolerance = 4 * largest.std() / sqrt(len(largest))
    assert significance.independent_optimism(np.full(m, error)) == pytest.approx(largest.mean(), abs=tolerance)


def test_the_bound_of_luck_is_one():
    """With unequal spreads, the mean spread gives no bound; a single point has no luck."""
    rng = np.random.default_rng(8)
    for spreads in (np.array([1.0, 0.01, 0.01]), rng.uniform(0, 1, 9), np.array([0.0, 1.0])):
        draws = spreads[:, None] * rng.normal(size=(len(spreads), 200_000))
        assert significance.independent_optimism(spreads) == pytest.approx(
            significance.expected_optimism(draws, True), abs=0.01
        )
    assert significance.independent_optimism(np.array([0.02])) == 0.0


def test_luck_grows_slowly_but_without_end():
    """The expected maximum of n normal deviates (Harter 1961 to 100; beyond, by integration)."""
    known = {10: 1.53875, 100: 2.50759, 1000: 3.24144, 10_000: 3.85162, 100_000: 4.38432}
    for number, expected in known.items():
        assert significance.independent_optimism(np.ones(number)) == pytest.approx(expected, abs=1e-5)
