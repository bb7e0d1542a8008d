"""Make an experiment with three tasks and merges over them from invented predictions: seconds until the verdict."""

import json

import numpy as np
import polars as pl
import yaml

from conftest import run_script, write_split
from mllm.data import labelled
from mllm.experiment import grid, load
from mllm.prediction import prediction_tables
from mllm.prediction.costs import Cost

SEED, TEXTS = 17, {"valid": 150, "test": 260}
CLASSES = {"rating": 4, "mood": 3, "topic": 3}
RAW = {
    "name": "three",
    "data": {"source": "synthetic"},
    "tasks": [
        {"name": "rating", "column": "useful_count", "classes": {c: [c] for c in "abcd"}, "ordered": True},
        {"name": "mood", "label": "sentiment"},
        {"name": "topic", "label": "condition", "top": 3},
    ],
    "models": [{"name": "tiny", "source": "scratch"}, {"name": "big", "source": "scratch"}],
    "base": "tiny",
    "experts": [{"name": "rating", "task": "rating"}, {"name": "m", "task": "mood", "parts": 2}, {"name": "t", "task": "topic"}],
    "merges": [
        {"method": "ties", "density": [0.5, 0.9], "members": ["*"]},
        {"method": "linear", "weight": {"rating": 1.0, "mood": 0.5, "topic": 1.0}, "members": ["*"]},
        {"method": "slerp", "t": 0.5, "members": {"mood": ["*"]}},
    ],
    "blends": [{"name": f"v-{task}", "method": "soft_vote", "members": members} for task, members in (("mood", ["m-*"]), ("topic", ["t", "base-topic"]))],
    "references": [
        {"name": "joint", "model": "tiny", "train": "tasks"},
        *({"name": f"big-{task}", "model": "big", "task": task} for task in CLASSES),
    ],
}  # fmt: skip
SKILL = {"base": 0.0, "expert": 0.8, "reference": 0.85, "blend": 0.8, "ties": 0.72, "linear": 0.6, "slerp": 0.75}


def write_data(folder):
    """Make reviews of all splits: rating and mood label all, topic half; a third of the texts occur twice."""
    rng = np.random.default_rng(0)
    parts, first = {}, 0
    for split, n in TEXTS.items():
        ids = np.arange(first, first + n)
        first += n
        parts[split] = pl.DataFrame(
            {"review_id": ids, "group": np.where(ids % 3, ids, ids - ids % 2), "label_t": rng.integers(0, 2, n)}
        )
    folder.mkdir(parents=True)
    write_split(folder, ["bad", "good"], **parts)
    ids, labels = np.arange(first), {}
    for task, classes in CLASSES.items():
        own = pl.DataFrame({"review_id": ids, "label": rng.integers(0, classes, first)})
        labels[task] = own.filter(pl.col("review_id") % 2 == 0) if task == "topic" else own
        names = [f"c{k}" for k in range(classes)]
        labelled.write_task(
            folder, task, {"names": names, "label": {"mood": "sentiment"}.get(task, "condition")}, labels[task]
        )
    split = {"mode": "random", "test_rows": TEXTS["test"], "test_rows_also_in_train": 0}
    (folder / "split.json").write_text(json.dumps(split))
    return labels


def write_predictions(results, built, labels):
    """Draw labels: each candidate is right by its own chance and the review's."""
    luck = np.random.default_rng(1).random(sum(TEXTS.values()))
    (results / "predictions").mkdir()
    for number, (name, c) in enumerate(built.candidates.items()):
        own, classes, rng = labels[c.task], CLASSES[c.task], np.random.default_rng([2, number])
        ids, truth = own["review_id"].to_numpy(), own["label"].to_numpy()
        skill = SKILL[c.method if c.kind == "merge" else c.kind] - 0.12 * (c.task == "topic") * (c.whole != "")
        right = 0.7 * luck[ids] + 0.3 * rng.random(len(ids)) < skill
        said = np.where(right, truth, rng.integers(0, classes, len(ids)))
        p = np.full((len(ids), classes), 0.2 / classes) + 0.8 * np.eye(classes)[said]
        rows = own.with_columns(
            split=pl.when(pl.col("review_id") < TEXTS["valid"]).then(pl.lit("valid")).otherwise(pl.lit("test"))
        )
        prediction_tables.write_predictions(results / f"predictions/{name}.parquet", rows, np.log(p))
        size = 1000 if name.startswith("big") else 300 if c.kind == "blend" else 100
        whole = 104 if c.whole else None
        Cost(reviews=len(ids), n_parameters=size, parameters_of_whole=whole).write(
            results / f"predictions/{name}.cost.json"
        )


def make(root):
    """Return the experiment's folder, from hand-written predictions to the verdict, with its grid and labels."""
    results, built = root / "results/three", grid.build(load.parse(RAW))
    labels = write_data(results / "data")
    write_predictions(results, built, labels)
    (root / "three.yaml").write_text(yaml.safe_dump(RAW))
    run(root, "score", "--output", results / "scores")
    run(root, "leaderboard")
    run(root, "compare")
    return results, built, labels


def run(root, script, *more, ok=True):
    return run_script(script, "--experiment", root / "three.yaml", "--results", root / "results/three", *more, ok=ok)
