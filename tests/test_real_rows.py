"""Run the complete workflow on real reviews."""

import json

import polars as pl

# This is the shipped experiment with less of everything except reviews: it tests the data, not the training.
SMALLER = {
    "width: 64": "width: 32", "layers: 2": "layers: 1", "max_length: 192": "max_length: 64", "{steps: 150": "{steps: 30",
    "steps: 200": "steps: 40",
    "  - {method: slerp, members: [shard-0, shard-1], t: [0.5]}\n": "",
    "  - {method: dare_linear, members: [shard-*], density: [0.9], weight: 0.33}\n": "",
    "  - {method: dare_ties, members: [shard-*], density: [0.9], weight: 0.4}\n": "",
}  # fmt: skip


def test_real_rows_end_in_a_leaderboard(project, real_rows):
    for old, new in SMALLER.items():
        project.edit("config/local.yaml", old, new)
    files = f"data={{train: {real_rows}/drugsComTrain_raw.tsv, test: {real_rows}/drugsComTest_raw.tsv}}"
    arguments = ("--configfile", "config/local.yaml", "--config", files)
    out = project.snakemake("--profile", "profiles/local", *arguments)
    assert "local: 9 candidates" in out
    board = pl.read_csv(project.folder / "results/local/leaderboard.csv", infer_schema_length=None)
    majority = board.filter(pl.col("candidate") == "majority")["test_accuracy"].item()
    assert board.filter(pl.col("candidate") == "tfidf")["test_accuracy"].item() > majority + 0.05
    facts = json.loads((project.folder / "results/local/data/split.json").read_text())
    assert facts["test_rows"] == 3500
    assert facts["test_rows_also_in_train"] > 0
    assert not project.planned(*arguments)
