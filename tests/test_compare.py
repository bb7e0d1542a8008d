"""Test the leaderboard and the comparisons: winners, pairs, corrections, ranks, cost, and their texts."""

import itertools
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import yaml

from conftest import ROOT
from mllm.evaluation import (
    agreement,
    bootstrap,
    comparison,
    comparison_table,
    intervals,
    leaderboard,
    leaderboard_text,
    metrics,
    rivals,
    run_table,
    selection,
    significance,
    verdict,
)
from mllm.evaluation.comparison_table import SCHEMA
from mllm.evaluation.score_files import Scores
from mllm.experiment import grid, load, schema
from mllm.prediction.costs import Cost
from mllm.prediction.prediction_tables import COST
from mllm.reporting import model_card
from test_config import DEMO

TRUTH = np.arange(600) % 3


def score_file(name, kind, value, **more):
    flat = {m: {"value": value, "low": value - 0.1, "high": value + 0.1} for m in metrics.METRICS}
    cost = {"n_parameters": 1000, "device": "cpu", "train_seconds": more.pop("train_seconds", 0.0)} | more.pop(
        "cost", {}
    )
    scores = Scores(
        candidate=name, kind=kind, method=more.pop("method", ""), task=more.pop("task", "t"),
        members=more.pop("members", []), parameters=more, scores={"valid": flat, "test": flat},
        calibrated={"valid": flat, "test": flat}, tuned={"valid": flat, "test": flat}, offsets={}, priors={}, recall={}, confusion={}, reliability={}, counts={}, slices=[],
    )  # fmt: skip
    return scores, Cost(reviews=1, **cost)


class Classifiers:
    """Make draws and labels of classifiers of known skill on the same texts, with the scorer itself."""

    def __init__(self, skills, seed=1):
        rng = np.random.default_rng(seed)
        shared = rng.random(len(TRUTH))
        sample = bootstrap.Sample(TRUTH, np.arange(len(TRUTH)), 3, True, 1, 500)
        self.found, self._labels, self.averaged = {}, {}, {}
        self.metrics = {name: i for i, name in enumerate(sample.metrics)}
        for name, skill in skills.items():
            luck = 0.8 * shared + 0.2 * rng.random(len(TRUTH))
            predicted = np.where(luck < skill, TRUTH, (TRUTH + 1) % 3)
            logp = np.log(np.full((len(TRUTH), 3), 0.1) + 0.7 * np.eye(3)[predicted])
            self.found[name], self._labels[name] = sample.evaluate(logp), predicted

    def draws(self, candidates, metric, split="test", kind="raw"):
        runs = [self.averaged.get(c, [c]) for c in candidates]
        return np.stack([self.draws_of_runs(names, metric).mean(axis=0) for names in runs])

    def labels(self, candidates):
        return np.stack([self._labels[c] for c in candidates])

    def draws_of_runs(self, runs, metric, split="test", kind="raw"):
        return np.stack([self.found[run].draws[metric] for run in runs])

    def left_out(self, candidates, metric):
        return self.draws(candidates, metric)[:, :200]

    def tuned(self, candidates, metric):
        return self.labels(candidates)

    def constant(self, metric):
        logp = np.log(np.tile([0.4, 0.3, 0.3], (len(TRUTH), 1)))
        found = bootstrap.Sample(TRUTH, np.arange(len(TRUTH)), 3, True, 1, 500).evaluate(logp)
        return np.append(found.values[metric], found.draws[metric])

    def file(self, name, kind, **more):
        scores, cost = score_file(name, kind, 0, **more)
        values = dict.fromkeys(("valid", "test"), self.found[name].intervals())
        return replace(scores, scores=values, calibrated=values, tuned=values), cost


SKILLS = {
    "base": 0.3,
    "weak": 0.5,
    "strong": 0.6,
    "m1": 0.61,
    "m2": 0.7,
    "m3": 0.4,
    "vote": 0.65,
    "large": 0.7,
    "copy": 0.7,
}
KINDS = {
    "base": "base",
    "weak": "expert",
    "strong": "expert",
    "vote": "blend",
    "large": "reference",
    "copy": "reference",
}


def compare(files, frame, pairs, metric="accuracy"):
    truth = {"t": (TRUTH, np.arange(len(TRUTH)))}
    return comparison.compare(frame, run_table.table(files), {"t": pairs}, truth, metric, 0.01)


