import json
import shutil

import polars as pl
import pytest
import yaml

from conftest import run_script


def another(demo, folder, name, **changes):
    """The demonstration's results under another name."""
    (folder / name / "data").mkdir(parents=True)
    for file in ("leaderboard.parquet", "experiment.yaml", "data/split.json"):
        shutil.copy(demo.folder / "results/demo" / file, folder / name / file)
    for file, change in changes.items():
        path = folder / name / {"experiment": "experiment.yaml", "split": "data/split.json"}[file]
        path.write_text(json.dumps({**yaml.safe_load(path.read_text()), **change}))
    return folder / name


def test_only_the_same_test_reviews_stand_together(demo, tmp_path):
    first = another(demo, tmp_path, "first")
    second = another(demo, tmp_path, "second", experiment={"seed": 99})
    third = another(demo, tmp_path, "third", split={"sha256": {"test": "f" * 64}})
    printed = run_script("compare_experiments", first, second, third, "--output", tmp_path / "all.csv")
    together, apart = printed.split("third: task")
    assert together.startswith("first, second: task sentiment, test reviews ")
    board = pl.read_parquet(first / "leaderboard.parquet")
    assert all(together.count(f" {name} ") >= 2 for name in board["candidate"]) and apart.count("pain") >= 1
    assert "differs: seed: first 17; second 99" in together and "differs: split" not in printed
    assert "Different tables have different test reviews: do not compare scores between tables." in apart
    assert "Over 2 data sets and tasks (first, sentiment; third, sentiment)" in apart
    assert "Mean ranks over 2: " in apart and "Nemenyi's critical distance" in apart
    table = pl.read_csv(tmp_path / "all.csv", infer_schema_length=None)
    assert table.height == 3 * board.height and table["test_digest"].n_unique() == 2
    alone = run_script("compare_experiments", first)
    assert "do not compare" not in alone
    said = run_script("compare_experiments", first, another(demo, tmp_path / "elsewhere", "first"), ok=False)
    assert "several folders have one name (found 'first')" in said
    said = run_script("compare_experiments", tmp_path, ok=False)
    assert "no leaderboard.parquet; expected a finished experiment's folder" in said
    said = run_script("compare_experiments", first, "--metric", "f1", ok=False)
    assert "--metric: unknown metric (found 'f1'" in said


@pytest.mark.parametrize(
    ("metric", "better"), [("nll", min), ("mae", min), ("calibrated_brier", min), ("accuracy", max)]
)
def test_the_best_stand_first_whatever_is_measured(demo, tmp_path, metric, better):
    """A loss is sorted upwards, also under the name of its calibrated column."""
    board = pl.read_parquet(demo.folder / "results/demo/leaderboard.parquet")
    printed = run_script("compare_experiments", demo.folder / "results/demo", "--metric", metric)
    rows = dict(board.select("candidate", f"valid_{metric}").drop_nulls().rows())
    order = sorted(rows, key=lambda name: printed.index(f" {name} "))
    values = [round(rows[name], 3) for name in order]
    assert values == sorted(values, reverse=better is max) and values[0] == better(values)
