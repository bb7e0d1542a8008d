"""Replicates: the same candidates again, from trainings with other seeds.

Replicate 1 equals an experiment without replicates, in names, seeds and bytes. Replicate 2 of ``pain`` is ``pain@2``;
no name in the file has an ``@``. A merge or a blend has a run for each replicate of its members: run 2 combines
``pain@2`` and ``acne@2``. Members that exist once (published, untrained) take part in all runs.
"""

import json
from dataclasses import replace

from mllm.experiment.candidates import Candidate
from mllm.experiment.layered import is_layered
from mllm.experiment.recipes import Recipe

STEP = 1_000_003  # between the seeds of two replicates: larger than the distances of seeds that people write


def run_name(candidate: str, replicate: int) -> str:
    """Return the name of a candidate's run."""
    return candidate if replicate == 1 else f"{candidate}@{replicate}"


def parsed(name: str) -> tuple[str, int]:
    """Return candidate and replicate of a run's name."""
    candidate, _, replicate = name.partition("@")
    return candidate, int(replicate or 1)


def seed_of(seed: int, replicate: int) -> int:
    """Return the seed of a replicate, from the first replicate's."""
    return (seed + STEP * (replicate - 1)) % 2**32


def but_for_the_seed(recipe: Recipe) -> str:
    """Return what a recipe's runs share: everything that determines the merge except the seed of its random masks."""
    facts = recipe.canonical()
    return json.dumps(
        {**facts, "parameters": {k: v for k, v in facts["parameters"].items() if k != "seed"}}, sort_keys=True
    )


def further(first: list[Candidate]) -> list[Candidate]:
    """Return the runs of all replicates except the first, replicate by replicate.

    Args:
        first: runs of the first replicate, members before merges and blends; trained ones have ``replicates``.
    """
    number: dict[str, int] = {}
    for run in first:
        several = [number[m] for m in run.members if number[m] > 1]
        number[run.name] = min(several, default=1) if run.members else run.replicates
    return [
        _again(run, replicate, number)
        for replicate in range(2, max(number.values(), default=1) + 1)
        for run in first
        if number[run.name] >= replicate
    ]


def _again(run: Candidate, replicate: int, number: dict[str, int]) -> Candidate:
    """Return a run of the first replicate as it is in another replicate."""
    names = {m: run_name(m, replicate) if number[m] > 1 else m for m in run.members}
    hyper = {**run.hyper, "seed": seed_of(run.hyper["seed"], replicate)} if run.hyper else {}
    recipe = _recipe(run.recipe, names, replicate) if run.recipe else None
    return replace(
        run, name=run_name(run.name, replicate), whole=run.whole and run_name(run.whole, replicate), of=run.candidate, replicate=replicate, hyper=hyper,
        members=tuple(names.values()), recipe=recipe, parameters=recipe.parameters if recipe else run.parameters,
    )  # fmt: skip


def _recipe(recipe: Recipe, names: dict[str, str], replicate: int) -> Recipe:
    """Return a recipe with another replicate's members, in the same order, and its seed."""
    parameters = {
        key: {names[m]: v for m, v in value.items()} if isinstance(value, dict) and not is_layered(value) else value
        for key, value in recipe.parameters.items()
    }
    if "seed" in recipe.parameters:
        parameters["seed"] = seed_of(int(recipe.parameters["seed"]), replicate)
    base = names.get(recipe.base, recipe.base) if recipe.base else None
    return replace(recipe, members=tuple(names[m] for m in recipe.members), parameters=parameters, base=base)