@pytest.fixture(scope="module")
def world():
    pairs = Classifiers(SKILLS)
    pairs.found["copy"], pairs._labels["copy"] = pairs.found["m2"], pairs._labels["m2"]
    methods = {"m1": "ties", "m2": "ties", "m3": "linear"}
    files = [
        pairs.file(n, KINDS.get(n, "merge"), method=methods.get(n, ""), members=["weak", "strong"] if n in ("m1", "m2", "m3", "vote") else [],
                   cost={"n_parameters": {"vote": 2000, "large": 12_000}.get(n, 1000)})
        for n in SKILLS
    ]  # fmt: skip
    frame = leaderboard.ranked(leaderboard.table(files, "accuracy"), {"t": pairs}, "accuracy")
    compared = compare(files, frame, pairs)
    return pairs, files, frame, compared


# ── The leaderboard ──


def test_columns_order_and_winners():
    files = [
        score_file("base", "base", 0.1),
        score_file("m1", "merge", 0.5, method="ties", density=0.5),
        score_file("m2", "merge", 0.6, method="ties", density=0.9),
        score_file("m3", "merge", 0.4, method="linear", weight={"a": 1.0}),
        score_file("e", "expert", 0.7),
    ]
    frame = leaderboard.table(files, "macro_f1")
    assert frame["candidate"].to_list() == ["e", "m2", "m1", "m3", "base"]
    assert frame.columns[:4] == ["candidate", "kind", "method", "task"]
    ends = [f"{s}_{k}{m}{e}" for s in ("valid", "test") for k in ("", "calibrated_", "tuned_") for m in (metrics.OF_CONFUSION if k == "tuned_" else metrics.METRICS) for e in ("", "_low", "_high")]  # fmt: skip
    assert {"density", "weight", *ends, *COST} <= set(frame.columns)
    assert frame.filter(pl.col("winner"))["candidate"].to_list() == ["m2", "m3"]
    by_loss = leaderboard.table(files, "nll")
    assert by_loss["candidate"].to_list() == ["base", "m3", "m1", "m2", "e"]
    assert set(by_loss.filter(pl.col("winner"))["candidate"]) == {"m1", "m3"}
    assert "m2" in leaderboard_text.text(frame, "macro_f1", "title")


def test_a_winner_is_chosen_on_validation_alone():
    good_on_test, good_on_valid = (
        score_file("a", "merge", 0.9, method="ties"),
        score_file("b", "merge", 0.5, method="ties"),
    )
    good_on_test[0].scores["valid"] = score_file("", "", 0.1)[0].scores["valid"]
    frame = leaderboard.table([good_on_test, good_on_valid], "accuracy")
    assert frame.filter(pl.col("winner"))["candidate"].to_list() == ["b"]
    assert frame["candidate"].to_list() == ["b", "a"]


def test_tasks_have_winners_rivals_and_tables_of_their_own():
    files = [
        score_file(f"{kind}-{task}", kind, value, method="ties" if kind == "merge" else "", task=task)
        for task, value in (("mood", 0.3), ("ill", 0.8))
        for kind in ("expert", "merge", "reference")
    ]
    frame = leaderboard.table(files, "macro_f1")
    assert frame.filter(pl.col("winner"))["candidate"].to_list() == ["merge-mood", "merge-ill"]
    assert frame["task"].to_list() == ["mood"] * 3 + ["ill"] * 3
    pairs = [(a["candidate"], b["candidate"], claim) for a, b, claim in rivals.rivals(frame)]
    assert pairs == [(f"merge-{t}", f"{k}-{t}", True) for t in ("mood", "ill") for k in ("expert", "reference")]
    text = leaderboard_text.text(frame, "macro_f1", "both")
    assert "both: 3 candidates, task mood" in text and "both: 3 candidates, task ill" in text


def test_training_is_counted_once_however_often_an_expert_is_used():
    files = [
        score_file("a", "expert", 0.1, train_seconds=10.0),
        score_file("b", "expert", 0.1, train_seconds=5.0),
        score_file("m", "merge", 0.1, method="linear", members=["a", "b"]),
        score_file("v", "blend", 0.1, members=["a", "m"]),
        score_file("unknown", "expert", 0.1, train_seconds=None),
        score_file("w", "blend", 0.1, members=["a", "unknown"]),
    ]
    seconds = dict(leaderboard.table(files, "accuracy").select("candidate", "train_seconds").rows())
    assert seconds == {"a": 10, "b": 5, "m": 15, "v": 15, "unknown": None, "w": None}


