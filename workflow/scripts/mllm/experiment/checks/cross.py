"""Check an experiment file's keys against each other; each problem names the key, the found and the allowed values."""

import re
from typing import Any

from mllm.core.wording import listed, nearest
from mllm.experiment.checks.data import (
    columns_of,
    data_problems,
    metric_problems,
    path_problems,
    task_entry_problems,
    tasks_of,
)
from mllm.experiment.checks.families import family_problems, label_problems
from mllm.experiment.checks.freezing import freezing_problems
from mllm.experiment.checks.members import member_problems
from mllm.experiment.checks.merges import merge_problems, moe_problems
from mllm.experiment.checks.over_tasks import reference_problems, task_problems
from mllm.experiment.names import dicts, expert_names, is_pattern, match, names_in, repeated


def cross_problems(raw: dict[str, Any]) -> list[str]:
    """Return one line for each name that is unknown, is a duplicate, or does not fit with another key.

    Works on unchecked values, and skips what the schema itself will refuse.
    """
    problems: list[str] = []
    models = names_in(raw.get("models"))
    experts = expert_names(raw)
    base = raw.get("base")
    if isinstance(base, str) and models and base not in models:
        problems.append(f"base: found {base!r}, expected one of models: {listed(models)}{nearest(base, models)}")
    if raw.get("name") == "downloads":
        problems.append(
            "name: found 'downloads', but results/downloads holds the files that all experiments share."
            " Fix: choose another name"
        )
    problems += path_problems(raw)
    problems += [f"models: name {name!r} occurs {count} times" for name, count in repeated(models)]
    problems += family_problems(raw)
    tasks = names_in(raw.get("tasks"))
    problems += [f"tasks: name {name!r} occurs {count} times" for name, count in repeated(tasks)]
    bases = [f"base-{task}" for task in tasks]
    problems += _name_problems(raw, experts, tasks)
    problems += label_problems(raw)
    names = [name for name, _ in experts]
    task_of = tasks_of(raw, experts, tasks)
    of_experts = {name: task_of[name] for name in names}
    problems += data_problems(raw) + metric_problems(raw)
    for i, entry in enumerate(dicts(raw.get("merges"))):
        problems += [f"merges[{i}].{p}" for p in merge_problems(entry, of_experts, tasks)]
    problems += moe_problems(raw) + task_problems(raw, of_experts, tasks)
    trained = {name: task_of[name] for name, entry in experts if entry.get("model") is None}
    scratch = names_in([m for m in dicts(raw.get("models")) if m.get("source") == "scratch"])
    for i, entry in enumerate(dicts(raw.get("experts"))):
        problems += [f"experts[{i}].{p}" for p in _expert_problems(entry, columns_of(raw), models, scratch)]
        problems += [f"experts[{i}].{p}" for p in task_entry_problems(entry, tasks)]
    for i, entry in enumerate(dicts(raw.get("references"))):
        problems += [f"references[{i}].{p}" for p in _reference_problems(entry, models)]
        problems += [f"references[{i}].{p}" for p in reference_problems(entry, trained, tasks)]
        if entry.get("train") != "tasks":
            problems += [f"references[{i}].{p}" for p in task_entry_problems(entry, tasks)]
    problems += _batch_problems(raw)
    problems += freezing_problems(raw)
    for i, entry in enumerate(dicts(raw.get("blends"))):
        allowed = [*names, *names_in(raw.get("references")), *bases]
        problems += _mixed_tasks(f"blends[{i}]", entry, task_of, "they predict different labels")
        problems += [f"blends[{i}].{p}" for p in _blend_members(entry, allowed if names else [], raw)]
    return problems


def _name_problems(raw: dict[str, Any], experts: list[tuple[str, dict[str, Any]]], tasks: list[str]) -> list[str]:
    """Return one line for each name that several candidates have, or that is reserved."""
    problems: list[str] = []
    bases = [f"base-{task}" for task in tasks]
    sliced = any(isinstance(entry.get("where"), dict) for entry in dicts(raw.get("experts")))
    routers = [f"router-{task}" for task in tasks if sliced]

    candidates = [*bases, *routers, *(name for name, _ in experts), *names_in(raw.get("references"))]
    candidates += [b["name"] for b in dicts(raw.get("blends")) if isinstance(b.get("name"), str)]
    for name, count in repeated(candidates):
        hint = " (the base of a task has that name)" if name in bases else ""
        hint = " (the router of a task has that name)" if name in routers else hint
        problems.append(
            f"{name!r} names {count} candidates{hint}. Fix: give experts, references and blends different names"
        )

    problems += [
        f"{name!r}: names that end in .base are reserved for prepared bases. Fix: choose another name"
        for name in candidates
        if name.endswith(".base")
    ]

    return problems + [
        f"{name!r}: reserved as the key of a parameter that changes with depth. Fix: give the expert another name"
        for name, _ in experts
        if name == "layers"
    ]


