"""Compare metrics with scikit-learn and scipy, and intervals with simulation."""

import tracemalloc

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr
from sklearn import metrics as sk

from mllm.evaluation import bootstrap, metrics, slices


def problem(n=400, classes=5, seed=0, skill=0.5):
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, n, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    logits = rng.normal(size=(n, classes)) + skill * 3 * np.eye(classes)[truth]
    return truth, logits - np.logaddexp.reduce(logits, axis=1)[:, None]


def score(truth, logp, groups=None, ordered=True, seed=1, resamples=100):
    groups = np.arange(len(truth)) if groups is None else groups
    sample = bootstrap.Sample(truth, groups, logp.shape[1], ordered, seed, resamples)
    return sample.evaluate(logp)


def calibration_error(p, right, bins=metrics.BINS):
    """Compute it in the plain way, with equally many reviews in each bin."""
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    return sum(abs(p[i].mean() - right[i].mean()) * len(i) for i in parts) / len(p)


def expected(truth, logp, ordered, weight=None):
    """Compute the metrics with scikit-learn and scipy."""
    predicted, p, options = logp.argmax(1), np.exp(logp), {"sample_weight": weight}
    labels = range(logp.shape[1])
    values = {
        "accuracy": sk.accuracy_score(truth, predicted, **options),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted, **options),
        "macro_f1": sk.f1_score(truth, predicted, average="macro", **options),
        "mcc": sk.matthews_corrcoef(truth, predicted, **options),
        "kappa": sk.cohen_kappa_score(truth, predicted, **options),
        "nll": sk.log_loss(truth, p, labels=labels, **options),
        "brier": sk.brier_score_loss(truth, p, labels=labels, scale_by_half=False, **options),
    }
    if ordered:
        values |= {
            "kappa_quadratic": sk.cohen_kappa_score(truth, predicted, weights="quadratic", **options),
            "mae": sk.mean_absolute_error(truth, predicted, **options),
        }
    return values


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_values_are_scikit_learns(seed, classes):
    truth, logp = problem(n=450, classes=classes, seed=seed, skill=seed / 5)
    for ordered in (True, False):
        found = score(truth, logp, ordered=ordered).values
        assert set(found) == set(metrics.of_task(ordered))
        assert found == pytest.approx({**found, **expected(truth, logp, ordered)}, abs=1e-12)
        right = logp.argmax(1) == truth
        sums = score(truth, logp, ordered=ordered).reliability
        plain = (sums[:, 0] * np.abs(sums[:, 1] - sums[:, 2])).sum() / sums[:, 0].sum()
        assert plain == pytest.approx(calibration_error(np.exp(logp.max(1)), right), abs=1e-12)
        assert found["ece"] <= plain + 1e-9
        if ordered:
            assert found["spearman"] == pytest.approx(spearmanr(truth, logp.argmax(1)).statistic, abs=1e-12)
    recall = score(truth, logp).recall
    assert recall == pytest.approx(sk.recall_score(truth, logp.argmax(1), average=None, labels=range(classes)))