def test_nobody_on_the_front_is_beaten_and_everyone_else_is(world):
    _, _, frame, _ = world
    rows = frame.to_dicts()
    for row in rows:
        beaten = any(
            o["test_accuracy"] >= row["test_accuracy"] and o["n_parameters"] <= row["n_parameters"]
            and (o["test_accuracy"] > row["test_accuracy"] or o["n_parameters"] < row["n_parameters"])
            for o in rows
        )  # fmt: skip
        assert row["pareto"] == (not beaten), row["candidate"]
    assert frame.filter(pl.col("pareto"))["candidate"].to_list()


def test_without_costs_there_is_no_front(world):
    pairs, files, _, _ = world
    bare = [(scores, replace(cost, n_parameters=None)) for scores, cost in files]
    assert leaderboard.ranked(leaderboard.table(bare, "accuracy"), {"t": pairs}, "accuracy")[
        "pareto"
    ].null_count() == len(files)


def test_relative_gain(world):
    pairs, _, frame, _ = world
    value = {n: e.values["accuracy"] for n, e in pairs.found.items()} | {"constant": 1 / 3}
    for row in frame.iter_rows(named=True):
        if row["kind"] == "merge":
            expected = (value[row["candidate"]] - value["constant"]) / (value["strong"] - value["constant"])
            assert row["relative_gain"] == pytest.approx(expected)
            assert row["relative_gain_low"] < row["relative_gain"] < row["relative_gain_high"]
        else:
            assert row["relative_gain"] is None


def test_relative_gain_says_nothing_where_the_expert_does_not_lead():
    part = pl.DataFrame({"kind": ["merge", "expert"], "whole": [None, None]})
    values, constant = np.array([0.8, 0.61]), 0.6 + np.random.default_rng(1).normal(scale=0.02, size=501)
    constant[0] = 0.6
    draws = values[:, None] + np.random.default_rng(0).normal(scale=0.02, size=(2, 500))

    def gain(draws, metric="accuracy"):
        return leaderboard.relative_gain(part, draws, values, constant, metric)["relative_gain"]

    assert gain(draws) == [None, None]
    ahead, behind = draws + np.array([[0], [0.2]]), draws - np.array([[0], [0.2]])
    assert gain(ahead)[0] == gain(behind, "nll")[0] == pytest.approx(20)
    assert gain(behind) == gain(ahead, "nll") == [None, None]  # certainly behind is no lead either


def test_ranks(world):
    _, _, frame, _ = world
    rank = dict(frame.select("candidate", "rank").rows())
    assert rank["m2"] == rank["copy"] and rank["base"] == len(SKILLS)
    assert ((frame["rank_low"] <= frame["rank"]) & (frame["rank"] <= frame["rank_high"])).all()


# ── Comparisons ──


def test_claims_are_each_methods_winner_against_the_best_expert_the_best_blend_and_all_references(world):
    _, _, _, compared = world
    claims = compared.filter("claim")
    assert set(claims.select("candidate", "against").rows()) == set(
        itertools.product(["m2", "m3"], ["strong", "vote", "large", "copy"])
    )
    assert compared.columns == list(SCHEMA)
    assert compared["claim"].to_list() == sorted(compared["claim"].to_list(), reverse=True)
    # The rest is exploration: other points, blends, the base.
    rest = set(compared.filter(~pl.col("claim")).select("candidate", "against").rows())
    assert {("m1", "strong"), ("m2", "base"), ("vote", "strong")} <= rest
    assert not any(a == b for a, b in rest)


def test_numbers_of_a_comparison(world):
    pairs, _, _, compared = world
    for row in compared.iter_rows(named=True):
        a, b = (pairs.found[row[k]] for k in ("candidate", "against"))
        assert row["difference"] == pytest.approx(a.values["accuracy"] - b.values["accuracy"])
        right = [pairs._labels[row[k]] == TRUTH for k in ("candidate", "against")]
        counts = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        assert (row["low"], row["high"]) == pytest.approx(intervals.tango_interval(*counts, len(TRUTH)))
        assert (row["only_candidate_right"], row["only_other_right"]) == counts
        assert row["accuracy_difference"] == pytest.approx(row["difference"])
        assert row["support"] == 200
        assert row["cost_ratio"] == pytest.approx({"vote": 0.5, "large": 1 / 12}.get(row["against"], 1) * (2 if row["candidate"] == "vote" else 1))  # fmt: skip


