"""Check models over several tasks: merges of their experts, references trained on them, and their prompts."""

from collections.abc import Mapping
from typing import Any

from mllm.core.wording import listed, nearest
from mllm.experiment import family_names as families
from mllm.experiment import over_tasks
from mllm.experiment.checks.members import member_problems
from mllm.experiment.names import dicts, names_in


def chosen(patterns: Any, task_of: Mapping[str, Any], tasks: list[str]) -> tuple[list[str], list[str]]:
    """Return the members that a merge's ``members`` match, and the problems of ``members``.

    Args:
        patterns: names and patterns, or a map of task to them.
        task_of: expert -> task, for all experts.
        tasks: names of the experiment's tasks.
    """
    if not isinstance(patterns, dict):
        return member_problems(patterns, list(task_of))
    problems: list[str] = [] if patterns else ["members: found no task, expected at least one"]
    for task, own in patterns.items():
        experts = [e for e in task_of if task_of[e] == task]
        if task not in tasks:
            problems.append(f"members: found task {task!r}, expected one of {listed(tasks)}{nearest(str(task), tasks)}")
        elif not experts:
            problems.append(f"members.{task}: task {task} has no expert. Fix: add one, or remove the task here")
        else:
            problems += [f"members.{task}{p.removeprefix('members')}" for p in member_problems(own, experts)[1]]
    readable = not problems and all(isinstance(own, list) and own for own in patterns.values())
    return (over_tasks.chosen(patterns, task_of) if readable else []), problems


def task_problems(raw: dict[str, Any], task_of: Mapping[str, Any], tasks: list[str]) -> list[str]:
    """Return one line for each problem of a model over several tasks.

    Problems are mixtures of experts, and names that clash with a part's. A merge may also not cover the task to select
    by, and a prompt may not say its task.
    """
    problems: list[str] = []
    covered: dict[int, tuple[str, ...]] = {}
    for i, entry in enumerate(dicts(raw.get("merges"))):
        members, wrong = chosen(entry.get("members"), task_of, tasks)
        if members and not wrong and all(isinstance(task_of[m], str) for m in members):
            covered[i] = over_tasks.covered(members, task_of)
    several = {i: found for i, found in covered.items() if len(found) > 1}
    problems += [
        f"merges[{i}].members: found experts of the tasks {listed(list(found))}, but a mixture of experts (moe) has"
        " routers and a head for one task. Fix: name the experts of one task, or choose another method"
        for i, found in several.items()
        if dicts(raw["merges"])[i].get("method") == "moe"
    ]
    problems += _chosen_by(raw, several, tasks)
    joint = [
        r["name"] for r in dicts(raw.get("references")) if r.get("train") == "tasks" and isinstance(r.get("name"), str)
    ]
    problems += [
        f"{name!r}: reserved for the part of {whole!r} in task {task}. Fix: choose another name"
        for whole in [*joint, *(task_of if several else [])]
        for task in tasks
        if (name := f"{whole}.{task}") in [*task_of, *names_in(raw.get("references"))]
    ]
    merged = sorted({task for found in several.values() for task in found})
    learnt = sorted({str(task) for task in task_of.values() if task in tasks})
    asked = [("a merge", raw.get("base"), merged)]
    asked += [
        (
            f"reference {entry.get('name')!r}",
            entry.get("model"),
            named if isinstance(named := entry.get("tasks"), list) else learnt,
        )
        for entry in dicts(raw.get("references"))
        if entry.get("train") == "tasks"
    ]
    return problems + _prompt_problems(raw, asked)


def _chosen_by(raw: dict[str, Any], several: Mapping[int, tuple[str, ...]], tasks: list[str]) -> list[str]:
    """Return problems of ``compare.tasks``: an unknown task, or one that a merge does not cover."""
    by = dicts([raw.get("compare")])[0].get("tasks", "mean")
    if not isinstance(by, str) or by in ("mean", "worst"):
        return []
    if by not in tasks:
        allowed = ["mean", "worst", *tasks]
        return [f"compare.tasks: found {by!r}, expected one of {listed(allowed)}{nearest(by, allowed)}"]
    return [
        f"compare.tasks: merges are selected by task {by}, but merges[{i}] has no expert of it among its members"
        for i, found in several.items()
        if by not in found
    ]


def _prompt_problems(raw: dict[str, Any], asked: list[tuple[str, Any, list[str]]]) -> list[str]:
    """Return problems of prompts: a task's prompt that no model reads, or a prompt that does not say the task.

    Args:
        raw: values of the experiment file.
        asked: for each model over several tasks: its description, the name of the model that it starts from, its tasks.
    """
    models = {m["name"]: m for m in dicts(raw.get("models")) if isinstance(m.get("name"), str)}
    family = {name: entry.get("family", families.HEADED) for name, entry in models.items()}
    entries = dicts(raw.get("tasks"))
    own = [i for i, entry in enumerate(entries) if isinstance(entry.get("prompt"), dict)]
    if own and models and set(family.values()) == {families.HEADED}:
        return [
            f"tasks[{i}].prompt: no model reads it, since all are classifiers. Fix: remove it, or set a model's family"
            for i in own
        ]
    missing: dict[int, str] = {}  # one message a task, for any number of models
    for what, model, tasks in asked:
        entry = models.get(model, {}) if isinstance(model, str) else {}
        template = dicts([entry.get("prompt")])[0].get("template")
        told = not isinstance(template, str) or any(hole in template for hole in ("{task}", "{labels}"))
        if len(tasks) < 2 or told or entry.get("family", families.HEADED) == families.HEADED:
            continue
        for i, task in enumerate(entries):
            if task.get("name") in tasks and not isinstance(dicts([task.get("prompt")])[0].get("template"), str):
                missing.setdefault(
                    i,
                    f"tasks[{i}].prompt: missing; the template of model {model!r} has neither {{task}} nor {{labels}},"
                    f" so that {what} over {listed(tasks)} cannot tell which task is meant. Fix: give each task its own"
                    " template",
                )
    return list(missing.values())


def reference_problems(entry: dict[str, Any], task_of: Mapping[str, Any], tasks: list[str]) -> list[str]:
    """Return problems of the tasks that a reference is trained on together (``train: tasks``)."""
    if entry.get("train") != "tasks":
        given = entry.get("tasks") is not None
        return [f"tasks: only with train: tasks, not {entry.get('train', 'all')}"] if given else []
    problems = ["task: found beside train: tasks. Fix: remove it"] if entry.get("task") is not None else []
    named = entry.get("tasks") if isinstance(entry.get("tasks"), list) else None
    learnt = sorted({str(task) for task in task_of.values() if task in tasks})
    unknown = [t for t in named or [] if t not in tasks]
    idle = [str(t) for t in named or [] if t in tasks and t not in learnt]
    if unknown:
        problems.append(
            f"tasks: found {unknown[0]!r}, expected some of {listed(tasks)}{nearest(str(unknown[0]), tasks)}"
        )
    elif idle:
        problems.append(
            f"tasks: task {idle[0]} has no expert that is trained here, and so no reviews to learn from."
            " Fix: remove it, or add an expert"
        )
    elif len(set(named or learnt)) < 2:
        problems.append(f"train: tasks needs experts of several tasks, found {listed(learnt) or 'none'}")
    return problems
