"""Run the complete workflow under real Snakemake: the demonstration, stale jobs, failures, messages."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter

import polars as pl
import pytest
import torch
import yaml

import test_code
from conftest import ROOT, run_script
from mllm.core.wording import without_markdown
from mllm.evaluation import metrics
from mllm.experiment import grid, load, yaml_files
from mllm.models import checkpoint_files, loading

DEMO = "config/demo.yaml"
WITH_DEMO = ("--configfile", DEMO)
JUDGED = {
    "score": 1,
    "leaderboard": 1,
    "compare": 1,
    "write_report": 1,
}  # of own jobs, once any prediction differs


@pytest.fixture(scope="module")
def board(demo) -> pl.DataFrame:
    return pl.read_csv(demo.folder / "results/demo/leaderboard.csv", infer_schema_length=None)


@pytest.fixture
def changed(demo, tmp_path):
    """Return a copy of the finished demonstration that tests may edit."""
    return demo.copy(tmp_path / "copy")


def snapshot(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ── The demonstration ──


def test_the_leaderboard_holds_every_candidate(board):
    expected = grid.build(load.load(ROOT / DEMO)).runs
    assert set(board["candidate"]) == set(expected)  # seeds of a random merge are runs of one candidate
    assert {"base": 1, "expert": 3, "blend": 1, "reference": 4}.items() <= Counter(board["kind"]).items()
    assert {"linear", "slerp", "ties", "dare_linear", "dare_ties"} <= set(
        board.filter(pl.col("kind") == "merge")["method"]
    )
    assert board.columns[:4] == ["candidate", "kind", "method", "task"]
    assert {"density", "lambda", "t", "weight", "seed"} <= set(board.columns)
    for metric, split, kind in itertools.product(metrics.METRICS, ("valid", "test"), ("", "calibrated_")):
        value, low, high = (board[f"{split}_{kind}{metric}{end}"] for end in ("", "_low", "_high"))
        assert ((low <= value) & (value <= high)).all(), (metric, split, kind)
    tuned = board.select(pl.col("test_tuned_macro_f1") - pl.col("test_macro_f1")).to_series()
    assert tuned.mean() > 0 and board["test_tuned_macro_f1"].null_count() == 0
    assert board["valid_macro_f1"].is_sorted(descending=True)


def test_a_merge_beats_every_expert_and_the_base_is_at_chance(board):
    best = lambda kind: board.filter(pl.col("kind") == kind)["test_accuracy"].max()  # noqa: E731
    assert best("merge") > best("expert")
    chosen = board.filter(pl.col("winner"))[0]
    assert chosen["test_accuracy"].item() > best("expert")
    base = board.filter(pl.col("kind") == "base")
    assert base["test_balanced_accuracy"].item() == pytest.approx(1 / 3, abs=0.05)


def test_every_number_follows_from_the_predictions(demo, board):
    """Recompute the table of runs from the prediction files with plain arithmetic, and the leaderboard from the runs."""
    results = demo.folder / "results/demo"
    test = pl.read_parquet(results / "data/test.parquet")
    runs = pl.read_parquet(results / "runs.parquet")
    means = runs.group_by("candidate").agg(pl.col("test_accuracy").mean())
    assert dict(board.select("candidate", "test_accuracy").rows()) == pytest.approx(dict(means.rows()))
    for row in runs.iter_rows(named=True):
        table = pl.read_parquet(results / f"predictions/{row['run']}.parquet").filter(pl.col("split") == "test")
        joined = test.join(table, on="review_id", how="full", coalesce=True)
        assert joined.height == test.height == table.height
        predicted = joined.select("logp_0", "logp_1", "logp_2").to_numpy().argmax(1)
        truth = [0 if r <= 4 else 1 if r <= 6 else 2 for r in joined["rating"]]
        texts = [" ".join(t.lower().split()) for t in joined["review"]]
        times = Counter(texts)  # a text counts once, even under several drugs
        right = sum((p == t) / times[text] for p, t, text in zip(predicted, truth, texts, strict=True))
        assert row["test_accuracy"] == pytest.approx(right / len(times), abs=1e-12)


def test_comparisons_are_paired(demo, board):
    table = pl.read_csv(demo.folder / "results/demo/comparisons.csv").filter("claim")
    winners = board.filter(pl.col("winner"))["candidate"]
    best_expert = board.filter(pl.col("kind") == "expert")["candidate"][0]
    assert {(r["candidate"], r["against"]) for r in table.to_dicts()} == {
        (w, o) for w in winners for o in (best_expert, "vote", "larger-on-all", "tfidf", "majority", "router-sentiment")
    }
    score = dict(board.select("candidate", "test_macro_f1").rows())
    widths = {r["candidate"]: r["test_macro_f1_high"] - r["test_macro_f1_low"] for r in board.to_dicts()}
    for row in table.to_dicts():
        assert row["difference"] == pytest.approx(score[row["candidate"]] - score[row["against"]], abs=1e-12)
        assert row["low"] < row["difference"] < row["high"]
        # On the same reviews a difference is more certain than two separate scores.
        if row["against"] == best_expert:
            apart = (widths[row["candidate"]] ** 2 + widths[row["against"]] ** 2) ** 0.5
            assert row["high"] - row["low"] < apart


def test_artefacts(demo):
    results = demo.folder / "results/demo"
    names = [p.relative_to(results).as_posix() for p in results.rglob("*")]
    for name in [
        "experiment.yaml",
        "data/reviews.parquet",
        "data/train.parquet",
        "data/valid.parquet",
        "data/test.parquet",
        "data/rejected.parquet",
        "data/quality.json",
        "data/statistics.parquet",
        "data/summary.csv",
        "data/repairs.csv",
        "figures/data/index.html",
        "figures/data/ratings.svg",
        "models/base-sentiment/model.safetensors",
        "models/pain/model.json",
        "leaderboard.csv",
        "leaderboard.parquet",
        "leaderboard.txt",
        "comparisons.csv",
        "comparisons.parquet",
        "runs.csv",
        "runs.parquet",
        "selection.csv",
        "agreement.csv",
        "parts.csv",
        "verdict.md",
        "predictions/base-sentiment.cost.json",
        "scores/base-sentiment.json",
        "logs/score.log",
    ]:
        assert name in names
    merges = list((results / "merges").iterdir())
    assert len(merges) == 13
    for merge in merges:  # keep: none — weights are deleted, their recipes stay
        assert {p.name for p in merge.iterdir()} == {"mergekit.yaml", "merge.json"}
    assert load.parse(yaml.safe_load((results / "experiment.yaml").read_text())) == load.load(ROOT / DEMO)
    assert not [n for n in names if "partial" in n or "checkpoints" in n]
    assert not list(demo.folder.rglob("*.bin"))


def test_no_text_is_in_two_splits(demo):
    data = demo.folder / "results/demo/data"
    texts = [
        set(pl.read_parquet(data / f"{s}.parquet")["review"].str.to_lowercase()) for s in ("train", "valid", "test")
    ]
    assert not texts[0] & texts[1]
    assert not (texts[0] | texts[1]) & texts[2]


def test_experts_share_the_head_they_started_from(demo):
    """Experts differ from the base but keep its direction: heads drawn separately are orthogonal, up to 1 / √192."""
    results = demo.folder / "results/demo/models"
    head = {
        n: loading.read_state(results / n)["score.weight"] for n in ("base-sentiment", "pain", "acne", "depression")
    }
    for name in ("pain", "acne", "depression"):
        cosine = torch.nn.functional.cosine_similarity(head[name].flatten(), head["base-sentiment"].flatten(), dim=0)
        assert 0.4 < cosine < 0.999


def test_a_cold_merge_and_a_cold_prediction_have_the_same_bytes(demo, tmp_path):
    """The demonstration's jobs started warm; by hand they start cold."""
    results = demo.folder / "results/demo"
    merge = next(results.glob("merges/ties-*"))
    card = json.loads((merge / "merge.json").read_text())
    recipe = json.dumps(card["recipe"])
    models = ("--models", results / "models", "--base", "base-sentiment")
    run_script("merge", "--recipe", recipe, *models, "--output", tmp_path)
    assert (tmp_path / "merge.json").read_bytes() == (merge / "merge.json").read_bytes()  # digests of weights included
    asked = ("--data", results / "data", "--task", "sentiment", "--output", tmp_path / "p", "--cost", tmp_path / "c")
    run_script("predict", "--model", tmp_path / "model", *asked)
    assert (tmp_path / "p").read_bytes() == (results / f"predictions/{merge.name}.parquet").read_bytes()