def test_the_primary_claim_is_the_chosen_merge_against_what_is_larger_and_is_tested_alone(world):
    _, _, frame, compared = world
    (row,) = compared.filter(pl.col("family") == "primary").to_dicts()
    assert (row["candidate"], row["against"]) == (frame.filter("winner")["candidate"][0], "large")
    assert row["p_holm"] == pytest.approx(row["p"]) and row["holds"] == row["verdict"]
    assert row["detectable_holm"] == pytest.approx(row["detectable"])


def test_corrections_are_within_families_and_over_the_table(world):
    _, _, _, compared = world
    rest = compared.filter(pl.col("family") == "secondary")
    assert rest.height == 7
    assert (rest["p_holm"] >= rest["p"] - 1e-12).all() and (rest["detectable_holm"] > rest["detectable"]).all()
    assert compared.filter(~pl.col("claim"))["p_holm"].null_count() == compared.filter(~pl.col("claim")).height
    assert compared["p_bh"].to_list() == pytest.approx(list(significance.benjamini_hochberg(compared["p"].to_numpy())))


def test_smaller_is_better_turns_differences_round(world):
    pairs, files, _, _ = world
    frame = leaderboard.table(files, "nll")
    compared = compare(files, frame, pairs, "nll")
    (row,) = compared.filter((pl.col("candidate") == "m2") & (pl.col("against") == "base")).to_dicts()
    assert pairs.found["m2"].values["nll"] < pairs.found["base"].values["nll"]
    assert row["difference"] > 0 and row["verdict"] == "better"


def test_an_identical_candidate_is_no_worse_only_where_the_texts_can_show_it(world):
    """If they differ on no text, 600 texts rule out a loss of z² / (600 + z²) = 0.0064, and no smaller one."""
    _, _, _, compared = world
    (row,) = compared.filter((pl.col("candidate") == "m2") & (pl.col("against") == "copy")).to_dicts()
    assert row["difference"] == 0 and row["p"] == 1 and row["p_mcnemar"] == 1
    assert -row["low"] == pytest.approx(intervals.Z**2 / (600 + intervals.Z**2)) == row["high"]
    assert row["verdict"] == "no worse"


# ── The choice ──


def test_selection_says_what_choosing_adds(world):
    pairs, _, frame, _ = world
    rows = {r["method"]: r for r in selection.selection(frame, {"t": pairs}, "accuracy").to_dicts()}
    assert set(rows) == {"ties", "linear", "all"}
    assert (rows["ties"]["points"], rows["ties"]["winner"]) == (2, "m2")
    assert rows["linear"]["expected_optimism"] == 0 and rows["ties"]["expected_optimism"] > 0
    assert rows["all"]["expected_optimism"] > rows["ties"]["expected_optimism"]
    for row in rows.values():
        assert row["optimism"] == pytest.approx(row["valid"] - row["test"])
        assert row["expected_optimism"] <= row["expected_optimism_independent"] + 1e-3
        assert row["runs"] == 1 and row["run_deviation"] is None


# ── Relations and words ──


def test_agreement_is_of_every_two(world):
    pairs, _, _, _ = world
    table = agreement.agreement({"t": ["base", "weak", "strong"]}, {"t": pairs}, {"t": (TRUTH, np.arange(len(TRUTH)))})
    assert table.columns == list(agreement.AGREEMENT) and table.height == 3
    (row,) = table.filter((pl.col("first") == "weak") & (pl.col("second") == "strong")).to_dicts()
    assert row["agreement"] == pytest.approx(np.mean(pairs._labels["weak"] == pairs._labels["strong"]))


