"""Compare systems over several tasks, from predictions to tasks.csv and verdict, with naive loops over the files."""

import json
import re

import numpy as np
import polars as pl
import pytest
import yaml

import mllm
from mllm.core.errors import Failure
from mllm.evaluation import (
    claims,
    comparison_table,
    over_tasks,
    result_tables,
    selection,
    shared_draws,
    significance,
    tasks_choice,
    tasks_table,
    tasks_verdict,
)  # fmt: skip
from mllm.evaluation.score_files import Scores
from mllm.experiment import grid, load, systems
from mllm.reporting import page, report
from three_tasks import CLASSES, RAW, SEED, run


def table(results, name="tasks"):
    return pl.read_csv(results / f"{name}.csv", infer_schema_length=None)


# ── The naive way ──


def macro_f1(truth, said, weight):
    found = []
    for k in sorted({*truth, *said}):
        hits = sum(w for t, s, w in zip(truth, said, weight, strict=True) if t == s == k)
        total = sum(w for t, w in zip(truth, weight, strict=True) if t == k)
        total += sum(w for s, w in zip(said, weight, strict=True) if s == k)
        if total:
            found.append(2 * hits / total)
    return sum(found) / len(found)


class Naive:
    """Compute test scores directly from the prediction files."""

    def __init__(self, results, labels):
        self.results, self.labels = results, labels
        self.group = dict(pl.read_parquet(results / "data/test.parquet").select("review_id", "group").rows())
        self.texts = sorted(set(self.group.values()))

    def score(self, candidate, times=None):
        """Score on all texts, or on each text as often as ``times`` says."""
        frame = pl.read_parquet(self.results / f"predictions/{candidate}.parquet").filter(split="test")
        logp = frame.select(pl.selectors.starts_with("logp_")).to_numpy()
        groups = [self.group[i] for i in frame["review_id"]]
        weight = [(1 if times is None else times[g]) / groups.count(g) for g in groups]
        return macro_f1(frame["label"].to_list(), logp.argmax(axis=1).tolist(), weight)

    def resamples(self, count):
        rng, n = np.random.default_rng(SEED), len(self.texts)
        for _ in range(count):
            yield dict(zip(self.texts, np.bincount(rng.integers(0, n, n), minlength=n), strict=True))


@pytest.fixture(scope="module")
def naive(three_tasks):
    return Naive(three_tasks[0], three_tasks[2])


def test_systems_are_models_over_tasks_and_what_is_used_together(three_tasks):
    found = {s.name: s for s in systems.systems(three_tasks[1])}
    merges = [s for s in found.values() if s.kind == "merge"]
    assert len(merges) == 3 and all(list(s.options) == ["mood", "rating", "topic"] and s.one for s in merges)
    assert found["joint"].kind == "reference" and found["joint"].options["mood"] == ("joint.mood",)
    assert found[systems.SWITCH].options == {"mood": ("m-0", "m-1"), "rating": ("rating",), "topic": ("t",)}
    assert found["big (fine_tuned)"].options == {task: (f"big-{task}",) for task in sorted(CLASSES)}
    assert found["soft_vote in each task"].options == {"mood": ("v-mood",), "topic": ("v-topic",)}
    assert len(found) == 7  # an untrained classifier's head is no system
    alone = {**RAW, "merges": RAW["merges"][2:], "references": RAW["references"][1:]}
    assert systems.systems(grid.build(load.parse(alone))) == []


def test_scores_and_normalised_scores_are_those_of_the_files(three_tasks, naive):
    results, built, _ = three_tasks
    experts = tasks_choice.own_experts(pl.read_parquet(results / "leaderboard.parquet"), "macro_f1")
    for row in table(results).iter_rows(named=True):
        ratios = {}
        for task, candidate in zip(row["tasks"].split(), row["candidates"].split(), strict=True):
            assert built.candidates[candidate].task == task
            score = naive.score(candidate)
            ratios[task] = score / naive.score(experts[task])
            assert row[task] == pytest.approx(score) and row[f"{task}_normalised"] == pytest.approx(ratios[task])
        assert row["mean_normalised"] == pytest.approx(sum(ratios.values()) / len(ratios))
        assert row["worst_normalised"] == pytest.approx(min(ratios.values()))
        assert ratios[row["worst_task"]] == min(ratios.values())
        if row["system"] == systems.SWITCH:
            assert row["mean_normalised"] == row["mean_normalised_low"] == row["mean_normalised_high"] == 1
            assert row["n_parameters"] == 300
        elif row["kind"] == "merge":
            assert row["n_parameters"] == 104


