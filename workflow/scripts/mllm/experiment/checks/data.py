"""Check the data, split and tasks of an experiment file against other keys."""

from collections import Counter
from typing import Any

from mllm.core.wording import listed, nearest
from mllm.experiment.names import dicts
from mllm.experiment.review_columns import BUILT_IN, SLICEABLE, TAKEN, TAKEN_PREFIXES

NEEDS = {"rating": "rating", "sentiment": "rating", "condition": "condition"}  # label -> column


def columns_of(raw: dict[str, Any]) -> list[str]:
    """Return the columns that slices and tasks can use."""
    mapped = _mapped(raw)
    if dicts([raw.get("data")])[0].get("source") == "predictions":  # the columns of its tables are unknown here
        return [t["column"] for t in dicts(raw.get("tasks")) if isinstance(t.get("column"), str)]
    if mapped is None:
        return list(SLICEABLE)
    known = [c for c in SLICEABLE if c in mapped or (c == "year" and "date" in mapped)]
    return known + [c for c in mapped if c not in BUILT_IN]


def data_problems(raw: dict[str, Any]) -> list[str]:
    """Return one line for each key of data, split or tasks that does not fit with another key."""
    problems = []
    data, split = (dicts([raw.get(key)])[0] for key in ("data", "split"))
    mapped, mode = _mapped(raw), split.get("mode", "official-clean")
    if mapped is not None:
        if "review" not in mapped:
            problems.append("data.columns.review: missing. Fix: add review: the file's column or columns with the text")
        problems += [
            f"data.columns.{c}: the name is taken by a column of this project. Fix: choose another"
            for c in mapped
            if c in TAKEN or c.startswith(TAKEN_PREFIXES)
        ]
    if data.get("source") == "local" and data.get("test") is None and mode in ("official-clean", "official"):
        problems.append(
            f"data.test: missing; without a test file, split.mode must be random (found {mode})."
            " Fix: split: {mode: random}"
        )
    if split.get("test") is not None and mode != "random":
        problems.append(f"split.test: only for mode: random, not {mode}, which takes test from the test file")
    fractions = [split.get("valid", 0.1), split.get("test", 0.25)]
    if mode == "random" and all(isinstance(f, int | float) and 0 < f < 1 for f in fractions) and sum(fractions) >= 1:
        problems.append(
            f"split: valid and test sum to {sum(fractions):g} of all reviews (expected less than 1), which leaves none"
            " to train on"
        )
    problems += _source_problems(raw, data.get("source"), mode)
    for i, entry in enumerate(dicts(raw.get("tasks"))):
        problems += [f"tasks[{i}].{p}" for p in _task_problems(entry, mapped, columns_of(raw))]
    return problems


def path_problems(raw: dict[str, Any]) -> list[str]:
    """Return a problem for each path with braces, which Snakemake always reads as wildcards."""
    data, candidates = (dicts([raw.get(key)])[0] for key in ("data", "candidates"))
    paths = {"data.train": data.get("train"), "data.test": data.get("test"), "candidates.from": candidates.get("from")}
    paths |= {f"models[{i}].path": model.get("path") for i, model in enumerate(dicts(raw.get("models")))}
    return [
        f"{where}: found {path!r}, expected a path without braces, which Snakemake reads as wildcards."
        " Fix: rename it, or link to it under another name"
        for where, path in paths.items()
        if isinstance(path, str) and set(path) & set("{}")
    ]


def metric_problems(raw: dict[str, Any]) -> list[str]:
    """Return a problem if the metric needs ordered classes and a task's classes have no order."""
    metric, needs_order = dicts([raw.get("compare")])[0].get("metric"), ("kappa_quadratic", "mae", "spearman")
    unordered = [
        str(t.get("name"))
        for t in dicts(raw.get("tasks"))
        if t.get("label") == "condition" or (t.get("column") and not t.get("ordered"))
    ]
    if metric not in needs_order or not unordered:
        return []
    return [
        f"compare.metric: {metric} needs ordered classes, but the classes of task {listed(unordered)} have no order."
        " Fix: choose another metric, or set ordered: true if they have one"
    ]