def test_parts_are_normalised_by_their_own_experts():
    def file(name, kind, values, members=()):
        slices = [
            {"column": c, "slice": s, "reviews": 60, "scores": {"accuracy": {"value": v, "low": v, "high": v}}}
            for (c, s), v in values.items()
        ]
        return replace(score_file(name, kind, 0, members=list(members))[0], slices=slices)

    pain, acne, year = ("condition", "Pain"), ("condition", "Acne"), ("year", "2010")
    files = [
        file("base", "base", {pain: 0.3, acne: 0.2, year: 0.5}),
        file("p", "expert", {pain: 0.8, acne: 0.4}),
        file("shard-0", "expert", {pain: 0.6, acne: 0.6}),
        file("m", "merge", {pain: 0.7, acne: 0.5}, ["p", "shard-0"]),
        file("a", "expert", {pain: 0.1, acne: 0.1}),
        file("n", "merge", {}, ["p", "a"]),
        file("v", "blend", {pain: 0.7}, ["n", "p"]),
    ]
    shown = ["base", "p", "shard-0", "m", "v"]
    table = agreement.by_part(files, shown, {"condition": {"p": ["Pain"], "a": ["Acne"]}}, "accuracy")
    assert set(table["candidate"]) == set(shown)
    assert table.filter(pl.col("candidate") == "v")["trained_on"].to_list() == ["Acne, Pain"]
    assert table.columns == list(agreement.PARTS) and set(table["part"]) == {"Pain", "Acne"}
    rows = {(r["candidate"], r["part"]): r for r in table.to_dicts()}
    assert rows["m", "Pain"]["normalised"] == pytest.approx((0.7 - 0.3) / (0.8 - 0.3))
    assert rows["p", "Pain"]["normalised"] == 1 and rows["base", "Pain"]["normalised"] == 0
    assert rows["m", "Acne"]["normalised"] is None  # in the rows shown, no expert learned only acne
    assert rows["p", "Acne"]["trained_on"] == "Pain" and rows["m", "Acne"]["trained_on"] == "all"
    by_year = agreement.by_part(files, shown, {"condition": {}, "year": {"p": ["2010"]}}, "accuracy")
    assert by_year.group_by("column").agg(pl.col("part").unique().sort()).sort("column").rows() == [
        ("condition", ["Acne", "Pain"]), ("year", ["2010"]),
    ]  # fmt: skip


def said_of(world, compared, **more):
    pairs, _, frame, _ = world
    chosen = selection.selection(frame, {"t": pairs}, "accuracy")
    counts = more.pop("counts", {"t": {"test": {"reviews": 600, "texts": 600}}})
    if not more.pop("equivalence", False):  # as without the experiment's request
        compared = compared.with_columns(p_equivalent_holm=pl.lit(None, pl.Float64))
    compared = compared.with_columns(answer=pl.col("holds").replace_strict(comparison_table.ANSWERS, default=None))
    facts = verdict.Facts(name="name", margin=more.pop("margin", 0.01), counts=counts, **more)
    return verdict.text(facts, frame, compared, chosen)


def pairs_of(world):
    return {name: found.values["accuracy"] for name, found in world[0].found.items()}


def test_without_a_larger_model_the_verdict_says_so(world):
    _, _, _, compared = world
    said = said_of(world, compared.with_columns(cost_ratio=pl.lit(None, pl.Float64)))
    assert "- This experiment has no larger model to compare with.\n- **Replace the best expert, strong? Yes.**" in said


@pytest.mark.parametrize(("holds", "answer"), [("better", "Yes"), ("no worse", "Yes"), ("worse", "No"), ("behind", "Not shown"), ("undecided", "Not shown")])  # fmt: skip
def test_an_answer_is_what_holds_after_correction(world, holds, answer):
    _, _, _, compared = world
    said = said_of(world, compared.with_columns(holds=pl.lit(holds)))
    assert said.splitlines()[2].startswith(f"- **Replace large? {answer}.** ")


def test_answers_are_a_column_of_the_claims(world):
    _, _, _, compared = world
    claims = compared.filter("claim")
    assert claims["answer"].to_list() == [comparison_table.ANSWERS[holds] for holds in claims["holds"]]
    assert compared.filter(~pl.col("claim"))["answer"].null_count() == compared.filter(~pl.col("claim")).height > 0


