"""An experiment's candidates: everything that will yield predictions, expanded once, by name."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mllm.experiment import foreign_tables
from mllm.experiment.equivalence import meaning
from mllm.experiment.names import expert_names, match
from mllm.experiment.recipes import Recipe, expand
from mllm.experiment.schema import Experiment, Reference, Training
from mllm.experiment.value_types import is_layered
from mllm.experiment.yaml_files import ExperimentError

TRAINING_KEYS = tuple(Training.model_fields)


@dataclass(frozen=True)
class Candidate:
    """One row of the leaderboard."""

    name: str
    kind: str
    """base, expert, merge, blend or reference"""
    task: str
    method: str = ""
    members: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None

    def label(self) -> dict[str, Any]:
        """What a score file says of its candidate."""
        return {
            "candidate": self.name,
            "kind": self.kind,
            "method": self.method,
            "task": self.task,
            "members": list(self.members),
            "parameters": self.parameters,
        }

    def describe(self) -> str:
        """One line for people."""
        values = self.recipe.telling() if self.recipe else self.parameters
        shown = " ".join(f"{k}={_value(v)}" for k, v in values.items())
        members = ", ".join(self.members)
        return "  ".join(part for part in (self.method or self.kind, members, shown) if part)


@dataclass(frozen=True)
class Duplicate:
    """A grid point that is another candidate in other words."""

    name: str
    same_as: str
    """The candidate that stands for it."""
    why: str


@dataclass(frozen=True)
class Grid:
    """All candidates by name, and how the trained ones are trained."""

    candidates: dict[str, Candidate]
    training: dict[str, dict[str, Any]]
    """Trained candidate -> {start, model, part, hyper-parameters}."""
    starts: dict[str, str]
    """Prepared checkpoint -> name under models."""
    tasks: dict[str, str]
    """Prepared checkpoint -> the task that its head is made for."""
    taken: dict[str, str]
    """Expert that is taken as it is -> name under models."""
    untrained: dict[str, str]
    """Reference that is a prepared checkpoint as it is -> that checkpoint."""
    bases: dict[str, str]
    """Task -> the prepared checkpoint from which its experts start."""
    duplicates: list["Duplicate"]
    """Grid points that compute what another candidate computes, and are not run again."""
    imported: dict[str, Path] = field(default_factory=dict)
    """Candidate whose predictions were made elsewhere -> their file."""

    def of_kind(self, *kinds: str) -> list[Candidate]:
        return [c for c in self.candidates.values() if c.kind in kinds]

    @cached_property
    def merges(self) -> dict[str, Recipe]:
        return {c.name: c.recipe for c in self.candidates.values() if c.recipe}


def build(experiment: Experiment) -> Grid:
    """Expand an experiment; its order is that of the file: bases, experts, merges, blends, references.

    A task has a base of its own, whose head has the task's classes: ``base``, or ``base-<task>`` where there are several.
    """
    if experiment.candidates:
        return _imported(experiment)
    several = len(experiment.tasks) > 1
    bases = {t.name: f"base-{t.name}" if several else "base" for t in experiment.tasks}
    candidates = [Candidate(base, "base", task) for task, base in bases.items()]
    training: dict[str, dict[str, Any]] = {}
    taken: dict[str, str] = {}
    untrained: dict[str, str] = {}
    starts = dict.fromkeys(bases.values(), experiment.base)
    tasks = {base: task for task, base in bases.items()}

    raw = {"experts": [e.model_dump() for e in experiment.experts]}
    entries = {e.name: e for e in experiment.experts}
    task_of: dict[str, str] = {}
    for name, values in expert_names(raw):
        entry = entries[values["name"]]
        task = task_of[name] = experiment.task_of(entry)
        part: dict[str, Any] = {}
        if entry.parts:
            part = {"shard": int(name.removeprefix(f"{entry.name}-")), "of": entry.parts, "seed": experiment.seed}
        elif entry.where:
            part = {"where": entry.where}
        if entry.cap:
            part |= {"cap": entry.cap, "seed": experiment.seed}
        candidates.append(Candidate(name, "expert", task, "published" if entry.model else ""))
        if entry.model:
            taken[name] = entry.model
            continue
        training[name] = {"start": bases[task], "part": part, **_hyper(entry, experiment.seed)}
    experts = list(task_of)

    duplicates: list[Duplicate] = []
    written: set[str] = set()
    seen = {f"copy {name}": name for name in [*bases.values(), *experts]}
    for merge in experiment.merges:
        members = match(merge.members, experts)
        task = task_of[members[0]]
        for recipe in expand(merge, members, experiment.seed, bases[task]):
            name, (key, why) = recipe.name(), meaning(recipe)
            standing = seen.setdefault(key, name)
            if standing != name:
                duplicates.append(Duplicate(name, standing, why))
            elif name in written:
                duplicates.append(Duplicate(name, name, "written twice"))
            else:
                candidates.append(
                    Candidate(name, "merge", task, recipe.method, recipe.members, recipe.parameters, recipe)
                )
            written.add(name)

    for reference in experiment.references:
        task = experiment.task_of(reference)
        if isinstance(reference, Reference):
            own = f"{reference.model}-{task}.base" if several else f"{reference.model}.base"
            start = bases[task] if reference.model == experiment.base else own
            starts[start], tasks[start] = reference.model, task
            if reference.train == "none":
                untrained[reference.name] = start
                prompt = experiment.model(reference.model).prompt
                method = "few_shot" if prompt and prompt.examples else "zero_shot"
                candidates.append(Candidate(reference.name, "reference", task, method))
                continue
            training[reference.name] = {"start": start, "part": {}, **_hyper(reference, experiment.seed)}
            candidates.append(Candidate(reference.name, "reference", task, "fine_tuned"))
        else:
            candidates.append(Candidate(reference.name, "reference", task, reference.model))
    candidates += _blends(experiment, candidates)
    return Grid({c.name: c for c in candidates}, training, starts, tasks, taken, untrained, bases, duplicates)


def _imported(experiment: Experiment) -> Grid:
    """Candidates whose predictions are there; a merge's method is its name up to the first hyphen."""
    assert experiment.candidates
    files = foreign_tables.tables(experiment.candidates)
    kinds, task = foreign_tables.kinds(experiment.candidates, list(files)), experiment.tasks[0].name
    order = ("base", "expert", "merge", "reference")
    candidates = [
        Candidate(name, kind, task, name.partition("-")[0] if kind == "merge" else "")
        for name, kind in sorted(kinds.items(), key=lambda item: order.index(item[1]))
    ]
    candidates += _blends(experiment, candidates)
    return Grid({c.name: c for c in candidates}, {}, {}, {}, {}, {}, {}, [], files)


