"""Test the interface for notebooks and terminals: `mllm.open`, and the command `mllm`."""

import subprocess
import sys

import polars as pl
import pytest

import mllm
from conftest import ROOT
from mllm.core.errors import Failure


def test_tables_and_words_are_those_of_the_folder(demo):
    results = mllm.open(demo.folder / "results/demo")
    assert results.leaderboard.equals(pl.read_parquet(results.folder / "leaderboard.parquet"))
    assert results.comparisons.equals(pl.read_parquet(results.folder / "comparisons.parquet"))
    assert set(results.comparisons.filter("claim")["answer"]) <= {"Yes", "No", "Not shown"}
    assert results.table("selection").height and "demo" in repr(results)
    assert results.verdict == (results.folder / "verdict.md").read_text()
    assert results.candidates == results.leaderboard["candidate"].to_list()


def test_predictions_give_the_leaderboards_accuracy(demo):
    results = mllm.open(demo.folder / "results/demo")
    row = results.leaderboard.filter(kind="expert").row(0, named=True)
    test = results.predictions(row["candidate"]).filter(split="test")
    reviews = pl.read_parquet(results.folder / "data/test.parquet").select("review_id", "group")
    by_text = test.join(reviews, on="review_id").group_by("group").agg((pl.col("predicted") == pl.col("label")).mean())
    assert by_text["predicted"].mean() == pytest.approx(row["test_accuracy"], abs=1e-12)


def test_a_model_predicts_what_its_table_says(demo):
    import torch

    results = mllm.open(demo.folder / "results/demo")
    name = results.leaderboard.filter(kind="expert")["candidate"][0]
    model, tokenizer = results.model(name)
    row = results.predictions(name).filter(split="test").row(0, named=True)
    reviews = pl.read_parquet(results.folder / "data/test.parquet")
    text = reviews.filter(review_id=row["review_id"])["review"][0]
    with torch.no_grad():
        logits = model(**tokenizer(text, truncation=True, max_length=128, return_tensors="pt")).logits[0]
    expected = [row[f"logp_{k}"] for k in range(3)]
    assert logits.log_softmax(-1).tolist() == pytest.approx(expected, abs=1e-4)


def test_what_is_not_there_is_said(demo, tmp_path):
    with pytest.raises(Failure, match="no results"):
        mllm.open(tmp_path)
    results = mllm.open(demo.folder / "results/demo")
    with pytest.raises(Failure, match="did you mean 'acne'"):
        results.predictions("acme")
    winners = set(results.leaderboard.filter("winner")["candidate"])
    lost = next(n for n in results.leaderboard.filter(kind="merge")["candidate"] if n not in winners)
    with pytest.raises(Failure, match="weights were not kept"):
        results.model(lost)
    with pytest.raises(Failure, match="without a model folder"):
        results.model("tfidf")


def command(*arguments: object, cwd=ROOT) -> subprocess.CompletedProcess[str]:
    code = "from mllm.interface.command import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT / "workflow/scripts"), "PATH": "/usr/bin:/bin", "HOME": "/tmp"},
    )  # fmt: skip


def test_the_command_is_snakemakes(demo, tmp_path):
    said = command("dry-run", "config/demo.yaml", "--quiet", cwd=demo.folder)
    assert said.returncode == 0, said.stderr
    assert "-m snakemake --dry-run --configfile config/demo.yaml --quiet" in said.stderr
    assert "no Snakefile found" in command("grid", "config/demo.yaml", cwd=tmp_path).stderr
    shown = command("--help").stdout
    assert all(word in shown for word in ("run", "grid", "export", "compare", "doctor"))


def test_the_package_is_installed_in_the_environment(tmp_path):
    code = "import mllm, sys; print(mllm.open.__module__, mllm.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "mllm/__init__.py" in done.stdout, done.stderr