@pytest.mark.parametrize(
    ("holds", "low", "high", "words"),
    [("better", 0.01, 0.02, "It is better."),
     ("no worse", -0.01, 0.02, "It is not worse by more than the margin of 0.05."),
     ("no worse", 0.01, 0.02, "It is not worse by more than the margin of 0.05."),
     ("no worse", -0.02, -0.01, "It scored lower, by less than the margin of 0.05."),
     ("worse", -0.15, -0.12, "It is worse by more than the margin of 0.05."),
     ("behind", -0.06, -0.01, "It scored lower, possibly by less than the margin of 0.05."),
     ("undecided", -0.06, -0.01, "It scored lower, possibly by less than the margin of 0.05."),
     ("undecided", 0.01, 0.1, "It scored higher, possibly by chance."),
     ("undecided", -0.06, 0.01, "The difference is not clear in either direction.")],
)  # fmt: skip
def test_an_answer_says_what_it_means(world, holds, low, high, words):
    """Check the cases of docs/scores.md in verdict and model card."""
    _, _, _, compared = world
    changed = compared.filter(pl.col("family") == "primary").with_columns(
        holds=pl.lit(holds), low=pl.lit(low), high=pl.lit(high)
    )
    assert said_of(world, changed, margin=0.05).splitlines()[2].endswith(f" of its parameters. {words}")
    (row,) = comparison_table.rows(changed)
    assert f"| {words} |" in "\n".join(model_card._rivals([row], {"compare": {"margin": 0.05}}))
    documented = words.replace("0.05", "0.01").removesuffix(".")
    assert documented in (ROOT / "docs/scores.md").read_text()


def test_the_verdict_has_the_tables_numbers(world):
    _, _, _, compared = world
    said = said_of(world, compared, leak="a line about the leak")
    assert said.startswith("# name: can the merge do it?")
    assert "**m2**, a merge of 2 models by ties, the best of 3 merges on validation: accuracy" in said
    assert "on 600 different test texts." in said
    assert "large" in next(line for line in said.splitlines() if line.startswith("- "))  # the larger one comes first
    (row,) = compared.filter((pl.col("candidate") == "m2") & (pl.col("against") == "large")).to_dicts()
    values = {name: pairs_of(world)[name] for name in ("m2", "large", "strong")}
    answers = [line for line in said.splitlines() if line.startswith("- **Replace ")]
    assert answers[0] == (
        f"- **Replace large? Not shown.** {values['m2']:.3f} against {values['large']:.3f}: "
        f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}), at 1/12 of its parameters. The difference is not clear in either direction."
    )
    assert answers[1].startswith(
        f"- **Replace the best expert, strong? Yes.** {values['m2']:.3f} against {values['strong']:.3f}: "
    )
    line = next(line for line in said.splitlines() if "the reference, large" in line and line.startswith("- "))
    assert line.startswith("- Primary claim: **not shown** against the reference, large, 12k parameters: ")
    assert f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}" in line
    assert f"(corrected p {row['p_not_worse']:.2g}; 0.025 needed)" in line
    assert "the 7 other claims of this task after Holm correction" in said
    assert "1/12 of the parameters" in line and said.count("about these trained experts") == 1
    assert "Claims are about these trained experts: each was trained once" in said
    assert said.rstrip().endswith("a line about the leak")


@pytest.mark.parametrize(
    ("holds", "low", "high", "words", "not_words"),
    [("better", 0.01, 0.02, "better than the reference, large, 12k parameters: ", "margin"),
     ("no worse", -0.024, -0.016, "lower than the reference, large, 12k parameters, by less than the margin of 0.05: -0.020", "not"),
     ("no worse", 0.001, 0.02, "not worse by more than the margin of 0.05 than the reference, large, 12k parameters: +0.011 (+0.001 to +0.020), but that lead may be chance after correction", "**"),
     ("behind", -0.025, -0.005, "It scored lower, possibly by less than the margin of 0.05. A loss of more than 0.05 is neither shown nor ruled out (corrected p", "chance"),
     ("undecided", -0.025, -0.005, "It scored lower, possibly by less than the margin of 0.05. After correction the difference may be chance (p", "neither"),
     ("undecided", -0.02, 0.02, "**not shown** against the reference", "lead may"),
     ("worse", -0.15, -0.12, "worse than the reference, large, 12k parameters, by more than the margin of 0.05: -0.135", "shown")],
)  # fmt: skip
def test_words_say_what_holds(world, holds, low, high, words, not_words):
    _, _, _, compared = world
    changed = compared.with_columns(
        low=pl.lit(low), high=pl.lit(high), difference=pl.lit((low + high) / 2), holds=pl.lit(holds),
        verdict=pl.lit("better" if low > 0 else "undecided"),
    ).filter(pl.col("against") == "large")  # fmt: skip
    (line,) = [line for line in said_of(world, changed, margin=0.05).splitlines() if line.startswith("- Primary")]
    assert words in line and not_words not in line
    assert f"{(low + high) / 2:+.3f} ({low:+.3f} to {high:+.3f})" in line