def test_a_run_ends_with_the_leaderboard(demo):
    end = demo.output[-12_000:]
    assert "demo: 21 candidates, task sentiment, sorted by macro_f1 on validation" in end
    said = without_markdown((demo.folder / "results/demo/verdict.md").read_text())
    assert said in end and "**" not in said and not said.startswith("#")
    assert "Report: results/demo/report/index.html" in end


# ── What goes stale ──


def test_nothing_is_done_twice(demo):
    assert not demo.planned(*WITH_DEMO)


def test_one_density_is_one_merge(changed):
    changed.edit(DEMO, "method: dare_linear, members: [pain, depression, acne], density: [0.5,", "method: dare_linear, members: [pain, depression, acne], density: [0.55,")  # fmt: skip
    assert changed.planned(*WITH_DEMO) == {"merge": 1, "predict": 1, **JUDGED}


def test_a_new_point_is_one_merge(changed):
    changed.edit(DEMO, "t: [0.5, 0.75]", "t: [0.9, 0.75, 0.5]")
    assert changed.planned(*WITH_DEMO) == {"merge": 1, "predict": 1, **JUDGED}


def test_a_point_less_is_a_new_leaderboard(changed):
    changed.edit(DEMO, "t: [0.5, 0.75]", "t: [0.75]")
    assert changed.planned(*WITH_DEMO) == JUDGED