def test_the_interval_is_that_of_joint_resamples(three_tasks, naive):
    """Check the first 60 resamples text by text, and the interval from all draws of the scorer, combined by hand."""
    results, _, _ = three_tasks
    row = table(results).filter("chosen").row(0, named=True)
    tasks, names = row["tasks"].split(), row["candidates"].split()
    experts = tasks_choice.own_experts(pl.read_parquet(results / "leaderboard.parquet"), "macro_f1")
    drawn = {}
    for task, name in zip(tasks, names, strict=True):
        index = json.loads((results / f"scores/resamples-{task}.json").read_text())
        all_ = np.load(results / f"scores/resamples-{task}-test.npy")[:, 0, index["metrics"].index("macro_f1")]
        mine, theirs = (all_[index["candidates"].index(n)].astype(float) for n in (name, experts[task]))
        drawn[task] = mine / theirs
        for number, times in enumerate(naive.resamples(60)):
            if number % 12 == 0:
                assert mine[number] == pytest.approx(naive.score(name, times), abs=1e-5)
    means = np.mean(list(drawn.values()), axis=0)
    low, high = np.quantile(means - means.mean() + row["mean_normalised"], [0.025, 0.975])
    width = high - low
    assert row["mean_normalised_low"] == pytest.approx(low, abs=0.05 * width)  # and a little for what no text shows
    assert row["mean_normalised_high"] == pytest.approx(high, abs=0.05 * width)
    assert row["mean_normalised_low"] < low and row["mean_normalised_high"] > high


def test_one_merge_is_chosen_over_all_tasks_and_wins_in_each_of_them(three_tasks):
    results, built, _ = three_tasks
    board, frame = pl.read_parquet(results / "leaderboard.parquet"), table(results)
    value = dict(board.select("candidate", "valid_macro_f1").rows())
    experts = tasks_choice.own_experts(board, "macro_f1")
    means = {}
    for whole in {c.whole for c in built.candidates.values() if c.recipe and c.whole}:
        means[whole] = np.mean([value[f"{whole}.{task}"] / value[experts[task]] for task in CLASSES])
    best = max(means, key=means.get)
    assert frame.filter("chosen")["system"].to_list() == [best]
    assert frame.filter(system=best)["valid_mean_normalised"][0] == pytest.approx(means[best])
    ties = {w: m for w, m in means.items() if w.startswith("ties")}
    winners = {max(ties, key=ties.get), *(w for w in means if w.startswith("linear"))}
    assert set(frame.filter("winner")["system"]) == winners
    over = board.filter(pl.col("whole").is_not_null(), pl.col("kind") == "merge")
    assert set(over.filter("winner")["candidate"]) == {f"{w}.{task}" for w in winners for task in CLASSES}
    within = board.filter(pl.col("kind") == "merge", pl.col("whole").is_null())
    assert within["winner"].to_list() == [True] and within["method"].to_list() == ["slerp"]


def test_merges_over_tasks_change_no_claim_within_a_task(three_tasks, tmp_path):
    """Without systems, the experiment has the same winners, claims, selection and corrected p-values in each task."""
    results, _, _labels = three_tasks
    alone = {**RAW, "merges": RAW["merges"][2:], "references": RAW["references"][1:]}
    plain = grid.build(load.parse(alone))
    (tmp_path / "results/three/predictions").mkdir(parents=True)
    for folder in ("data",):
        (tmp_path / f"results/three/{folder}").symlink_to(results / folder)
    for name in plain.candidates:
        for ending in ("parquet", "cost.json"):
            (tmp_path / f"results/three/predictions/{name}.{ending}").symlink_to(
                results / f"predictions/{name}.{ending}"
            )
    (tmp_path / "three.yaml").write_text(yaml.safe_dump(alone))
    own = tmp_path / "results/three"
    run(tmp_path, "score", "--output", own / "scores")
    run(tmp_path, "leaderboard")
    run(tmp_path, "compare")
    assert not (own / "tasks.csv").exists() and "One model" not in (own / "verdict.md").read_text()
    with pytest.raises(Failure, match="no model covers several"):
        _ = mllm.open(own).tasks
    mine, theirs = (table(folder, "comparisons").filter("claim").drop("p_bh") for folder in (own, results))
    theirs = theirs.filter(~pl.col("against").str.starts_with("joint"))
    # The joint training is a further rival: with one more claim, only corrected p-values may be larger.
    kept = [c for c in mine.columns if not c.endswith("_holm") and c != "holds"]
    assert mine.select(kept).equals(theirs.select(kept)) and mine.height
    chosen = table(results, "selection").filter(~pl.col("task").str.contains(" "))
    assert chosen.to_dicts() == table(own, "selection").to_dicts()