def _blend_members(entry: dict[str, Any], allowed: list[str], raw: dict[str, Any]) -> list[str]:
    """Return problems of members that are no base, expert or reference; the grid checks those that may be merges."""
    methods = [m["method"] for m in dicts(raw.get("merges")) if isinstance(m.get("method"), str)]
    patterns = entry.get("members")
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        return []

    def may_be_merge(pattern: str) -> bool:
        start = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        return any(pattern.startswith(m) or (is_pattern(pattern) and m.startswith(start)) for m in methods)

    return member_problems([p for p in patterns if not may_be_merge(p)], allowed)[1]


def _expert_problems(entry: dict[str, Any], columns: list[str], models: list[str], scratch: list[str]) -> list[str]:
    problems = []
    if entry.get("model") is not None:
        model, idle = entry["model"], [k for k in entry if k not in ("name", "task", "model", "labels")]
        if isinstance(model, str) and model not in models:
            problems.append(f"model: found {model!r}, expected one of models: {listed(models)}{nearest(model, models)}")
        if model in scratch:
            problems.append(f"model: {model!r} has no trained weights (found source scratch, expected hub or local)")
        if idle:
            problems.append(
                f"{idle[0]}: found beside model, which is taken as it is, without training. Fix: remove one of them"
            )
    if entry.get("epochs") is not None and entry.get("steps") is not None:
        problems.append("epochs: found beside steps, expected one of them. Fix: remove one")
    if entry.get("parts") is not None and entry.get("where") is not None:
        problems.append("parts: found beside where, expected one of them. Fix: remove one")
    if isinstance(entry.get("where"), dict):
        for column in entry["where"]:
            if column not in columns:
                problems.append(f"where.{column}: unknown column; allowed: {listed(columns)}{nearest(column, columns)}")
    return problems


def _mixed_tasks(where: str, entry: dict[str, Any], task_of: dict[str, Any], why: str) -> list[str]:
    patterns = entry.get("members")
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        return []
    members = match(patterns, list(task_of))
    if len({str(task_of[m]) for m in members}) < 2:
        return []
    shown = [f"{m} ({task_of[m]})" for m in members]
    return [f"{where}.members: found members of different tasks: {listed(shown)}; {why}. Fix: name members of one task"]


def _reference_problems(entry: dict[str, Any], models: list[str]) -> list[str]:
    from mllm.experiment.training_entries import BASELINES

    model, problems = entry.get("model"), []
    allowed = [*models, *BASELINES]
    if isinstance(model, str) and model not in allowed:
        problems.append(f"model: found {model!r}, expected one of {listed(allowed)}{nearest(model, allowed)}")
    if entry.get("epochs") is not None and entry.get("steps") is not None:
        problems.append("epochs: found beside steps, expected one of them. Fix: remove one")
    return problems


def _batch_problems(raw: dict[str, Any]) -> list[str]:
    """Return a problem for each batch size that the model's GPUs cannot share equally."""
    gpus = {m["name"]: m.get("gpus", 1) for m in dicts(raw.get("models")) if isinstance(m.get("name"), str)}
    problems = []
    for kind in ("experts", "references"):
        for i, entry in enumerate(dicts(raw.get(kind))):
            name = raw.get("base") if kind == "experts" else entry.get("model")
            number, batch = gpus.get(name) if isinstance(name, str) else 1, entry.get("batch_size", 16)
            if isinstance(number, int) and isinstance(batch, int) and number > 0 and batch % number:
                problems.append(
                    f"{kind}[{i}].batch_size: found {batch}, expected a multiple of {number}, so that batches can be"
                    f" shared equally by the {number} GPUs of model {name!r}"
                )
    return problems