def test_comments_and_documents_mean_nothing(changed):
    for path in [
        *changed.folder.glob("workflow/**/*.py"),
        *changed.folder.glob("workflow/**/*.smk"),
        changed.folder / "Snakefile",
    ]:
        path.write_text("# a comment\n" + path.read_text() + "\n# and another\n")
    for path in (changed.folder / "README.md", changed.folder / DEMO):
        path.write_text(path.read_text() + "\n# more words\n")
    assert not changed.planned(*WITH_DEMO)


def test_an_edit_of_scoring_runs_scores_and_what_follows(changed):
    changed.edit("workflow/scripts/mllm/evaluation/bootstrap.py", "[0.025, 0.975]", "[0.05, 0.95]")
    assert changed.planned(*WITH_DEMO) == JUDGED


def test_an_edit_of_a_script_runs_its_rule_and_what_follows(changed):
    changed.edit("workflow/scripts/fit_baseline.py", "min_df=2", "min_df=3")
    assert changed.planned(*WITH_DEMO) == {"fit_baseline": 2, **JUDGED}


def test_another_expert_runs_what_it_is_in(changed):
    changed.edit(
        DEMO,
        "{name: acne, where: {condition: [Acne]}, steps: 300",
        "{name: acne, where: {condition: [Acne]}, steps: 301",
    )
    found = changed.planned(*WITH_DEMO)
    with_acne = [c for c in grid.build(load.load(ROOT / DEMO)).of_kind("merge") if "acne" in c.members]
    assert found["train_expert"] == 1
    assert found["merge"] == len(with_acne) < 13
    assert found["predict"] == len(with_acne) + 1
    assert (found["blend"], found["score"]) == (2, 1)  # the vote and the router
    assert "clean_reviews" not in found