def test_claims_are_held_against_all_that_covers_the_tasks(three_tasks):
    results, _, _ = three_tasks
    found, frame = table(results, "tasks_comparisons"), table(results)
    assert list(found.columns) == list(tasks_table.COMPARISONS)
    chosen, winners = frame.filter("chosen")["system"][0], set(frame.filter("winner")["system"])
    assert set(found.filter(candidate=chosen)["against"]) == {
        "joint",
        systems.SWITCH,
        "big (fine_tuned)",
    }  # no blend of rating
    assert set(found.filter("claim")["candidate"]) == winners
    assert found["answer"].to_list() == [comparison_table.ANSWERS.get(holds) for holds in found["holds"]]
    assert found.filter(family="primary").select("candidate", "against").rows() == [(chosen, "big (fine_tuned)")]
    value = dict(frame.select("system", "mean_normalised").rows())
    for row in found.iter_rows(named=True):
        assert row["difference"] == pytest.approx(value[row["candidate"]] - value[row["against"]])
        assert row["low"] < row["difference"] < row["high"]
    second = found.filter(family="secondary")
    better, behind = (second["p"] / 2).to_numpy(), (second["p"] / 2).to_numpy()
    side = second["difference"].to_numpy() > 0
    one_sided = significance.holm(np.where(side, 1 - better, behind))
    lower = np.flatnonzero(~side)
    assert second["p_holm"].to_numpy()[lower] == pytest.approx(np.minimum(1, 2 * one_sided[lower]), abs=2e-3)
    row = found.filter(family="primary").row(0, named=True)
    tests = {k: row[f"p_{k}"] for k in ("not_worse", "worse")}
    assert (
        row["holds"]
        == row["verdict"]
        == claims.strongest(1.0, tests["not_worse"], row["p"] / 2, tests["worse"])
        == "worse"
    )
    assert row["cost_ratio"] == pytest.approx(104 / 3000)


def test_selection_over_tasks_is_of_normalised_scores(three_tasks):
    results, _, _ = three_tasks
    rows = table(results, "selection").filter(task="mood rating topic")
    assert rows["method"].to_list() == ["all", "linear", "ties"] and rows["points"].to_list() == [3, 1, 2]
    frame = table(results)
    for row in rows.iter_rows(named=True):
        of = frame.filter(system=row["winner"]).row(0, named=True)
        assert (row["valid"], row["test"]) == pytest.approx((of["valid_mean_normalised"], of["mean_normalised"]))
        assert row["metric"] == "mean_normalised" and 0 <= row["chosen_again"] <= 1 and 0.5 < row["crossfitted"] < 1.1
    assert list(rows.columns) == list(selection.SELECTION)


