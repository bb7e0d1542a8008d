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
from mllm.experiment.model_entries import HubModel, LocalModel, ScratchModel
from mllm.experiment.names import match
from mllm.experiment.recipes import Recipe, expand
from mllm.experiment.schema import Baseline, Experiment, Expert, Reference, Training
from mllm.experiment.value_types import is_layered
from mllm.experiment.yaml_files import ExperimentError

Model = HubModel | LocalModel | ScratchModel
TRAINING_KEYS = tuple(Training.model_fields)


@dataclass(frozen=True)
class Start:
    """A checkpoint prepared for a task: a base, or what a reference starts from."""

    name: str
    """Of its folder in models/."""
    task: str
    """That its head is made for."""
    model: Model
    """Its entry under models."""


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
    made_by: str = ""
    """Rule that makes its weights; its predictions where no model makes them."""
    start: Start | None = None
    """Prepared checkpoint that its weights come from."""
    taken: Model | None = None
    """Published checkpoint that it is, as it is."""
    part: dict[str, Any] = field(default_factory=dict)
    """Reviews that it is trained on; all where empty."""
    hyper: dict[str, Any] = field(default_factory=dict)
    """How it is trained."""

    @property
    def folder(self) -> str:
        """Its weights, in the experiment's folder."""
        if self.recipe:
            return f"merges/{self.name}/model"
        prepared = self.start.name if self.start and self.made_by == "prepare_base" else None
        return f"models/{prepared or self.name}"

    @property
    def gpus(self) -> int:
        """GPUs that its model's layers or batches spread over."""
        return self.start.model.gpus if self.start else 1

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
    """All candidates, and the prepared checkpoints they start from, by name."""

    candidates: dict[str, Candidate]
    starts: dict[str, Start]
    duplicates: list[Duplicate]
    """Grid points that compute what another candidate computes, and are not run again."""
    imported: dict[str, Path] = field(default_factory=dict)
    """Candidate whose predictions were made elsewhere -> their file."""

    def of_kind(self, *kinds: str) -> list[Candidate]:
        return [c for c in self.candidates.values() if c.kind in kinds]

    def made_by(self, *rules: str) -> list[str]:
        """Names of the candidates that some rules make."""
        return [c.name for c in self.candidates.values() if c.made_by in rules]

    @cached_property
    def merges(self) -> dict[str, Recipe]:
        return {c.name: c.recipe for c in self.candidates.values() if c.recipe}

    @cached_property
    def bases(self) -> dict[str, str]:
        """Task -> the prepared checkpoint from which its experts start."""
        return {c.task: c.name for c in self.of_kind("base")}


def build(experiment: Experiment) -> Grid:
    """Expand an experiment; its order is that of the file: bases, experts, merges, blends, references.

    No name depends on other entries. Each task has a base of its own, ``base-<task>``, whose head has the task's classes.
    """
    if experiment.candidates:
        return _imported(experiment)
    starts = {f"base-{t.name}": _start(experiment, experiment.base, t.name) for t in experiment.tasks}
    bases = {start.task: start for start in starts.values()}
    candidates = [Candidate(s.name, "base", s.task, made_by="prepare_base", start=s) for s in starts.values()]
    experts = [e for entry in experiment.experts for e in _experts(experiment, entry, bases[experiment.task_of(entry)])]
    merges, duplicates = _merges(experiment, experts, bases)
    candidates += [*experts, *merges]
    for reference in experiment.references:
        candidates.append(_reference(experiment, reference))
        start = candidates[-1].start
        if start:
            starts.setdefault(start.name, start)
    candidates += _blends(experiment, candidates)
    return Grid({c.name: c for c in candidates}, starts, duplicates)


def _start(experiment: Experiment, model: str, task: str) -> Start:
    """A model as it is prepared for a task."""
    name = f"base-{task}" if model == experiment.base else f"{model}-{task}.base"
    return Start(name, task, experiment.model(model))


