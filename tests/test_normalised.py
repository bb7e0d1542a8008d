"""Compare scores over several tasks with naive loops: ratios, means, the lowest, intervals, texts and trainings."""

import numpy as np
import pytest

from mllm.core.errors import Failure
from mllm.evaluation import bootstrap, normalised, paired, replicates
from mllm.evaluation.normalised import Measured

TEXTS, RESAMPLES, SEED = 70, 150, 5
RNG = np.random.default_rng(0)
OWN = {"a": np.arange(TEXTS), "b": np.arange(TEXTS), "c": np.arange(0, TEXTS, 2)}
TRUTH = {task: RNG.integers(0, 3, len(own)) for task, own in OWN.items()}
SKILL = {
    "model": {"a": 0.7, "b": 0.6, "c": 0.5},
    "other": {"a": 0.6, "b": 0.6, "c": 0.6},
    "expert": dict.fromkeys("abc", 0.8),
}


def labels(name, task, run):
    rng = np.random.default_rng([sum(map(ord, name + task)), run])
    right = rng.random(len(OWN[task])) < SKILL[name][task]
    return np.where(right, TRUTH[task], (TRUTH[task] + 1) % 3)


def logp(said):
    return np.log(np.eye(3) * 0.7 + 0.1)[said]


def measured(name, task, metric="macro_f1", runs=1, reach=0.0):
    """As the scorer draws them."""
    sample = bootstrap.Sample(TRUTH[task], OWN[task], 3, False, SEED, RESAMPLES, np.arange(TEXTS))
    found = sample.evaluate_all([logp(labels(name, task, run)) for run in range(runs)])
    values, draws = [one.values[metric] for one in found], [one.draws[metric] for one in found]
    return Measured(name, np.array(values), np.stack(draws), reach)


def parts(name, metric="macro_f1", runs=1, expert_runs=1, reach=0.0):
    return {
        task: normalised.ratio(
            measured(name, task, metric, runs, reach), measured("expert", task, metric, expert_runs, reach), metric, task
        )
        for task in "abc"
    }  # fmt: skip


# ── The naive way: lists of drawn texts, one after the other ──


def macro_f1(truth, said):
    found = []
    for k in range(3):
        hits = sum(t == s == k for t, s in zip(truth, said, strict=True))
        total = sum(t == k for t in truth) + sum(s == k for s in said)
        if total:
            found.append(2 * hits / total)
    return sum(found) / len(found)


def nll(truth, said):
    return -sum(logp(s)[t] for t, s in zip(truth, said, strict=True)) / len(truth)


NAIVE = {"macro_f1": macro_f1, "nll": nll}


def naive_scores(name, metric, run=0):
    """Return task -> score on all texts, and on each resample of the split."""
    rng, whole = np.random.default_rng(SEED), {t: NAIVE[metric](TRUTH[t], labels(name, t, run)) for t in OWN}
    drawn = {task: [] for task in OWN}
    for _ in range(RESAMPLES):
        texts = rng.integers(0, TEXTS, TEXTS)
        for task, own in OWN.items():
            place, said = {text: i for i, text in enumerate(own)}, labels(name, task, run)
            chosen = [place[text] for text in texts if text in place]
            drawn[task].append(NAIVE[metric](TRUTH[task][chosen], said[chosen]))
    return whole, drawn


def naive_mean(whole, expert, metric):
    ratios = [expert[t] / whole[t] if metric == "nll" else whole[t] / expert[t] for t in OWN]
    return sum(ratios) / len(ratios)


@pytest.mark.parametrize("metric", ["macro_f1", "nll"])
def test_mean_and_interval_are_those_of_naive_loops(metric):
    (mine, my_draws), (theirs, their_draws) = (naive_scores(name, metric) for name in ("model", "expert"))
    draws = [
        naive_mean({t: my_draws[t][b] for t in OWN}, {t: their_draws[t][b] for t in OWN}, metric)
        for b in range(RESAMPLES)
    ]
    value = naive_mean(mine, theirs, metric)
    found = normalised.over_tasks(parts("model", metric), "mean")
    assert found.value == pytest.approx(value, abs=1e-9)
    low, high = np.quantile(np.array(draws) - np.mean(draws) + value, [0.025, 0.975])
    assert normalised.interval(parts("model", metric), "mean") == pytest.approx((low, high), abs=1e-5)


def test_the_lowest_and_a_tasks_own():
    (mine, my_draws), (theirs, their_draws) = (naive_scores(name, "macro_f1") for name in ("model", "expert"))
    ratios = {t: mine[t] / theirs[t] for t in OWN}
    assert normalised.over_tasks(parts("model"), "worst").value == pytest.approx(min(ratios.values()))
    assert normalised.over_tasks(parts("model"), "b").value == pytest.approx(ratios["b"])
    draws = {t: np.divide(my_draws[t], their_draws[t]) for t in OWN}
    largest = [max(abs(draws[t][b] - draws[t].mean()) / draws[t].std() for t in OWN) for b in range(RESAMPLES)]
    wider, ends = np.quantile(largest, 0.95) / 1.959964, []
    for t in OWN:
        low, high = np.quantile(draws[t] - draws[t].mean(), [0.025, 0.975])
        ends.append((ratios[t] + wider * low, ratios[t] + wider * high))
    expected = min(low for low, _ in ends), min(high for _, high in ends)
    assert normalised.interval(parts("model"), "worst") == pytest.approx(expected, abs=1e-4)