def test_the_verdict_says_what_one_model_keeps(three_tasks):
    results, _, _ = three_tasks
    text, row = (results / "verdict.md").read_text(), table(results).filter("chosen").row(0, named=True)
    low, high = (100 * row[f"mean_normalised_{end}"] for end in ("low", "high"))
    first = text.split("\n")[4]
    assert first == (
        f"**One model for 3 tasks keeps {100 * row['mean_normalised']:.0f} % ({low:.0f} to {high:.0f}) of the experts' mean score,"
        f" with 35 % of their parameters.** It loses most on topic (−{100 - 100 * row['topic_normalised']:.0f} %)."
    )
    assert "- **Replace big (fine_tuned)? No.** (primary claim)" in text
    assert "at 1/28.8 of its parameters. It is worse by more than the margin of 1 point.\n" in text
    assert text.count("Claims are about") == text.count("It is open whether") == 1
    assert "- **Replace the experts behind a task switch? " in text and "- **Replace joint? " in text
    for task in ("rating", "topic"):
        section = text.split(f"## Task {task}")[1].split("## ")[0]
        assert "no merges within it" in section and row["system"] in section and "Against the best expert" in section
    mood = text.split("## Task mood")[1].split("## ")[0]
    assert "**slerp" in mood and "the only merge" in mood and "Primary claim" in mood and row["system"] in mood


@pytest.mark.parametrize("by", ["worst", "topic"])
def test_merges_are_chosen_by_what_the_experiment_says(three_tasks, by, tmp_path):
    results, _, _ = three_tasks
    board = pl.read_parquet(results / "leaderboard.parquet")
    scores = tasks_choice.on_validation(board, "macro_f1", by)
    value, experts = (
        dict(board.select("candidate", "valid_macro_f1").rows()),
        tasks_choice.own_experts(board, "macro_f1"),
    )
    for whole, found in scores.items():
        ratios = {task: value[f"{whole}.{task}"] / value[experts[task]] for task in CLASSES}
        assert found == pytest.approx(ratios["topic"] if by == "topic" else min(ratios.values()))
    assert tasks_choice.winners(board, "macro_f1", by)[0] == max(scores, key=scores.get)


def test_shares_of_an_expert_that_knows_nothing_are_marked(three_tasks):
    """Its accuracy is the constant answer's, so that shares of it mean little."""
    results, built, _ = three_tasks
    pairs = {task: shared_draws.Pairs(results / "scores", task, built.runs) for task in CLASSES}
    scores = {name: Scores.read(results / f"scores/{name}.json") for name in built.candidates}
    frames = [result_tables.read(results, name) for name in ("leaderboard", "runs")]
    over = over_tasks.OverTasks(
        systems.systems(built), *frames, pairs, load.parse(RAW | {"compare": {"metric": "accuracy"}}).compare, scores
    )
    assert over.weak() == []
    over.experts["rating"] = "base-rating"
    assert over.weak() == ["rating"]
    saved = [result_tables.read(results, name) for name in ("tasks", "tasks_comparisons", "selection")]
    said = tasks_verdict.lines(*saved, 0.01, over.weak())
    assert said[:-2] == tasks_verdict.lines(*saved, 0.01)[:-1] and said[-2].startswith(
        "The best expert of rating may be"
    )


def test_a_joint_training_without_merges_has_a_table_and_no_claims(three_tasks):
    results, built, _ = three_tasks
    pairs = {task: shared_draws.Pairs(results / "scores", task, built.runs) for task in CLASSES}
    scores = {name: Scores.read(results / f"scores/{name}.json") for name in built.candidates}
    board, runs = (result_tables.read(results, name) for name in ("leaderboard", "runs"))
    found = [s for s in systems.systems(built) if s.kind != "merge"]
    alone = board.filter(pl.col("whole").is_null() | (pl.col("kind") != "merge"))
    over = over_tasks.OverTasks(found, alone, runs, pairs, load.parse(RAW).compare, scores)
    frame, claims_ = over.table(), over.comparisons(0.01)
    assert not frame["chosen"].any() and "joint" in frame["system"] and claims_.height == 0
    assert (
        over.choices() == []
        and tasks_verdict.lines(frame, claims_, selection.selection(alone, pairs, "macro_f1"), 0.01) == []
    )
    assert tasks_choice.winners(alone, "macro_f1", "mean") == []


def test_experts_that_are_asked_about_all_tasks_are_systems_and_so_is_their_base():
    asked = {
        "name": "asked",
        "source": "scratch",
        "architecture": "t5",
        "family": "text2text",
        "prompt": {"template": "{task}: {review}"},
    }
    entries = {
        "models": [*RAW["models"], asked],
        "base": "asked",
        "blends": [],
        "references": [],
        "merges": RAW["merges"][:1],
    }
    built = grid.build(load.parse(RAW | entries))
    found = {s.name: s for s in systems.systems(built)}
    assert found["t"].kind == "expert" and found["t"].one
    assert found["t"].options == {"mood": ("t.mood",), "rating": ("t.rating",), "topic": ("t",)}
    assert found["base"].options == {task: (f"base-{task}",) for task in sorted(CLASSES)} and found["base"].one
    assert found[systems.SWITCH].options["topic"] == ("t",)  # of its own task only
    assert systems.wholes(built)["t.mood"] == "t" and "t" not in systems.wholes(built)


