"""Run the complete workflow on another table than Drugs.com's, with several tasks."""

import csv

import polars as pl
import pytest

from conftest import Project
from mllm.data import synthetic

EXPERIMENT = """
name: table
seed: 5
data:
  source: local
  train: reviews.csv
  columns: {review: [title, text], rating: stars, kind: kind}
split: {mode: random, valid: 0.2, test: 0.3}
tasks:
  - {name: mood, column: rating, classes: {bad: [1, 2, 3, 4, 5], good: [6, 7, 8, 9, 10]}, ordered: true}
  - {name: topic, column: kind, classes: {ache: [Pain], mind: [Depression], skin: [Acne]}}
models:
  - {name: tiny, family: classifier, source: scratch, architecture: gpt2, width: 32, layers: 1, heads: 2, vocabulary: 600,
     max_length: 32}
base: tiny
experts:
  - {name: mood, task: mood, parts: 2, steps: 4, batch_size: 8, cap: 100}
  - {name: topic, task: topic, parts: 2, steps: 4, batch_size: 8}
merges:
  - {method: linear, members: [mood-*]}
  - {method: ties, members: [topic-*], density: 0.5}
references:
  - {name: tfidf-mood, model: tfidf, task: mood}
  - {name: tfidf-topic, model: tfidf, task: topic}
compare: {metric: macro_f1, margin: 0.01}
keep: winners
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Project:
    from conftest import fresh

    project = fresh(tmp_path_factory.mktemp("tables") / "project")
    raw = synthetic.generate(900, 3, 1)[0]
    rows = list(csv.DictReader(raw.splitlines(keepends=True), delimiter="\t"))
    with (project.folder / "reviews.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["title", "text", "stars", "kind"])
        writer.writerows([r["drugName"], r["review"].strip('"'), int(float(r["rating"])), r["condition"]] for r in rows)
    (project.folder / "config/table.yaml").write_text(EXPERIMENT)
    project.snakemake("--profile", "profiles/local", "--configfile", "config/table.yaml")
    return project


def test_two_tasks_on_a_table_of_one_s_own(finished):
    results = finished.folder / "results/table"
    board = pl.read_csv(results / "leaderboard.csv")
    assert dict(board.group_by("task", "kind").len().select(pl.concat_str("task", "kind", separator=" "), "len").rows()) == {
        "mood base": 1, "mood expert": 2, "mood merge": 1, "mood reference": 1,
        "topic base": 1, "topic expert": 2, "topic merge": 1, "topic reference": 1,
    }  # fmt: skip
    assert board.filter(pl.col("winner")).select("task", "method").rows() == [("mood", "linear"), ("topic", "ties")]
    compared = pl.read_csv(results / "comparisons.csv")
    assert set(compared.select("task", "against").rows()) >= {("mood", "tfidf-mood"), ("topic", "tfidf-topic")}
    assert not any(task not in against for task, against in compared.select("task", "against").rows())
    # Heads of two and of three classes; each base, expert and merge has its task's.
    for name, classes in (("mood-0", 2), ("base-topic", 3)):
        columns = pl.read_parquet(results / f"predictions/{name}.parquet").columns
        assert sum(c.startswith("logp_") for c in columns) == classes
    topic = board.filter(pl.col("candidate") == "tfidf-topic")["test_accuracy"].item()
    assert topic > 0.9  # the drug's name in the title gives it away


def test_its_splits_share_no_text_and_caps_hold(finished):
    import json

    results = finished.folder / "results/table"
    parts = [set(pl.read_parquet(results / f"data/{n}.parquet")["group"]) for n in ("train", "valid", "test")]
    assert not parts[0] & parts[1] and not (parts[0] | parts[1]) & parts[2]
    card = json.loads((results / "models/mood-0/model.json").read_text())
    assert card["part"] == {"shard": 0, "of": 2, "seed": 5, "cap": 100} and card["reviews"] <= 200
    assert "\n\n" in pl.read_parquet(results / "data/train.parquet")["review"][0]


def test_nothing_is_stale_and_another_class_touches_its_task_alone(finished, tmp_path):
    project = finished.copy(tmp_path / "copy")
    arguments = ("--configfile", "config/table.yaml")
    assert not project.planned(*arguments)
    project.edit("config/table.yaml", "{method: linear, members: [mood-*]}", "{method: linear, members: [mood-*], weight: [1.0, {mood-0: 1, mood-1: 3}]}")  # fmt: skip
    jobs = project.planned(*arguments)
    assert jobs["merge"] == jobs["predict"] == 1 and "train_expert" not in jobs