def test_a_lead_by_sharpening_or_priors_is_said_to_be_one(world):
    _, _, _, compared = world
    changed = compared.filter(pl.col("family") == "primary").with_columns(
        low=pl.lit(0.01), high=pl.lit(0.03), holds=pl.lit("better"), tuned_difference=pl.lit(0.002),
        tuned_low=pl.lit(-0.01), tuned_high=pl.lit(0.014),
    )  # fmt: skip
    assert "class offsets fitted on validation the lead is not shown, +0.002 (-0.010 to +0.014): sharpening or class priors may explain it" in said_of(world, changed)  # fmt: skip
    assert "sharpening" not in said_of(world, changed.with_columns(tuned_low=pl.lit(0.001)))
    losses = pl.lit(None, pl.Float64)  # a likelihood has no decisions to tune
    of_losses = changed.with_columns(tuned_low=losses, calibrated_low=pl.lit(-0.01), calibrated_high=pl.lit(0.01))
    assert "temperature and class offsets fitted on validation the lead is not shown" in said_of(world, of_losses)


def test_equivalence_is_said_where_it_is_asked_for(world):
    _, _, _, compared = world
    primary = compared.filter(pl.col("family") == "primary")
    assert "quival" not in said_of(world, primary)
    for p, words in ((0.01, "Both are equivalent"), (0.4, "Equivalence is not shown")):
        said = said_of(world, primary.with_columns(p_equivalent_holm=pl.lit(p)), equivalence=True)
        assert f"{words} within 0.01 (corrected p {p:g}; 0.025 needed)." in said


def test_measures_that_disagree_are_named(world):
    _, _, _, compared = world
    changed = compared.filter(pl.col("family") == "primary").with_columns(
        difference=pl.lit(-0.02), low=pl.lit(-0.03), high=pl.lit(-0.01), metric=pl.lit("macro_f1"),
        accuracy_difference=pl.lit(0.036), accuracy_low=pl.lit(0.025), accuracy_high=pl.lit(0.048),
        nll_difference=pl.lit(0.1), nll_low=pl.lit(-0.1), nll_high=pl.lit(0.2),
    )  # fmt: skip
    said = said_of(world, changed)
    assert "Measures disagree: ahead in accuracy, +0.036 (+0.025 to +0.048); behind in macro-F1, -0.020 (-0.030 to -0.010)." in said  # fmt: skip
    assert "disagree" not in said_of(world, changed.with_columns(accuracy_low=pl.lit(-0.001)))
    of_accuracy = changed.with_columns(metric=pl.lit("accuracy"), nll_low=pl.lit(0.01))
    assert "ahead in likelihood, +0.100 (+0.010 to +0.200); behind in accuracy, -0.020" in said_of(world, of_accuracy)


def test_in_short_says_what_is_left_after_correction(world):
    """Other winners' claims are stated but choose nothing; users' names are plain text."""
    _, _, frame, compared = world
    best = frame.filter("winner")["candidate"][0]
    own = compared.filter(pl.col("claim") & (pl.col("candidate") == best)).with_row_index()
    rivals = own["against"].to_list()
    own = own.with_columns(holds=pl.when(pl.col("index") == 0).then(pl.lit("better")).otherwise(pl.lit("undecided"))).drop("index")  # fmt: skip
    extra = own.filter(pl.col("against") == rivals[1]).with_columns(candidate=pl.lit("another"), holds=pl.lit("better"))
    said = said_of(world, pl.concat([own, extra]), classes={"t": ["b*d*", "good"]}, never={best: ["good"]})
    assert "weakest" not in said
    rest = said.split(f": better than {rivals[0]}; inconclusive against ")[1].split(". ")[0]
    assert sorted(rest.split(", ")) == sorted(rivals[1:])
    assert f"- another is better than {rivals[1]} (" in said and "but lost on validation, so it is not selected" in said
    assert r"Task t (b\*d\*, good)" in said and "- It never predicts good on the test set." in said