def test_a_dry_run_says_what_and_why(changed):
    changed.edit(DEMO, "density: 0.9, weight: 0.4, seed: [0, 1]", "density: 0.9, weight: 0.4, seed: [0, 9]")
    changed.edit(DEMO, "learning_rate: 2.0e-3", "learning_rate: 2.1e-3")
    lines = changed.snakemake("-n", *WITH_DEMO).splitlines()
    merge = [line for line in lines if line.startswith("merge ") and "seed9" in line]
    assert len(merge) == 1
    assert "dare_ties  acne, depression, pain  weight=0.4 density=0.9 seed=9" in merge[0] and "←" not in merge[0]
    train = [line for line in lines if line.startswith("train_expert") and "←" in line]
    assert len(train) == 1
    assert "pain" in train[0]
    assert "parameters changed" in train[0]
    assert "0.002" in train[0]
    assert "0.0021" in train[0]
    assert re.search(
        r"Retrains 1 model that is finished \(pain\), because experts\.pain\.learning_rate changed\. This takes about \d+ (s|min)",
        "\n".join(lines),
    )
    assert re.search(r"^Estimate: \d+ jobs; about .* on 2 cores \(.*by earlier runs", "\n".join(lines), re.M)


def test_stages_are_targets(project):
    counts = {
        stage: project.planned(stage, *WITH_DEMO) for stage in ("data", "experts", "merges", "predictions", "report")
    }
    described = {"label_reviews", "describe_reviews", "prepare_base"}  # the base's tokenizer counts tokens
    assert set(counts["data"]) == {"data", "generate_reviews", "clean_reviews", "split_reviews", *described}
    assert counts["experts"]["train_expert"] == 4
    assert counts["merges"]["merge"] == 13
    assert counts["predictions"]["predict"] == 18
    assert "score" not in counts["predictions"]
    assert counts["report"]["leaderboard"] == 1


def test_grid_prints_points_and_states(changed):
    changed.edit(DEMO, "t: [0.5, 0.75]", "t: [0.3, 0.75, 0.75]")
    changed.edit(
        DEMO,
        "{name: acne, where: {condition: [Acne]}, steps: 300",
        "{name: acne, where: {condition: [Acne]}, steps: 301",
    )
    lines = changed.snakemake("grid", *WITH_DEMO).splitlines()
    state = {line.split()[1]: line.split()[0] for line in lines if line.startswith(("done ", "stale ", "missing "))}
    assert len(state) == 22
    assert state["base-sentiment"] == state["pain"] == "done"
    assert state["acne"] == state["vote"] == state["router-sentiment"] == "stale"
    assert [s for n, s in state.items() if n.startswith("slerp")] == ["missing", "done"]
    assert all(s == "stale" for n, s in state.items() if n.startswith(("ties", "dare", "linear", "task")))
    assert (
        "22 candidates, 13 merges among them: 7 done, 14 stale, 1 missing; 1 duplicate point is not run"
        in "\n".join(lines)
    )


def test_a_thousand_merges_are_planned(project):
    raw = yaml_files.read_yaml(ROOT / DEMO)
    raw["merges"] = [{"method": "ties", "members": ["pain", "acne"], "density": [i / 10 for i in range(1, 11)],
                      "lambda": [i / 100 for i in range(1, 101)], "weight": [1.0, 0.5]}]  # fmt: skip
    (project.folder / "config/large.yaml").write_text(yaml.safe_dump(raw))
    # Equal weights cancel: of two thousand points, the second thousand duplicates the first.
    assert project.planned("--configfile", "config/large.yaml")["merge"] == 1000


@pytest.mark.parametrize("arguments", [(), ("--configfile", DEMO), ("--configfile", "config/local.yaml")], ids=" ".join)
def test_slurm_profile_plans_the_same(project, arguments):
    if "config/local.yaml" in arguments:
        (project.folder / "data").mkdir()
        for name in ("Train", "Test"):
            (project.folder / f"data/drugsCom{name}_raw.tsv").touch()
    assert project.planned("--profile", "slurm", *arguments) == project.planned(*arguments)


