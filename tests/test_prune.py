"""Leftovers of earlier grids are shown, and deleted on request; used files stay."""

import os

import pytest

from conftest import ROOT, run_script
from mllm.experiment import grid, load

DEMO = ROOT / "config/demo.yaml"


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Make empty results of the demonstration, of a merge and an expert that it no longer has, and of a killed run."""
    monkeypatch.chdir(tmp_path)
    built = grid.build(load.load(DEMO))
    folder = tmp_path / "results/demo"
    for name in [*built.merges, "ties-old-0123456789"]:
        for file in (f"merges/{name}/merge.json", f"predictions/{name}.parquet", f"predictions/{name}.cost.json",
                     f"logs/merge/{name}.log", f"benchmarks/predict/{name}.tsv"):  # fmt: skip
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text("x" * 1000)
    for file in ("models/pain/model.json", "models/old/model.json", "checkpoints/pain/state", "checkpoints/acne/state",
                 "export/ties-old-0123456789/model.json", "logs/score.log",
                 "data/split.json", "data/tokens/a.npz", "data/tokens/b.npz", "data/tasks/sentiment/task.json", "predictions/.x.parquet.partial-12"):  # fmt: skip
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("x")
    os.utime(folder / "data/tokens/a.npz", (1, 1))
    (folder / f"merges/{next(iter(built.merges))}/model").mkdir()
    return folder


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


def test_leftovers_are_shown_and_deleted(results):
    before = files(results)
    said = run_script("prune", "--experiment", DEMO)
    assert files(results) == before
    assert "results/demo/predictions: 3 leftovers, 0.0 MB" in said and "Nothing is deleted" in said
    assert "Deleted 10 leftovers" in run_script("prune", "--experiment", DEMO, "--delete")
    gone = before - files(results)
    assert {g for g in gone if "ties-old" not in g} == {
        "checkpoints/pain", "checkpoints/pain/state", "data/tokens/a.npz", "predictions/.x.parquet.partial-12",
        f"merges/{next(iter(grid.build(load.load(DEMO)).merges))}/model",
    }  # fmt: skip
    assert not [name for name in files(results) if "ties-old" in name]
    assert "no leftovers" in run_script("prune", "--experiment", DEMO)


def test_models_of_no_file_go_once_the_files_own_are_there(results):
    """An untrained expert may be one of the leftovers under a new name; its job then reuses it."""
    assert "models/old" not in run_script("prune", "--experiment", DEMO)
    others = ("depression", "acne", "base-sentiment", "larger-on-all", "larger-gpt2-sentiment.base")
    for name in others:
        (results / f"models/{name}").mkdir()
    (results.parent.parent / "config").mkdir()
    other = results.parent.parent / "config/other.yaml"
    other.write_text("name: other\nmodels: [{name: m, source: local, path: results/demo/models/old}]\n")
    assert "models/old" not in run_script("prune", "--experiment", DEMO)
    other.unlink()
    assert "results/demo/models: 1 leftover," in run_script("prune", "--experiment", DEMO)
    assert (results / "models/old").exists()
    run_script("prune", "--experiment", DEMO, "--delete")
    assert {p.name for p in (results / "models").iterdir()} == {"pain", *others}


def test_what_another_experiment_uses_stays(results):
    (results.parent.parent / "config").mkdir()
    (results.parent.parent / "config/other.yaml").write_text(
        "name: other\ncandidates: {from: results/demo/predictions/ties-old-0123456789.parquet}\n"
    )
    run_script("prune", "--experiment", DEMO, "--delete")
    assert (results / "predictions/ties-old-0123456789.parquet").exists()
    assert not (results / "predictions/ties-old-0123456789.cost.json").exists()


OVER_TASKS = """
name: over
data: {source: synthetic, rows: 2000}
tasks: [{name: sentiment, label: sentiment}, {name: rating, label: rating}]
models: [{name: tiny, source: scratch, width: 32, layers: 2, heads: 2, vocabulary: 400, max_length: 48}]
base: tiny
experts: [{name: s, task: sentiment}, {name: r, task: rating}]
merges: [{method: linear, members: [s, r]}]
references: [{name: joint, model: tiny, train: tasks}]
"""


def test_models_over_several_tasks_stay_and_their_weights_go_once_all_tasks_are_predicted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "over.yaml").write_text(OVER_TASKS)
    results, (merge,) = tmp_path / "results/over", grid.build(load.load(tmp_path / "over.yaml")).merges
    for folder in ("models/joint/rating", f"merges/{merge}/model/rating", "logs/train_tasks", "predictions",
                   *(f"models/{m}" for m in ("s", "r", "base-sentiment", "base-rating"))):  # fmt: skip
        (results / folder).mkdir(parents=True)
    (results / "logs/train_tasks/joint.log").touch()
    predicted = [
        results / f"predictions/{name}.{task}.parquet" for name in ("joint", merge) for task in ("rating", "sentiment")
    ]
    for file in predicted[:-1]:
        file.touch()
    assert "no leftovers" in run_script("prune", "--experiment", "over.yaml")
    predicted[-1].touch()
    run_script("prune", "--experiment", "over.yaml", "--delete")
    assert not (results / f"merges/{merge}/model").exists() and (results / "models/joint/rating").exists()
    assert (results / "logs/train_tasks/joint.log").exists() and all(file.exists() for file in predicted)