def test_one_run_is_the_best_of_all_tasks(three_tasks):
    """A model's runs are the same trainings in all tasks: the export takes one run, not one per task."""
    board = pl.read_parquet(three_tasks[0] / "leaderboard.parquet")
    name = board.filter(pl.col("whole").is_not_null(), kind="merge")["whole"][0]
    parts = {task: f"{name}.{task}" for task in CLASSES}
    scores = {"mood": (0.9, 0.8), "rating": (0.5, 0.7), "topic": (0.6, 0.6)}
    rows = [(c, run, value) for t, c in parts.items() for run, value in zip((c, f"{c}@2"), scores[t], strict=True)]
    runs = pl.DataFrame(rows, schema=["candidate", "run", "valid_macro_f1"], orient="row")
    only = board.filter(pl.col("candidate").is_in([*parts.values()]) | (pl.col("kind") == "expert"))
    only = only.with_columns(
        valid_macro_f1=pl.when(pl.col("kind") == "expert").then(1.0).otherwise(pl.col("valid_macro_f1"))
    )
    second = {c: f"{c}@2" for c in parts.values()}
    assert tasks_choice.best_runs(only, runs, "macro_f1", "mean") == second
    assert tasks_choice.best_runs(only, runs, "macro_f1", "mood") == {c: c for c in parts.values()}
    assert tasks_choice.best_runs(only, runs, "macro_f1", "worst") == second
    assert (board["best_run"] == board["candidate"]).all()


def test_the_terminal_names_models_not_their_parts(three_tasks):
    text = (three_tasks[0] / "leaderboard.txt").read_text()
    assert text.count("joint (one model, 3 tasks)") == 3 and "joint.mood" not in text


def test_smaller_is_better_divides_the_other_way(three_tasks):
    board = pl.read_parquet(three_tasks[0] / "leaderboard.parquet")
    found = tasks_choice.on_validation(board, "nll", "mean")
    value, experts = dict(board.select("candidate", "valid_nll").rows()), tasks_choice.own_experts(board, "nll")
    for whole, score in found.items():
        assert score == pytest.approx(np.mean([value[experts[task]] / value[f"{whole}.{task}"] for task in CLASSES]))
    zero = board.with_columns(valid_ece=0.0)
    with pytest.raises(Failure, match=r"ece cannot be normalised .* Fix: compare.metric"):
        tasks_choice.on_validation(zero, "ece", "mean")


def test_results_have_the_table(three_tasks):
    opened = mllm.open(three_tasks[0])
    assert (
        opened.tasks.equals(result_tables.read(three_tasks[0], "tasks")) and opened.tasks.filter("chosen").height == 1
    )


def test_the_report_answers_over_tasks_as_the_verdict_does(three_tasks, tmp_path):
    results, _, _ = three_tasks
    page.write(report.Report(results, load.parse(RAW), {}), tmp_path)
    html = (tmp_path / "index.html").read_text()
    first = html[html.index('id="answer"') : html.index("Verdict in full")]
    said = (results / "verdict.md").read_text()
    chosen = table(results).filter("chosen")["system"][0]
    assert "One model for 3 tasks" in first and chosen in re.sub("<wbr>", "", first)
    told = re.findall(
        r"Replace (.*?)\? (Yes|No|Not shown)\.\*\*.*?: (\S+) points \((\S+) to (\S+)\)", said[: said.index("## Task")]
    )
    assert told
    for _, answer, *numbers in told:
        assert f"{answer}: {numbers[0]} ({numbers[1]} to {numbers[2]})" in first
    keeps = 100 * table(results).filter("chosen")["mean_normalised"][0]
    assert f"{keeps:.0f}%" in html[html.index('id="over-tasks"') :]