# ── What fails ──


def test_a_bad_experiment_stops_before_any_job(changed):
    before = snapshot(changed.folder / "results")
    changed.edit(DEMO, "density: 0.9, weight", "density: 90, wieght")
    changed.edit(DEMO, "base: tiny-gpt2", "base: tiny-gtp2")
    out = changed.snakemake("--cores", "1", *WITH_DEMO, ok=False)
    assert "config/demo.yaml: 3 errors" in out
    assert "merges[5].density: found 90" in out
    assert "merges[5].wieght: unknown key" in out
    assert "base: found 'tiny-gtp2', expected one of models: tiny-gpt2, larger-gpt2; did you mean 'tiny-gpt2'?" in out
    assert "Traceback" not in out
    assert snapshot(changed.folder / "results") == before


def test_a_half_written_expert_fails_its_merges_alone(changed):
    results = changed.folder / "results/demo"
    file = results / "models/acne/model.safetensors"
    whole = file.read_bytes()
    before = snapshot(results)
    changed.edit(DEMO, "t: [0.5, 0.75]", "t: [0.3, 0.5, 0.75]")  # it needs pain and depression only: it must still work
    changed.edit(DEMO, "lambda: [0.3, 0.5]", "lambda: [0.3, 0.4, 0.5]")
    timestamp = file.stat()
    file.write_bytes(whole[:-1])
    import os

    os.utime(file, ns=(timestamp.st_atime_ns, timestamp.st_mtime_ns))
    out = changed.snakemake("--profile", "profiles/local", *WITH_DEMO, ok=False)
    assert re.search(r"FAILED: merge task_arithmetic-lambda0\.4-\w{10}\n", out)
    assert "    error: results/demo/models/acne/model.safetensors: the file is cut or damaged" in out
    assert "Finished results are kept." in out
    assert list((results / "predictions").glob("slerp-t0.3-*.parquet"))
    after = snapshot(results)
    lost = [p for p in before if p not in after]
    assert lost == []
    unchanged = [p for p in before if p.parts[0] in ("models", "predictions", "scores", "data") and p.name != file.name]
    assert all(after[p] == before[p] for p in unchanged)
    file.write_bytes(whole)
    os.utime(file, ns=(timestamp.st_atime_ns, timestamp.st_mtime_ns))
    assert changed.planned(*WITH_DEMO) == {"merge": 1, "predict": 1, **JUDGED}


def test_winners_are_exported_whole_and_checked(changed):
    """The experiment keeps no weights; on request, it exports each method's winner with its card, predicting as scored."""
    results = changed.folder / "results/demo"
    assert changed.planned("export", *WITH_DEMO) == {"export": 1}
    out = changed.snakemake("export", "--cores", "2", *WITH_DEMO)
    board = pl.read_parquet(results / "leaderboard.parquet")
    winners = board.filter(pl.col("winner"))
    assert winners["method"].n_unique() == winners.height == 6
    kept = {p.name for p in (results / "export").iterdir() if not p.name.startswith(".")}
    assert kept == set(winners["best_run"])
    runs = dict(pl.read_parquet(results / "runs.parquet").select("run", "test_macro_f1").rows())
    comparisons = pl.read_csv(results / "comparisons.csv")
    for row in winners.iter_rows(named=True):
        folder = results / "export" / row["best_run"]
        model, _ = loading.load_model(folder)
        assert model.config.id2label[0] == "negative"
        card = json.loads((folder / "model.json").read_text())
        assert card == json.loads((results / f"merges/{row['best_run']}/merge.json").read_text())
        assert card["weights"] == checkpoint_files.digest(folder)
        _, heading, body = (folder / "README.md").read_text().split("---\n", 2)
        heading = yaml.safe_load(heading)
        assert {"merge", "mergekit", row["method"]} <= set(heading["tags"])
        assert "license" not in heading and "made from scratch" in body  # it has no parent with a licence
        (result,) = heading["model-index"][0]["results"]
        values = {m["type"]: m["value"] for m in result["metrics"]}
        assert values["macro_f1"] == pytest.approx(runs[row["best_run"]], abs=1e-4)
        assert ("the best of the recipe's 2 on validation" in body) == (row["method"] == "dare_ties")
        for rival in comparisons.filter(pl.col("claim"), candidate=row["candidate"]).iter_rows(named=True):
            line = next(at for at in body.splitlines() if at.startswith(f"| {rival['against']} ({rival['kind']}) |"))
            assert f"| {rival['difference']:+.3f} (" in line
        for parent, digest in card["parents"].items():
            assert f"| {parent} |" in body and digest in body
        assert re.search(r"probabilities of 500 reviews .* \(largest difference [\d.e-]+\)", body)
        assert (folder / "mergekit_config.yml").read_text().rstrip() in body
    for winner in winners["best_run"]:
        assert f"  hf upload OWNER/NAME results/demo/export/{winner}\n" in out
    assert "can the merge do it?" not in out  # it was made before
    assert not changed.planned("export", *WITH_DEMO)