def _experts(experiment: Experiment, entry: Expert, start: Start) -> list[Candidate]:
    """The experts of an entry: one, or one for each of its parts."""
    if entry.model:
        taken = experiment.model(entry.model)
        return [
            Candidate(entry.name, "expert", start.task, "published", made_by="take_expert", start=start, taken=taken)
        ]
    part: dict[str, Any] = {"where": entry.where} if entry.where else {}
    cap = {"cap": entry.cap, "seed": experiment.seed} if entry.cap else {}
    parts = {entry.name: part}
    if entry.parts:
        shard = {"of": entry.parts, "seed": experiment.seed}
        parts = {f"{entry.name}-{i}": {"shard": i, **shard} for i in range(entry.parts)}
    hyper = _hyper(entry, experiment.seed)
    return [
        Candidate(name, "expert", start.task, made_by="train_expert", start=start, part=own | cap, hyper=hyper)
        for name, own in parts.items()
    ]


def _merges(
    experiment: Experiment, experts: list[Candidate], bases: dict[str, Start]
) -> tuple[list[Candidate], list[Duplicate]]:
    """All points of all merge entries' grids; those that compute what another candidate computes apart."""
    task_of = {e.name: e.task for e in experts}
    candidates: list[Candidate] = []
    duplicates: list[Duplicate] = []
    written: set[str] = set()
    seen = {f"copy {name}": name for name in [*(s.name for s in bases.values()), *task_of]}
    for merge in experiment.merges:
        members = match(merge.members, list(task_of))
        base = bases[task_of[members[0]]]
        for recipe in expand(merge, members, experiment.seed, base.name):
            name, (key, why) = recipe.name(), meaning(recipe)
            standing = seen.setdefault(key, name)
            if standing != name:
                duplicates.append(Duplicate(name, standing, why))
            elif name in written:
                duplicates.append(Duplicate(name, name, "written twice"))
            else:
                rule = "mix_experts" if recipe.method == "moe" else "merge"
                candidates.append(
                    Candidate(
                        name, "merge", base.task, recipe.method, recipe.members, recipe.parameters, recipe, rule, base
                    )
                )
            written.add(name)
    return candidates, duplicates


def _reference(experiment: Experiment, entry: Reference | Baseline) -> Candidate:
    """What merges are compared with: fine-tuned, asked as it is, or fitted without a language model."""
    task = experiment.task_of(entry)
    if not isinstance(entry, Reference):
        return Candidate(entry.name, "reference", task, entry.model, made_by="fit_baseline")
    start = _start(experiment, entry.model, task)
    if entry.train == "none":
        prompt = start.model.prompt
        method = "few_shot" if prompt and prompt.examples else "zero_shot"
        return Candidate(entry.name, "reference", task, method, made_by="prepare_base", start=start)
    hyper = _hyper(entry, experiment.seed)
    return Candidate(entry.name, "reference", task, "fine_tuned", made_by="train_expert", start=start, hyper=hyper)


def _imported(experiment: Experiment) -> Grid:
    """Candidates whose predictions are there; a merge's method is its name up to the first hyphen."""
    assert experiment.candidates
    files = foreign_tables.tables(experiment.candidates)
    kinds, task = foreign_tables.kinds(experiment.candidates, list(files)), experiment.tasks[0].name
    order = ("base", "expert", "merge", "reference")
    candidates = [
        Candidate(name, kind, task, name.partition("-")[0] if kind == "merge" else "", made_by="import_predictions")
        for name, kind in sorted(kinds.items(), key=lambda item: order.index(item[1]))
    ]
    candidates += _blends(experiment, candidates)
    return Grid({c.name: c for c in candidates}, {}, [], files)


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
            Candidate(
                blend.name or f"{blend.method}-{digest}",
                "blend",
                task_of[chosen[0]],
                blend.method,
                chosen,
                made_by="blend",
            )
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
