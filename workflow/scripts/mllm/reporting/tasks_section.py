"""Build sections on models over several tasks: normalised scores, interference, task vectors of different tasks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mllm.evaluation import tasks_choice
from mllm.reporting.heat_map import Cell, HeatMap
from mllm.reporting.row_chart import Point, Row, RowChart

MOST = 12  # merges of one chart, beside each method's best
Charts = dict[str, Any]


def parts(results: Path, table: pl.DataFrame, board: pl.DataFrame, metric: str) -> list[tuple[str, str, str, Charts]]:
    """Return (id, title, text, charts) of each section; without charts where the experiment lacks their data.

    Args:
        results: the experiment's folder.
        table: tasks.csv.
        board: the leaderboard.
        metric: which.
    """
    merge = pl.col("kind") == "merge"
    shown = table.filter(~merge | pl.col("winner") | (merge.cum_sum() <= MOST))
    return [
        ("over-tasks-bars", "Scores over the tasks", "100 % is each task’s best expert on validation. Intervals are 95 %, from resamples that all tasks share. The interval of"
         " the lowest score is valid whichever task is truly the lowest. Filled: one model.", {"mean over the tasks": rows(shown, "mean"), "lowest task": rows(shown, "worst")}),
        ("interference", "Interference between tasks", "How much doubling the weight of one task’s experts changes each task’s normalised score on validation,"
         " in percentage points (least squares over a method’s points). The grid must vary the tasks’ weights separately.", interference(board, metric)),
        ("task-vectors", "Task vectors of different tasks", "Cosine of the angle between experts’ task vectors, and the share of entries on which signs differ, layer by layer."
         " Cosine 0: the tasks moved the weights in unrelated directions.", between_tasks(results / "diagnostics/members.csv", board)),
    ]  # fmt: skip


def rows(table: pl.DataFrame, how: str) -> RowChart:
    """Draw the mean or lowest normalised score of each system; filled where it is one model."""
    made = []
    for r in table.iter_rows(named=True):
        value, low, high = (100 * r[f"{how}_normalised{end}"] for end in ("", "_low", "_high"))
        note = f"{value:.1f} % ({low:.1f} – {high:.1f})" + (f", {r['worst_task']}" if how == "worst" else "")
        facts = {"system": r["system"], "kind": r["kind"], "tasks": r["tasks"], "n_parameters": r["n_parameters"]}
        one = len(set(r["candidates"].split())) == len(r["tasks"].split()) and r["kind"] in ("merge", "reference")
        made.append(
            Row(
                label=r["system"],
                points=[Point(value=value, low=low, high=high, colour=r["kind"], filled=one, facts=facts)],
                note=note,
            )
        )
    return RowChart(rows=made, axis=f"{how.replace('worst', 'lowest')} score, in per cent of the experts’")


def interference(board: pl.DataFrame, metric: str) -> Charts:
    """Return method -> score of a task (rows) × weight of a task (columns), where the grid varies the weights separately.

    Normalised scores on validation are regressed on the logarithms of all tasks' weights at once, with an intercept for each
    combination of the other parameters.
    """
    made: Charts = {}
    for (method,), part in tasks_choice.parts(board).group_by("method", maintain_order=True):
        points = _points(part, board, metric)
        most = max((len(p[1]) for p in points), default=0)
        points = [p for p in points if len(p[1]) == most and p[1].keys() == p[2].keys()]
        tasks, others = sorted(points[0][1]) if points else [], sorted({p[0] for p in points})
        x = np.array([[*(p[0] == other for other in others), *(p[1][t] for t in tasks)] for p in points], dtype=float)
        if not points or len(points) <= x.shape[1] or np.linalg.matrix_rank(x) < x.shape[1]:
            continue
        y = np.array([[p[2][t] for t in tasks] for p in points])
        slopes = np.linalg.lstsq(x, y, rcond=None)[0][len(others) :]
        cells = {
            (a, b): Cell(value=100 * float(slopes[j, i])) for i, a in enumerate(tasks) for j, b in enumerate(tasks)
        }
        made[str(method)] = HeatMap(rows=tasks, columns=tasks, cells=cells, of_rows="score of", of_columns="weight of")
    return made


Weighted = tuple[str, dict[str, float], dict[str, float]]
"""Hold a merge over tasks: its other parameters, log2 of each task's mean weight, each task's normalised score."""


def _points(part: pl.DataFrame, board: pl.DataFrame, metric: str) -> list[Weighted]:
    """Return a method's merges over tasks whose weights are numbers above 0; a single number is each member's weight."""
    expert = tasks_choice.own_experts(board, metric)
    value = dict(board.select("candidate", f"valid_{metric}").rows())
    task_of = dict(board.filter(kind="expert").filter(pl.col("whole").is_null()).select("candidate", "task").rows())
    found: dict[str, Weighted] = {}
    for r in part.iter_rows(named=True):
        recipe = json.loads(r["recipe"])
        weight = recipe.pop("weight", 1.0)
        members = weight if isinstance(weight, dict) else dict.fromkeys(r["members"].split(), weight)
        if not all(isinstance(v, int | float) and v > 0 and m in task_of for m, v in members.items()):
            continue
        of: dict[str, list[float]] = {}
        for member, own in members.items():
            of.setdefault(task_of[member], []).append(float(np.log2(own)))
        weights = {task: float(np.mean(logs)) for task, logs in of.items()}
        _, _, scores = found.setdefault(r["whole"], (json.dumps(recipe, sort_keys=True), weights, {}))
        scores[r["task"]] = tasks_choice.normalised(
            value[r["candidate"]], value[expert[r["task"]]], metric, f"task {r['task']}, {r['candidate']}"
        )
    return list(found.values())


def between_tasks(path: Path, board: pl.DataFrame) -> Charts:
    """Draw cosines and sign conflicts between experts of different tasks, layer by layer; empty where not measured."""
    if not path.exists():
        return {}
    table = pl.read_csv(
        path, schema_overrides={"first": pl.String, "second": pl.String, "density": pl.Float64, "value": pl.Float64}
    )
    task_of = dict(board.filter(kind="expert").filter(pl.col("whole").is_null()).select("candidate", "task").rows())
    task = pl.col("task")
    several = sorted(
        set(table["task"]) - set(task_of.values()), key=len
    )  # the experts of several tasks together; of most of them
    if not several:
        return {}
    wide = table.filter(task == several[-1], pl.col("value").is_not_null())
    layers = wide["layer"].unique(maintain_order=True).to_list()
    names = {layer: "whole model" if layer == "all" else layer for layer in layers}
    made: Charts = {}
    cosine: dict[tuple[str, str], list[float]] = {}
    for r in wide.filter(measure="cosine").iter_rows(named=True):
        first, second = sorted((task_of.get(r["first"], ""), task_of.get(r["second"], "")))
        if first and first != second:
            cosine.setdefault((names[r["layer"]], f"{first} – {second}"), []).append(r["value"])
    if cosine:
        cells = {key: Cell(value=float(np.mean(of))) for key, of in cosine.items()}
        columns = sorted({column for _, column in cells})
        made["cosine, mean over pairs of experts"] = HeatMap(
            rows=[n for n in names.values() if any((n, c) in cells for c in columns)], columns=columns, cells=cells, of_rows="layer", of_columns="tasks", ends=(-0.2, 1.0),
        )  # fmt: skip
    signs = {
        (names[r["layer"]], f"{r['density']:.0%} of the entries"): Cell(value=r["value"])
        for r in wide.filter(measure="sign_conflict").iter_rows(named=True)
    }
    if signs:
        made["sign conflicts among all experts"] = HeatMap(
            rows=[n for n in names.values() if any(row == n for row, _ in signs)], columns=list(dict.fromkeys(c for _, c in signs)), cells=signs,
            of_rows="layer", of_columns="largest", share=True,
        )  # fmt: skip
    return made