def test_differences_are_paired_over_all_tasks():
    (a, a_draws), (b, b_draws), (e, e_draws) = (naive_scores(n, "macro_f1") for n in ("model", "other", "expert"))
    value = naive_mean(a, e, "macro_f1") - naive_mean(b, e, "macro_f1")
    draws = [
        np.mean([(a_draws[t][i] - b_draws[t][i]) / e_draws[t][i] for t in OWN]) for i in range(RESAMPLES)
    ]  # fmt: skip
    found = (normalised.over_tasks(parts("model"), "mean") - normalised.over_tasks(parts("other"), "mean")).tested(0.01)
    low, high = np.quantile(np.array(draws) - np.mean(draws) + value, [0.025, 0.975])
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=1e-5)
    nothing = normalised.over_tasks(parts("model"), "mean") - normalised.over_tasks(parts("model"), "mean")
    assert nothing.value == 0 and not nothing.draws.any()


def gradient(metric, mine, theirs):
    """Return the mean normalised score's gradient by each task's score and its expert's, by finite differences."""
    start, step, slopes = naive_mean(mine, theirs, metric), 1e-6, []
    for scores in (mine, theirs):
        for t in OWN:
            moved = scores | {t: scores[t] + step}
            pair = (moved, theirs) if scores is mine else (mine, moved)
            slopes.append((naive_mean(*pair, metric) - start) / step)
    return np.array(slopes)


@pytest.mark.parametrize("metric", ["macro_f1", "nll"])
@pytest.mark.parametrize("expert_runs", [1, 3])
def test_several_trainings_are_linearised_at_their_means(metric, expert_runs):
    """Compute each training's values and draws along a numerical gradient, then the interval of ``replicates``."""
    runs = 3
    mine, theirs = (
        [naive_scores(n, metric, r) for r in range(of)] for n, of in (("model", runs), ("expert", expert_runs))
    )
    means = [{t: np.mean([whole[t] for whole, _ in of]) for t in OWN} for of in (mine, theirs)]
    slopes, value = gradient(metric, *means), naive_mean(*means, metric)
    values, draws = [], []
    for r in range(runs):
        (whole, drawn), (e_whole, e_drawn) = mine[r], theirs[r if expert_runs > 1 else 0]
        point = np.array([*(whole[t] for t in OWN), *(e_whole[t] for t in OWN)])
        values.append(slopes @ point)
        draws.append([slopes @ [*(drawn[t][b] for t in OWN), *(e_drawn[t][b] for t in OWN)] for b in range(RESAMPLES)])
    expected = replicates.spread(values, np.cov(draws), 0.0)
    found = normalised.over_tasks(parts("model", metric, runs, expert_runs), "mean").tested()
    assert found.value == pytest.approx(value, abs=1e-9)
    assert found.spread.deviation == pytest.approx(expected.deviation, rel=1e-4)
    assert found.spread.texts == pytest.approx(expected.texts, rel=1e-3)
    assert found.high - found.low == pytest.approx(2 * expected.half(), rel=1e-3)
    assert (found.high + found.low) / 2 == pytest.approx(value, abs=1e-9)


def test_the_experts_own_score_is_1_and_has_no_width():
    for runs in (1, 3):
        own = {t: measured("expert", t, runs=runs, reach=0.01) for t in OWN}
        same = {t: normalised.ratio(of, of, "macro_f1", t) for t, of in own.items()}
        assert normalised.over_tasks(same, "mean").value == 1
        assert normalised.interval(same, "mean") == pytest.approx((1, 1), abs=1e-6)
        assert normalised.interval(same, "worst") == pytest.approx((1, 1), abs=1e-6)


def test_a_perfect_score_on_few_texts_is_not_certain():
    """Without errors the draws do not differ; the reach of one text widens the interval as elsewhere."""
    draws = np.ones((1, RESAMPLES))
    sure = {t: normalised.ratio(Measured("m", np.ones(1), draws, 0.02), Measured("e", np.ones(1), draws, 0.02), "accuracy", t) for t in OWN}  # fmt: skip
    low, high = normalised.interval(sure, "mean")
    each = paired.of_draws(1.0, draws[0], 0.02, 0.0)
    assert high - low == pytest.approx((each.high - each.low) / np.sqrt(3), rel=0.05) and low < 0.97


@pytest.mark.parametrize("value, drawn", [(-0.1, -0.1), (0.0, 0.0), (0.02, np.linspace(-0.03, 0.07, RESAMPLES))])
def test_what_is_not_surely_above_0_divides_nothing(value, drawn):
    expert = Measured("shard-1", np.array([value]), np.broadcast_to(drawn, (1, RESAMPLES)))
    with pytest.raises(Failure, match=r"^task a: kappa cannot be normalised \(found .* for shard-1, .* Fix: "):
        normalised.ratio(measured("model", "a"), expert, "kappa", "a")