def _source_problems(raw: dict[str, Any], source: Any, mode: Any) -> list[str]:
    """Return problems of keys that the source needs or excludes: models for reviews, candidates for predictions."""
    models = {"models": "name the checkpoints to use", "base": "name the model from which all experts start",
              "experts": "name the models to merge"}  # fmt: skip
    if source != "predictions":
        missing = [f"{key}: missing. Fix: {what}" for key, what in models.items() if raw.get(key) in (None, [], "")]
        wrong = ["candidates: only for data.source: predictions"] if raw.get("candidates") is not None else []
        return missing + wrong
    problems = [
        f"{key}: found beside data.source: predictions, which has no models. Fix: remove it"
        for key in (*models, "merges", "references")
        if raw.get(key)
    ]
    tasks = dicts(raw.get("tasks"))
    if raw.get("candidates") is None:
        problems.append("candidates: missing. Fix: name the folder of the predictions, and the kind of each table")
    if mode != "random":
        problems.append(f"split.mode: found {mode}, expected random with data.source: predictions")
    if dicts([raw.get("split")])[0].get("test") is not None:
        problems.append(
            "split.test: with data.source: predictions, test is everything outside validation. Fix: remove it"
        )
    if len(tasks) > 1:
        problems.append(f"tasks: found {len(tasks)}, expected one with data.source: predictions")
    if tasks and tasks[0].get("label") == "condition":
        problems.append("tasks[0].label: condition has no built-in classes. Fix: give column and classes")
    return problems


def task_entry_problems(entry: dict[str, Any], tasks: list[str]) -> list[str]:
    """Return the problem of the task that an expert or reference names or omits."""
    task = entry.get("task")
    if task is None and len(tasks) > 1:
        return [f"task: missing (found {len(tasks)} tasks, expected one of {listed(tasks)})"]
    if isinstance(task, str) and tasks and task not in tasks:
        return [f"task: found {task!r}, expected one of {listed(tasks)}{nearest(task, tasks)}"]
    return []


def tasks_of(raw: dict[str, Any], experts: list[tuple[str, dict[str, Any]]], tasks: list[str]) -> dict[str, Any]:
    """Return name -> task of everything that has predictions before merges and blends."""
    only = tasks[0] if len(tasks) == 1 else None
    found: dict[str, Any] = {f"base-{task}": task for task in tasks}
    found |= {name: entry.get("task") or only for name, entry in experts}
    return found | {
        r["name"]: r.get("task") or only for r in dicts(raw.get("references")) if isinstance(r.get("name"), str)
    }


def _task_problems(entry: dict[str, Any], mapped: list[str] | None, columns: list[str]) -> list[str]:
    label, column, classes = entry.get("label"), entry.get("column"), entry.get("classes")
    problems = []
    if label is None and column is None:
        problems.append(
            "label: missing (expected rating, sentiment or condition; or column and classes, for labels of your own)"
        )
    if label is not None and (column is not None or classes is not None):
        problems.append("label: found beside column or classes, expected label alone, or column with classes")
    if column is not None and classes is None:
        problems.append("classes: missing (expected a map of class name: values of the column)")
    if classes is not None and column is None and label is None:
        problems.append("column: missing (expected the column whose values make the classes)")
    if isinstance(column, str) and column not in columns:
        problems.append(f"column: found {column!r}, expected one of {listed(columns)}{nearest(column, columns)}")
    if isinstance(label, str) and mapped is not None and NEEDS.get(label) not in (None, *mapped):
        problems.append(f"label: {label} needs data.columns.{NEEDS[label]}, which is missing. Fix: add it to columns")
    if label == "condition" and entry.get("top") is None:
        problems.append("top: missing (expected the number of conditions, with label: condition)")
    if label != "condition" and entry.get("top") is not None:
        problems.append(f"top: only for label: condition, not {label}")
    if entry.get("ordered") is not None and column is None:
        problems.append("ordered: only beside column and classes; built-in labels have a fixed order. Fix: remove it")
    if isinstance(classes, dict):
        values = [
            str(v) for listed_values in classes.values() if isinstance(listed_values, list) for v in listed_values
        ]
        problems += [f"classes: value {v!r} occurs {count} times" for v, count in Counter(values).items() if count > 1]
    return problems


def _mapped(raw: dict[str, Any]) -> list[str] | None:
    data = raw.get("data")
    columns = data.get("columns") if isinstance(data, dict) else None
    return [c for c in columns if isinstance(c, str)] if isinstance(columns, dict) else None
