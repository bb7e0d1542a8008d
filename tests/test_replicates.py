"""Test replicates: the runs with their names, members and seeds, and the statements about several runs of a candidate."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

from mllm.evaluation import comparison, leaderboard, metrics, run_table, selection, verdict
from mllm.evaluation import replicates as several
from mllm.experiment import grid, load
from mllm.experiment import replicates as grid_names
from mllm.experiment.yaml_files import ExperimentError
from test_compare import TRUTH, Classifiers
from test_config import DEMO

MERGES = [
    {"method": "linear", "members": ["pain", "acne"], "weight": {"pain": 1.0, "acne": 2.0}},
    {"method": "slerp", "members": ["pain", "acne"], "t": 0.3},
    {"method": "dare_ties", "members": ["pain", "acne"], "density": 0.9, "seed": [0, 1]},
    {"method": "ties", "members": ["pain", "acne"], "density": 0.5},
]


def built(**changes):
    raw = copy.deepcopy(DEMO)
    raw["merges"] = MERGES
    raw["blends"] = [{"name": "vote", "method": "soft_vote", "members": ["pain", "acne"]}, {"name": "over", "method": "soft_vote", "members": ["linear-*", "tfidf"]}]  # fmt: skip
    for key, value in changes.items():
        entries = {e["name"]: e for e in raw["experts"] + raw["references"]}
        if key in entries:
            entries[key].update(value)
        else:
            raw[key] = value
    return grid.build(load.parse(raw)).candidates


def named(candidates, start):
    return next(name for name in candidates if name.startswith(start) and "@" not in name)


def test_the_first_replicate_is_what_an_experiment_without_has():
    plain, three = built(), built(replicates=3)
    again = {name: run for name, run in three.items() if run.replicate == 1}
    for name, run in plain.items():
        other = again[name]
        assert (run.label(), run.hyper, run.part, run.recipe) == (other.label(), other.hyper, other.part, other.recipe)
    assert list(plain) == list(three)[: len(plain)] == list(again)


def test_every_training_merge_and_blend_is_there_once_per_replicate():
    runs = built(replicates=3)
    once = {name for name, run in built().items() if run.made_by in ("prepare_base", "fit_baseline")}
    assert len(runs) == 3 * (len(built()) - len(once)) + len(once)
    third = runs["pain@3"]
    assert (third.candidate, third.replicate, third.part) == ("pain", 3, runs["pain"].part)
    seeds = [runs[name].hyper["seed"] for name in ("pain", "pain@2", "pain@3")]
    assert len(set(seeds)) == 3
    merged = runs[f"{named(runs, 'ties')}@2"]
    assert merged.members == ("acne@2", "pain@2") and merged.recipe.base == "base-sentiment"
    assert merged.candidate == named(runs, "ties") and merged.folder == f"merges/{merged.name}/model"
    assert runs["over@2"].members == (f"{named(runs, 'linear')}@2", "tfidf")


def test_members_keep_their_order_and_their_weights():
    runs = built(replicates=2)
    linear = runs[f"{named(runs, 'linear')}@2"].recipe
    assert linear.parameters["weight"] == {"pain@2": 1.0, "acne@2": 2.0} and linear.members == ("acne@2", "pain@2")
    slerp = runs[f"{named(runs, 'slerp')}@2"].recipe
    assert slerp.members == ("pain@2", "acne@2") and slerp.base == "pain@2"


def test_seeds_of_a_random_merge_are_runs_of_one_candidate_nested_in_replicates():
    runs = {name: run for name, run in built(replicates=2).items() if run.method == "dare_ties"}
    assert len(runs) == 4 and {run.candidate for run in runs.values()} == {named(runs, "dare_ties-density0.9-seed0")}
    seeds = [(run.replicate, run.recipe.parameters["seed"]) for run in runs.values()]
    assert seeds == [(1, 0), (1, 1), (2, grid_names.STEP), (2, grid_names.STEP + 1)]


def test_replicates_of_single_entries():
    runs = built(pain={"replicates": 3})
    assert {name for name in runs if "@" in name} >= {"pain@2", "pain@3"} and "acne@2" not in runs
    three = runs[f"{named(runs, 'linear')}@3"]
    assert three.members == ("acne", "pain@3")  # a candidate that exists once takes part in all runs
    fewer = built(replicates=3, acne={"replicates": 2})
    assert f"{named(fewer, 'linear')}@2" in fewer and f"{named(fewer, 'linear')}@3" not in fewer


def test_replicates_are_of_trainings():
    for bad in (0, -1, 1.5, True):
        with pytest.raises(ExperimentError, match="replicates"):
            built(replicates=bad)
    with pytest.raises(ExperimentError, match=r"references\[\d\].replicates"):
        built(tfidf={"replicates": 2})


# ── Numbers over runs ──


def test_the_tail_is_the_convolution_of_a_normal_and_students_distribution():
    """Compare with scipy's Student's t alone, the normal alone, and numerical convolution."""
    for runs, distance in itertools.product((2, 3, 6), (-1.0, 0.3, 2.0, 40.0)):
        assert several.tail(distance, 0.0, 1.0, runs) == pytest.approx(stats.t.sf(distance, runs - 1), rel=1e-6)
        assert several.tail(distance, 4.0, 0.0, runs) == pytest.approx(stats.norm.sf(distance / 2))
        where = np.linspace(-12, 12, 20_001)
        folded = np.trapezoid(stats.norm.pdf(where) * stats.t.sf((distance - 0.7 * where) / 0.4, runs - 1), where)
        assert several.tail(distance, 0.49, 0.16, runs) == pytest.approx(folded, rel=1e-5)


def test_variances_are_those_of_a_crossed_analysis_of_variance():
    """Solve the expectations of the textbook mean squares of texts x runs for the variance of the grand mean."""
    rng = np.random.default_rng(1)
    runs, texts = 4, 300
    table = rng.normal(size=(runs, 1)) * 0.3 + rng.normal(size=texts) + rng.normal(size=(runs, texts)) * 0.8
    found = several.spread(table.mean(axis=1), np.cov(table) / texts)
    grand = table.mean()
    ms_texts = runs * ((table.mean(axis=0) - grand) ** 2).sum() / (texts - 1)
    ms_runs = texts * ((table.mean(axis=1) - grand) ** 2).sum() / (runs - 1)
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + grand
    ms_rest = (rest**2).sum() / ((texts - 1) * (runs - 1))
    assert found.value == pytest.approx(grand)
    assert found.texts + found.training == pytest.approx((ms_texts + ms_runs - ms_rest) / (texts * runs))
    assert found.training == pytest.approx(ms_runs / (texts * runs))
    assert found.deviation == pytest.approx(table.mean(axis=1).std(ddof=1))


def test_runs_that_happen_to_agree_prove_nothing():
    """On 400 texts two runs are equal in 2 of 100 experiments: without half a step more, the p-value was below 1e-4."""
    agree = several.spread([0.03, 0.03], np.eye(2) * 0.03**2, reach=1 / 400)
    assert agree.deviation == 0 and agree.above(0.0) > 0.005
    assert several.spread([0.03, 0.03], np.eye(2) * 0.03**2).training == 0  # losses do not move in steps


def test_with_one_run_there_is_no_variance_over_trainings():
    found = several.spread([0.5], np.array([[0.01]]))
    assert (found.runs, found.training, found.deviation) == (1, 0.0, None)
    assert found.half() == pytest.approx(1.959964 * 0.1)
    assert found.detectable(0.05) == pytest.approx(0.1 * (1.959964 + 0.841621), rel=1e-5)


@pytest.mark.parametrize("runs", [2, 3, 5])
@pytest.mark.parametrize("trained", [0.0, 1.0, 4.0, 25.0])
def test_intervals_cover_and_tests_keep_their_level(runs, trained):
    """Integrate numerically over the runs' χ² variable: training's variance is ``trained`` times that of the texts."""
    at = (np.arange(300) + 0.5) / 300
    quantiles, weights = (
        stats.chi2.ppf(at**4, runs - 1) / (runs - 1),
        4 * at**3 / 300,
    )  # finer where the variable is small
    for interaction in (0.02, 0.3):
        spreads = [several.Spread(0.0, 1 - interaction, (trained + interaction) * q, runs, None) for q in quantiles]
        total = np.sqrt(1 + trained)
        covered = weights @ [2 * stats.norm.cdf(s.half() / total) - 1 for s in spreads]
        assert 0.938 < covered < (0.979 if runs == 2 else 0.972)
        edge = [s.detectable(0.005) - 0.841621 * np.sqrt(s.texts + s.training) for s in spreads[::10]]
        assert 10 * weights[::10] @ (2 * stats.norm.sf(np.array(edge) / total)) < 0.0055


def test_intervals_of_runs_follow_from_their_own():
    values, half = np.array([0.6, 0.62, 0.58]), 0.03
    alone, low, high = several.interval(values[:1], values[:1] - half, values[:1] + 2 * half)
    assert (low, high) == (pytest.approx(0.57), pytest.approx(0.66)) and alone.deviation is None
    found, low, high = several.interval(values, values - half, values + half)
    assert found.value == pytest.approx(0.6) and found.deviation == pytest.approx(0.02)
    assert found.training == pytest.approx(0.02**2 / 3) and high - 0.6 > half
    less = several.interval(values, values - half, values + half, np.eye(3) * 1e-4)
    assert less[2] - less[1] < high - low  # the part of a text's luck that runs do not share is averaged


def test_repetitions_are_replicates_and_seeds_are_nested_in_them():
    def table(*rows):
        return pl.DataFrame(rows, schema=["candidate", "run", "replicate"], orient="row")

    found = several.repetitions(
        table(("a", "a", 1), ("a", "a-1", 1), ("b", "b", 1), ("a", "a@2", 2), ("a", "a-1@2", 2))
    )
    assert found == {"a": [["a", "a-1"], ["a@2", "a-1@2"]], "b": [["b"]]}
    assert several.repetitions(table(("a", "a", 1), ("a", "a-1", 1))) == {"a": [["a"], ["a-1"]]}
    assert several.paired(found["a"], found["b"]) == [(["a", "a-1"], ["b"]), (["a@2", "a-1@2"], ["b"])]
    assert len(several.paired([["x"], ["y"], ["z"]], [["u"], ["v"]])) == 2


def test_noise_of_trainings_is_joint():
    """The difference of two candidates that move together does not move."""
    values = [np.array([0.1, 0.3, 0.2]), np.array([0.2, 0.4, 0.3]), np.array([0.5])]
    noise = several.training_noise(values, 40_000)
    assert np.allclose(noise[0], noise[1]) and not noise[2].any()
    edges = np.quantile(noise[0], [0.05, 0.95])
    assert edges == pytest.approx(np.array([-1, 1]) * stats.t.ppf(0.95, 2) * 0.1 / np.sqrt(3), rel=0.05)


# ── Tables over runs ──


@pytest.fixture(scope="module")
def two_methods():
    """Make three trainings of a merge, an expert and a random merge of two seeds, and a reference that exists once."""
    skills = {
        "good": (0.62, 0.72, 0.66),
        "expert": (0.55, 0.65, 0.60),
        "s0": (0.5, 0.6, 0.55),
        "s1": (0.52, 0.62, 0.57),
    }
    runs = {grid_names.run_name(name, i + 1): skill for name, of in skills.items() for i, skill in enumerate(of)}
    pairs = Classifiers(runs | {"large": 0.64})
    kinds = {"expert": ("expert", ""), "large": ("reference", "fine_tuned"), "good": ("merge", "ties")}
    files = []
    for run in [*runs, "large"]:
        name, replicate = grid_names.parsed(run)
        kind, method = kinds.get(name, ("merge", "dare_ties"))
        scores, cost = pairs.file(run, kind, method=method, cost={"n_parameters": 9000 if name == "large" else 1000})
        of = "s0" if name == "s1" else name
        files.append((replace(scores, candidate=of, run=None if run == of else run, replicate=replicate), cost))
    pairs.averaged = {"good": ["good", "good@2", "good@3"], "expert": ["expert", "expert@2", "expert@3"],
                      "s0": [r for r in runs if r.startswith("s")]}  # fmt: skip
    table = run_table.table(files)
    frame = leaderboard.ranked(leaderboard.table(files, "macro_f1", {"t": pairs}), {"t": pairs}, "macro_f1", table)
    return pairs, files, table, frame


def test_the_leaderboard_has_one_row_per_candidate_with_mean_and_spread(two_methods):
    pairs, files, table, frame = two_methods
    assert sorted(frame["candidate"]) == ["expert", "good", "large", "s0"] and table.height == 13
    rows = {row["candidate"]: row for row in frame.to_dicts()}
    value = {run: pairs.found[run].values["macro_f1"] for run in pairs.found}
    good = [value[run] for run in ("good", "good@2", "good@3")]
    assert rows["good"]["test_macro_f1"] == pytest.approx(np.mean(good))
    assert rows["good"]["test_macro_f1_sd"] == pytest.approx(np.std(good, ddof=1))
    assert (rows["good"]["runs"], rows["good"]["replicates"], rows["good"]["best_run"]) == (3, 3, "good@2")
    nested = [np.mean([value[f"s0{at}"], value[f"s1{at}"]]) for at in ("", "@2", "@3")]
    assert rows["s0"]["test_macro_f1_sd"] == pytest.approx(np.std(nested, ddof=1))
    assert (rows["s0"]["runs"], rows["s0"]["replicates"]) == (6, 3)
    assert rows["large"]["test_macro_f1_sd"] is None and rows["large"]["best_run"] == "large"
    wide = rows["good"]["test_macro_f1_high"] - rows["good"]["test_macro_f1_low"]
    assert wide > 2 * (rows["large"]["test_macro_f1_high"] - rows["large"]["test_macro_f1_low"])
    narrow = leaderboard.ranked(leaderboard.table(files, "macro_f1", {"t": pairs}), {"t": pairs}, "macro_f1")
    assert (frame["rank_high"] - frame["rank_low"]).sum() > (narrow["rank_high"] - narrow["rank_low"]).sum()


def test_comparisons_pair_replicates(two_methods):
    pairs, _, table, frame = two_methods
    truth = {"t": (TRUTH, np.arange(len(TRUTH)))}
    for metric in ("macro_f1", "accuracy", "nll"):
        compared = comparison.compare(frame, table, {"t": pairs}, truth, metric, 0.01)
        rows = {(r["candidate"], r["against"]): r for r in compared.to_dicts()}
        row, sign = rows["good", "expert"], metrics.sign(metric)
        value = {run: sign * pairs.found[run].values[metric] for run in pairs.found}
        gaps = np.array([value[f"good{at}"] - value[f"expert{at}"] for at in ("", "@2", "@3")])
        assert row["runs"] == 3 and row["difference"] == pytest.approx(gaps.mean())
        assert row["deviation"] == pytest.approx(gaps.std(ddof=1), rel=1e-4)
        assert row["low"] < row["difference"] < row["high"] and row["detectable"] > 0
        once = np.array([value[f"good{at}"] - value["large"] for at in ("", "@2", "@3")])
        assert rows["good", "large"]["difference"] == pytest.approx(once.mean())
        # In pairs, the trainings' common ups and downs cancel; against a candidate that exists once they do not.
        assert row["deviation"] < rows["good", "large"]["deviation"]
        # A t-test of the pairs alone errs on the same side, and by less than the texts add.
        if metric == "nll":
            assert row["p"] >= 0.5 * stats.ttest_1samp(gaps, 0).pvalue


def test_the_verdict_is_about_the_recipe_and_names_what_was_trained_once(two_methods):
    pairs, _, table, frame = two_methods
    truth = {"t": (TRUTH, np.arange(len(TRUTH)))}
    compared = comparison.compare(frame, table, {"t": pairs}, truth, "macro_f1", 0.01)
    chosen = selection.selection(frame, {"t": pairs}, "macro_f1")
    facts = verdict.Facts(name="x", margin=0.01, counts={"t": {"test": {"reviews": 600, "texts": 600}}})
    said = verdict.text(facts, frame, compared, chosen)
    row = compared.row(by_predicate=(pl.col("candidate") == "good") & (pl.col("against") == "expert"), named=True)
    assert "Claims are about the recipe: everything beneath it was trained 3 times with other seeds" in said
    assert "Trained once, so that claims against it are about this very model: large." in said
    assert f"Over 3 pairs of runs the difference has a standard deviation of {row['deviation']:.3f}." in said
    assert "these trained experts" not in said and "mean of 3 runs with a standard deviation of" in said