def _blends(experiment: Experiment, candidates: list[Candidate]) -> list[Candidate]:
    """The blends of an experiment, whose members may be anything else in it.

    Raises:
        ExperimentError: a pattern matches nothing, or members are of different tasks.
    """
    task_of = {c.name: c.task for c in candidates}
    found, problems = [], []
    for i, blend in enumerate(experiment.blends):
        chosen = tuple(sorted(match(blend.members, list(task_of))))
        absent = [p for p in blend.members if not match([p], list(task_of))]
        problems += [f"blends[{i}].members: {p!r} matches no candidate (snakemake grid lists them)" for p in absent]
        if len({task_of[c] for c in chosen}) > 1:
            problems.append(f"blends[{i}].members: of different tasks, and they predict different labels")
        if not chosen or absent:
            continue
        digest = hashlib.sha256(json.dumps([blend.method, chosen]).encode()).hexdigest()[:10]
        found.append(
            Candidate(blend.name or f"{blend.method}-{digest}", "blend", task_of[chosen[0]], blend.method, chosen)
        )
    names = Counter(c.name for c in [*candidates, *found])
    problems += [f"blends: {name!r} names {count} candidates" for name, count in names.items() if count > 1]
    if problems:
        raise ExperimentError("experiment", problems)
    return found


def _hyper(entry: Training, seed: int) -> dict[str, Any]:
    values = entry.model_dump(include=set(TRAINING_KEYS))
    values["seed"] = seed if entry.seed is None else entry.seed
    if values["epochs"] is None and values["steps"] is None:
        values["epochs"] = 1.0
    return {k: v for k, v in values.items() if v is not None}


def _value(value: Any) -> str:
    if is_layered(value):
        return "→".join(f"{v:g}" for v in value["layers"]) + f" (rest {value['rest']:g})"
    if isinstance(value, dict):
        return "/".join(map(_value, value.values()))
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
