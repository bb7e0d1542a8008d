"""Test the report's part on models over several tasks: numbers of the tables, interference by a plain regression."""

import itertools
import json

import numpy as np
import polars as pl
import pytest

from mllm.experiment import load
from mllm.reporting import report, tasks_section
from three_tasks import RAW


@pytest.fixture
def page(three_tasks):
    return report.Report(three_tasks[0], load.parse(RAW), {}), pl.read_parquet(three_tasks[0] / "tasks.parquet")


def test_sections_show_the_tables_numbers(page):
    opened, table = page
    found = {s["id"]: s for s in opened.sections()}
    mean = found["over-tasks-bars"]["figures"][0]["drawn"]["rows"]
    assert [row["label"] for row in mean] == table["system"].to_list()
    assert mean[0]["note"].startswith(f"{100 * table['mean_normalised'][0]:.1f} %")
    assert "interference" not in found and "task-vectors" not in found  # one point, and nothing measured


def test_interference_is_what_a_weight_does_to_the_scores():
    """The regression recovers known effects of the doubled weights; weights that move together give no effects."""
    effect = {("a", "a"): 0.03, ("a", "b"): -0.02, ("b", "a"): -0.05, ("b", "b"): 0.01}

    def board(points):
        rows = [(f"x-{t}", "expert", "", t, None, 0.5, "{}", "") for t in "ab"]
        for n, (weights, density) in enumerate(points):
            for task in "ab":
                score = density + sum(effect[task, other] * np.log2(weights[other]) for other in "ab")
                weight = {f"x-{t}": w for t, w in weights.items()}
                weight = (
                    weight["x-a"] if len(set(weight.values())) == 1 else weight
                )  # recipes have one number for equal weights
                recipe = json.dumps({"density": density, "weight": weight})
                rows.append((f"m{n}.{task}", "merge", "ties", task, f"m{n}", 0.5 * score, recipe, "x-a x-b"))
        columns = ["candidate", "kind", "method", "task", "whole", "valid_accuracy", "recipe", "members"]
        return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)

    apart = [(dict(zip("ab", pair, strict=True)), 0.8) for pair in itertools.product((0.5, 1.0), repeat=2)]
    apart += [({"a": 1.0, "b": 1.0}, 0.6), ({"a": 1.0, "b": 0.5}, 0.6)]
    (map_,) = tasks_section.interference(board(apart), "accuracy").values()
    assert {key: cell.value for key, cell in map_.cells.items()} == pytest.approx(
        {k: 100 * v for k, v in effect.items()}
    )
    together = [({"a": w, "b": w}, 0.8) for w in (0.3, 0.5, 1.0, 2.0)]
    assert tasks_section.interference(board(together), "accuracy") == {}


def test_task_vectors_of_different_tasks(tmp_path):
    """It leaves out pairs within a task, and averages several pairs of two tasks."""
    board = pl.DataFrame(
        {
            "candidate": ["m-0", "m-1", "t"],
            "kind": ["expert"] * 3,
            "task": ["mood", "mood", "topic"],
            "whole": [None] * 3,
        }
    )
    pairs = {("m-0", "m-1"): 0.9, ("m-0", "t"): 0.1, ("m-1", "t"): 0.3}
    rows = [("mood topic", "all", "cosine", None, a, b, v) for (a, b), v in pairs.items()]
    rows += [
        ("mood topic", "all", "sign_conflict", 0.2, None, None, 0.25),
        ("mood", "all", "cosine", None, "m-0", "m-1", 0.5),
    ]
    table = pl.DataFrame(
        rows,
        schema=["task", "layer", "measure", "density", "first", "second", "value"],
        orient="row",
        infer_schema_length=None,
    )
    table.write_csv(tmp_path / "members.csv")
    cosine, signs = tasks_section.between_tasks(tmp_path / "members.csv", board).values()
    assert {k: c.value for k, c in cosine.cells.items()} == {("whole model", "mood – topic"): pytest.approx(0.2)}
    assert {k: c.value for k, c in signs.cells.items()} == {("whole model", "20% of the entries"): 0.25}
    assert tasks_section.between_tasks(tmp_path / "none.csv", board) == {}