@pytest.mark.parametrize("seed", range(3))
def test_draws_are_scores_of_resampled_texts(seed):
    """Compare each metric on the first resamples with scikit-learn, review by review."""
    rng = np.random.default_rng(seed)
    truth, logp = problem(n=300, classes=4, seed=seed)
    groups = rng.integers(0, 200, 300)
    found = bootstrap.Sample(truth, groups, 4, True, 5, 70).evaluate(logp)
    names, text = np.unique(groups, return_inverse=True)
    weight = 1 / np.bincount(text)[text]
    again = np.random.default_rng(5)
    for number in range(70):
        drawn = np.bincount(again.integers(0, len(names), len(names)), minlength=len(names))
        if number in (0, 1, 63, 64, 69):
            values = expected(truth, logp, True, weight * drawn[text])
            assert {n: found.draws[n][number] for n in values} == pytest.approx(values, abs=2e-5)


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_classes_that_never_occur(seed=3):
    truth, logp = problem(classes=4, seed=seed)
    truth[truth == 2] = 1
    logp[:, 3] = -50.0
    logp -= np.logaddexp.reduce(logp, axis=1)[:, None]
    found = score(truth, logp)
    assert found.values["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, logp.argmax(1)))
    assert found.values["macro_f1"] == pytest.approx(sk.f1_score(truth, logp.argmax(1), average="macro"))
    assert set(found.recalls("abcd")) == {"a", "b", "d"}


def test_one_label_everywhere_has_no_correlation():
    logp = np.log(np.tile([0.9, 0.1], (20, 1)))
    found = score(np.arange(20) % 2, logp)
    for name in ("kappa", "kappa_quadratic", "mcc", "spearman"):
        assert found.values[name] == 0 and not found.draws[name].any()


def test_no_probability_at_all_for_the_truth_is_a_finite_loss():
    truth, logp = np.array([0, 1, 1]), np.array([[0, -np.inf], [0, -np.inf], [-np.inf, 0]])
    found = score(truth, logp)
    assert found.values["nll"] == pytest.approx(sk.log_loss(truth, np.exp(logp)))
    assert all(np.isfinite(d).all() for d in found.draws.values())


def test_equal_confidences_fall_into_one_bin():
    """Otherwise the draw of bins would call the majority's answer uncalibrated, which is equally sure everywhere."""
    truth = (np.arange(300) % 3 == 0).astype(int)
    found = score(truth, np.log(np.tile([2 / 3, 1 / 3], (300, 1))))
    assert found.values["ece"] == pytest.approx(0, abs=1e-12)
    assert found.reliability == pytest.approx(np.array([[300, 2 / 3, 2 / 3]]))


def test_the_same_seed_gives_the_same_numbers_and_chunks_do_not_matter(monkeypatch):
    truth, logp = problem()
    first = score(truth, logp, seed=7).intervals()
    assert score(truth, logp, seed=7).intervals() == first
    assert score(truth, logp, seed=8).intervals() != first
    monkeypatch.setattr(bootstrap, "CHUNK", 13)
    again = score(truth, logp, seed=7).intervals()
    assert {n: list(v.values()) for n, v in again.items()} == {
        n: pytest.approx(list(v.values()), abs=1e-6) for n, v in first.items()
    }


def test_copies_of_a_text_are_no_new_evidence():
    truth, logp = problem()
    once = score(truth, logp, resamples=1000).intervals()["accuracy"]
    truth3, logp3 = np.repeat(truth, 3), np.repeat(logp, 3, axis=0)
    grouped = score(truth3, logp3, np.repeat(np.arange(400), 3), resamples=1000).intervals()["accuracy"]
    naive = score(truth3, logp3, resamples=1000).intervals()["accuracy"]
    assert grouped == pytest.approx(once)
    width = lambda s: s["high"] - s["low"]  # noqa: E731
    assert width(naive) == pytest.approx(width(once) / np.sqrt(3), rel=0.15)


def test_a_text_counts_once_in_every_metric():
    """Compare with scikit-learn's sample_weight: one over the number of reviews with the text."""
    rng = np.random.default_rng(4)
    truth, logp = problem(classes=3)
    times = rng.integers(1, 6, len(truth))
    truth, logp, groups = np.repeat(truth, times), np.repeat(logp, times, axis=0), np.repeat(np.arange(400), times)
    # Reviews of one text may differ in rating and prediction.
    logp = logp + rng.normal(scale=0.5, size=logp.shape)
    logp -= np.logaddexp.reduce(logp, axis=1)[:, None]
    values = expected(truth, logp, True, 1 / np.repeat(times, times))
    order = rng.permutation(len(truth))
    found = score(truth[order], logp[order], groups[order]).values
    assert found == pytest.approx({**found, **values}, abs=1e-12)


def test_parts_are_scored_as_if_alone():
    """Values equal those of the part's own reviews, and intervals are as wide as those of their resamples."""
    rng = np.random.default_rng(2)
    truth, logp = problem(n=600, classes=3)
    groups = rng.integers(0, 500, 600)
    half = rng.random(600) < 0.5  # cuts through texts: each counts once in the part, too
    sample = bootstrap.Sample(truth, groups, 3, True, 5, 100)
    whole, part = sample.evaluate_parts(logp, [np.ones(600, dtype=bool), half])
    alone = score(truth[half], logp[half], groups[half], seed=6, resamples=2000)
    everything = score(truth, logp, groups, seed=6, resamples=2000)
    for mine, theirs in ((part, alone), (whole, everything)):
        assert set(mine) == set(theirs.values) - {"ece"}
        for name, ends in mine.items():
            assert ends["value"] == pytest.approx(theirs.values[name], abs=1e-9)
            same = theirs.intervals()[name]
            assert ends["high"] - ends["low"] == pytest.approx(same["high"] - same["low"], rel=0.15)
            assert ends["low"] == pytest.approx(same["low"], abs=0.2 * (same["high"] - same["low"]))
    assert sample.evaluate_parts(logp, []) == []


def test_many_classes_take_another_product_and_little_memory(monkeypatch):
    """The sparse product gives the dense one's draws; the dense one took 2 GB for one candidate with 200 classes."""
    truth, logp = problem(n=500, classes=12)
    dense = score(truth, logp, np.arange(500) // 2)
    monkeypatch.setattr(bootstrap, "DENSE", 3)
    sparse = score(truth, logp, np.arange(500) // 2)
    for name, draws in dense.draws.items():
        assert sparse.draws[name] == pytest.approx(draws, abs=2e-5)
    tracemalloc.start()
    score(*problem(n=2000, classes=200), ordered=False, resamples=500)
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()


def test_slices_have_fifty_texts_and_are_never_of_the_answer():
    rows = 1000
    frame = pl.DataFrame({
        "review_id": range(rows), "group": [i // 2 for i in range(rows)], "rating": [i % 10 + 1 for i in range(rows)],
        "label_t": [i % 2 for i in range(rows)], "words": [i % 200 for i in range(rows)],
        "condition": ["Pain" if i < 700 else "Acne" if i < 950 else "Gout" if i < 990 else None for i in range(rows)],
        "year": [2008 + i % 3 for i in range(rows)], "exclamations": [0] * 900 + list(range(100)),
    })  # fmt: skip
    found = slices.slices(frame.with_columns(count=pl.lit("all")), "sentiment")
    assert [key for key in found if key[0] == "condition"] == [("condition", "Acne"), ("condition", "Pain")]
    assert [name for column, name in found if column == "year"] == ["2008", "2009", "2010"]
    assert {column for column, _ in found} == {"condition", "year", "words", "exclamations", "count"}
    quarters = [mask for (column, _), mask in found.items() if column == "words"]
    assert len(quarters) == 4 and sum(mask.sum() for mask in quarters) == rows
    of_conditions = {column for column, _ in slices.slices(frame, "condition")}
    assert "rating" in of_conditions and "condition" not in of_conditions
    assert found["words", "≤ 49.75"].to_list() == (frame["words"] < 50).to_list()


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Draw 1,000 samples of texts of one to three rows each; a large sample gives the true values."""
    rng = np.random.default_rng(5)

    def draw(texts):
        sizes = rng.integers(1, 4, texts)
        truth = rng.choice(3, texts, p=[0.5, 0.3, 0.2])
        logits = rng.normal(size=(texts, 3)) + 1.2 * np.eye(3)[truth]
        logp = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
        return np.repeat(truth, sizes), np.repeat(logp, sizes, axis=0), np.repeat(np.arange(texts), sizes)

    true = score(*draw(300_000), resamples=1).values
    covered = dict.fromkeys(["accuracy", "macro_f1", "kappa_quadratic", "nll", "brier"], 0)
    for seed in range(1000):
        found = score(*draw(300), seed=seed, resamples=400).intervals()
        for name in covered:
            covered[name] += found[name]["low"] <= true[name] <= found[name]["high"]
    assert {n: c for n, c in covered.items() if not 930 <= c <= 970} == {}, covered


def test_calibration_errors_are_compared_without_what_resampling_adds():
    """A calibrated classifier's error is pure chance, and resampling doubles its square: differences would shrink."""
    rng = np.random.default_rng(1)
    p = rng.uniform(0.5, 1, 2000)
    truth = (rng.random(2000) > p).astype(int)
    sharp = p**1.35 / (p**1.35 + (1 - p) ** 1.35)
    good, bad = (score(truth, np.log(np.stack([q, 1 - q], axis=1)), resamples=1000) for q in (p, sharp))
    for found in (good, bad):
        ends = found.intervals()["ece"]
        assert 0 <= ends["low"] <= found.values["ece"] < ends["high"]
    # It is as wide as over fresh samples.
    fresh = []
    for seed in range(200):
        again = np.random.default_rng(1000 + seed)
        labels = (again.random(2000) > p).astype(int)
        fresh.append(score(labels, np.log(np.stack([sharp, 1 - sharp], axis=1)), resamples=1).values["ece"])
    assert bad.draws["ece"].std() == pytest.approx(np.std(fresh), rel=0.25)


@pytest.mark.parametrize("power", [1.0, 1.35, 2.0])
def test_intervals_of_the_calibration_error_cover_it(power):
    """Draw 300 samples of 1,000: a calibrated model's plain error is 0.03, the truth 0; no interval around it held 0."""
    rng, covered, plain = np.random.default_rng(int(10 * power)), 0, []
    q = lambda p: p**power / (p**power + (1 - p) ** power)  # noqa: E731
    many = rng.uniform(0.5, 1, 1_000_000)
    true = np.abs(q(many) - many).mean()
    for _ in range(300):
        p = rng.uniform(0.5, 1, 1000)
        truth, said = (rng.random(1000) > p).astype(int), q(p)
        found = score(truth, np.log(np.stack([said, 1 - said], axis=1)), resamples=1)
        ends = found.intervals()["ece"]
        covered += ends["low"] <= true <= ends["high"]
        plain.append((found.reliability[:, 0] * np.abs(found.reliability[:, 1] - found.reliability[:, 2])).sum() / 1000)
    assert covered / 300 >= 0.93
    if power == 1:
        assert np.mean(plain) > 0.02


def test_paired_differences_cover_the_truth():
    """Draw 300 samples of two classifiers with accuracy .7 and .75, which are right on mostly the same reviews."""
    rng = np.random.default_rng(9)
    covered = 0
    for seed in range(300):
        draw = rng.random(300)
        sample = bootstrap.Sample(np.zeros(300, dtype=int), np.arange(300), 2, False, seed, 400)
        a, b = (
            sample.evaluate(np.log(np.where(draw[:, None] < accuracy, [0.9, 0.1], [0.1, 0.9])))
            for accuracy in (0.7, 0.75)
        )
        low, high = np.quantile(b.draws["accuracy"] - a.draws["accuracy"], [0.025, 0.975])
        covered += low <= 0.05 <= high
        assert high - low < 0.08  # two intervals apart would make 0.14
    assert 0.92 <= covered / 300 <= 0.98


def test_several_at_once_and_without_resamples_are_the_same():
    """One product equals candidates one by one; intervals without resamples are close to those of 2,000."""
    rng = np.random.default_rng(3)
    truth, groups = rng.integers(0, 4, 900), np.unique(rng.integers(0, 600, 900), return_inverse=True)[1]
    logps = [np.log(rng.dirichlet(np.ones(4), 900) * 0.4 + 0.6 * np.eye(4)[truth] * p + 1e-3) for p in (0.3, 0.6)]
    sample = bootstrap.Sample(truth, groups, 4, True, 5, 2000)
    alone, together = [sample.evaluate(logp) for logp in logps], sample.evaluate_all(logps)
    quick = bootstrap.Sample(truth, groups, 4, True, 5, 0)
    for one, other, logp in zip(alone, together, logps, strict=True):
        for name, draws in one.draws.items():
            assert other.draws[name] == pytest.approx(draws, rel=1e-5, abs=1e-6)
        assert one.values == other.values
        slow, fast = one.intervals(), quick.evaluate(logp).intervals()
        assert list(slow) == list(fast)
        for name, ends in slow.items():
            width = ends["high"] - ends["low"]
            assert fast[name]["value"] == ends["value"]
            assert fast[name]["low"] == pytest.approx(ends["low"], abs=0.08 * width), name
            assert fast[name]["high"] == pytest.approx(ends["high"], abs=0.08 * width), name
