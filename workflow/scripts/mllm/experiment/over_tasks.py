"""Models over several tasks: one set of weights with one candidate for each task that it covers, ``<whole>.<task>``."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mllm.experiment.candidates import Candidate, Start
from mllm.experiment.family_names import HEADED
from mllm.experiment.layered import is_layered
from mllm.experiment.names import match
from mllm.experiment.recipes import Recipe
from mllm.experiment.task_vector_entries import MergeEntry, TaskVectors

Patterns = list[str] | dict[str, list[str]]
SUMMED = ("task_arithmetic", "dare_linear", "della_linear", "breadcrumbs")
"""Methods that sum all task vectors; over several tasks, the sum with factor 1 is too large."""
LAMBDAS = [i / 10 for i in range(1, 11)]
"""Factors of that sum; validation selects one (Ilharco et al. 2023, arXiv 2212.04089; AdaMerging, arXiv 2310.02575,
figure 1)."""


def chosen(patterns: Patterns, task_of: Mapping[str, Any]) -> list[str]:
    """Return the experts that a merge's members match, in order; a task's own patterns match only its experts.

    Args:
        patterns: names and patterns, or a map of task to them.
        task_of: expert -> task, for all experts.
    """
    if not isinstance(patterns, dict):
        return match(patterns, list(task_of))
    return [name for task, own in patterns.items() for name in match(own, [e for e in task_of if task_of[e] == task])]


def with_defaults(entry: MergeEntry) -> MergeEntry:
    """Return a merge entry over several tasks; a sum of task vectors without a factor in the file gets ``LAMBDAS``."""
    said = entry.normalize if entry.method in SUMMED and isinstance(entry, TaskVectors) else [True]
    open_ = not {"lambda_", "weight"} & entry.model_fields_set and not any(said)
    return entry.model_copy(update={"lambda_": LAMBDAS}) if open_ else entry


def by_member(value: Any, task_of: Mapping[str, Any]) -> Any:
    """Return a parameter's value with a map of members only; a task in the map means its members that the map omits.

    Args:
        value: value of a parameter.
        task_of: member -> task, for the merge's members.
    """
    if not isinstance(value, dict) or is_layered(value):
        return value
    return {member: value[member] if member in value else value[task_of[member]] for member in sorted(task_of)}


def covered(members: list[str], task_of: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the tasks of a merge's members, sorted."""
    return tuple(sorted({task_of[member] for member in members}))


def parts(whole: Candidate, starts: Mapping[str, Start]) -> list[Candidate]:
    """Return the candidates of one model over several tasks, one for each task.

    Args:
        whole: the model under its own name, with any of its tasks, and with all tasks that it covers.
        starts: task -> the prepared checkpoint that it starts from in that task.
    """
    return [
        replace(
            whole, name=f"{whole.name}.{task}", task=task, start=starts[task], whole=whole.name,
            of=f"{whole.of}.{task}" if whole.of else "",
        )
        for task in whole.covers
    ]  # fmt: skip


def key(recipe: Recipe, meaning: str, task_of: Mapping[str, str]) -> str:
    """Return the key of a merge over several tasks, from its recipe's ``meaning``: equal keys compute the same.

    No such merge is a copy of an input: each task has its own head, which is merged if the task has several members.
    """
    tasks = [task_of[member] for member in recipe.members]
    if meaning.startswith("copy ") and len(set(tasks)) < len(tasks):
        return json.dumps(recipe.canonical(), sort_keys=True)
    return json.dumps([*recipe.members, meaning])


def asked_elsewhere(experts: list[Candidate], merges: list[Candidate], starts: Mapping[str, Start]) -> list[Candidate]:
    """Return the members of merges over several tasks as candidates in the other members' tasks, without a merge.

    A classifier has a head for its own task only, and answers no other.

    Args:
        experts: experts of all tasks.
        merges: merges of all tasks.
        starts: task -> its base.
    """
    tasks = sorted({task for merge in merges for task in merge.covers})
    members = {member for merge in merges if merge.covers for member in merge.members}
    return [
        replace(
            expert, name=f"{expert.name}.{task}", task=task, start=starts[task], made_by="predict", whole=expert.name,
            covers=tuple(tasks),
        )
        for expert in experts
        if expert.name in members
        for task in tasks
        if task != expert.task and starts[task].model.family != HEADED
    ]  # fmt: skip