def test_an_export_that_is_not_what_was_scored_is_refused(changed):
    results = changed.folder / "results/demo"
    winner = pl.read_parquet(results / "leaderboard.parquet").filter(pl.col("winner"))["best_run"][0]
    file = results / f"merges/{winner}/merge.json"
    stamp = file.stat()
    before = file.read_text()
    file.write_text(before.replace(json.loads(before)["weights"], "0" * 64))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    out = changed.snakemake("export", "--cores", "2", *WITH_DEMO, ok=False)
    assert (
        f"{winner}: the remade weights differ from the scored ones" in out + (results / "logs/export.log").read_text()
    )
    assert not (results / "export").exists()
    file.write_text(before)


def test_all_merges_are_kept_where_the_experiment_says_so(changed):
    """After a run that kept no weights, only the merges are remade, and nothing before them."""
    found = changed.planned(*WITH_DEMO, "--config", "keep=all")
    assert found["merge"] == 13
    assert "train_expert" not in found


def test_an_interrupted_run_says_how_to_go_on(changed):
    """After Ctrl-C, finished results stay, and the same command plans only the rest."""
    changed.edit(DEMO, "seed: 17", "seed: 18")
    before = changed.planned(*WITH_DEMO)
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "1", *WITH_DEMO], cwd=changed.folder, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("[3/"):
            os.killpg(process.pid, signal.SIGINT)
            break
    said += process.stdout.read()
    assert process.wait() != 0
    assert "Interrupted. Finished results are kept. Rerun the same command to resume." in said
    left = changed.planned(*WITH_DEMO)
    assert 0 < sum(left.values()) <= sum(before.values()) - 3


def test_edits_of_code_make_stale_what_the_table_says(demo, tmp_path):
    """Check rows of the table by Snakemake: edits without effect rerun nothing, a batch size reruns no training."""
    project, run = demo.copy(tmp_path / "edited"), ("--profile", "profiles/local", "--configfile", "config/demo.yaml")
    for what in ("a constant of the causal family", "a check of the experiment", "an error text of prediction"):
        path, old, new, _ = test_code.EDITS[what]
        project.edit(f"workflow/scripts/mllm/{path}", old, new)
    assert not project.planned(*run)
    path, old, new, _ = test_code.EDITS["a batch size of prediction"]
    project.edit(f"workflow/scripts/mllm/{path}", old, new)
    planned = project.planned(*run)
    # The weights of merges are deleted once they are scored, and remade for a prediction.
    assert planned["predict"] == planned["merge"] + 5, planned
    assert planned.keys() == {"predict", "merge", "blend", *test_code.JUDGED}