def test_the_weakest_class_is_named_beside_those_never_predicted(world):
    _, _, frame, compared = world
    best = frame.filter("winner").row(0, named=True)
    recall = {name: {"value": v, "low": v - 0.1, "high": v + 0.1} for name, v in (("a", 0.9), ("b*", 0.31), ("c", 0.0))}
    facts = {"recall": {best["best_run"]: recall}}
    assert "- Its weakest class is c: recall 0.00 (-0.10 to 0.10).\n" in said_of(world, compared, **facts)
    said = said_of(world, compared, never={best["candidate"]: ["c"]}, **facts)
    assert "- It never predicts c on the test set.\n- Of all other classes, the weakest is b\\*: recall 0.31 (0.21 to 0.41).\n" in said  # fmt: skip
    assert "weakest" not in said_of(world, compared, never={best["candidate"]: ["b*", "c"]}, **facts)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (0, "is tested alone."),
        (1, "alone, the other claim of this task after"),
        (2, "alone, the 2 other claims of this"),
    ],
)
def test_claims_are_counted_in_grammar(world, others, words):
    _, _, _, compared = world
    first, rest = (compared.filter(pl.col("family") == family) for family in ("primary", "secondary"))
    assert words in said_of(world, pl.concat([first, rest.head(others)]))


def test_few_texts_of_a_class_and_unknown_copies_are_said(world):
    _, _, _, compared = world
    said = said_of(world, compared.with_columns(support=pl.lit(12)), counts={"t": {
        "test": {"reviews": 600, "texts": 600}, "told_apart": {"test": 590, "also_in_valid": 3}}})  # fmt: skip
    assert "- The rarest class has 12 test texts. Below 20" in said
    assert "600 test reviews, at most 590 different texts, 3 of them also in validation (copies are unknown" in said
    assert "different test texts" not in said


def test_each_task_has_families_of_its_own(world):
    """Another task cannot undo a task's claim."""
    pairs, files, _, compared = world
    other = [(replace(scores, task="u"), cost) for scores, cost in files]
    both = leaderboard.ranked(leaderboard.table([*files, *other], "accuracy"), {"t": pairs, "u": pairs}, "accuracy")
    truth = TRUTH, np.arange(len(TRUTH))
    again = comparison.compare(
        both, run_table.table([*files, *other]), {"t": pairs, "u": pairs}, {"t": truth, "u": truth}, "accuracy", 0.01
    )
    assert again.filter(pl.col("task") == "t").equals(compared)
    assert again["claim"].to_list() == sorted(again["claim"].to_list(), reverse=True)


def test_without_merges_there_are_no_claims(world):
    pairs, files, _, _ = world
    some = [f for f in files if f[0].kind in ("base", "expert")]
    frame = leaderboard.ranked(leaderboard.table(some, "accuracy"), {"t": pairs}, "accuracy")
    compared = compare(some, frame, pairs)
    chosen = selection.selection(frame, {"t": pairs}, "accuracy")
    assert compared.height == chosen.height == 0
    facts = verdict.Facts(name="x", margin=0.01, counts={"t": {"test": {"texts": 600}}})
    said = verdict.text(facts, frame, compared, chosen)
    assert "no merges" in said and "strong (expert)" in said


def test_the_leak_is_said_beside_the_scores():
    facts = {"mode": "official", "test_rows": 53766, "test_rows_also_in_train": 32216}
    found = "Test reviews that are also in the train file: 32,216 of 53,766 (59.9 %). "
    assert leaderboard_text.leak_line(facts).startswith(f"WARNING: {found}")
    clean = leaderboard_text.leak_line({**facts, "mode": "official-clean"})
    assert clean == f"{found}The split leaves them out of test."
    assert leaderboard_text.leak_line({**facts, "mode": "random"}) == ""


# ── The documentation ──


def test_the_documentation_has_every_column_and_good_examples():
    text = (ROOT / "docs/scores.md").read_text()
    names = set(re.findall(r"`([a-z_0-9]+)`", text))
    plain = {"task", "candidate", "against", "kind", "claim", "metric", "low", "high", "accuracy_difference"}
    assert {c for c in SCHEMA if not c.startswith("calibrated_")} - plain <= names
    assert {*metrics.METRICS, "optimism", "expected_optimism", "run_deviation", "sampling_error"} <= names
    blends, elsewhere = (yaml.safe_load(b) for b in re.findall(r"```yaml\n(.*?)```", text, re.S))
    built = grid.build(load.parse({**DEMO, **blends}))
    assert [c.method for c in built.of_kind("blend")] == list(schema.Blend.model_fields["method"].annotation.__args__)
    assert {"ties", "linear"} <= {built.candidates[m].method for m in built.candidates["ensemble-selection"].members}
    assert load.parse(elsewhere).candidates.from_ == "my/tables"
