"""Expand an experiment into its candidates: everything that will yield predictions, by name."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

from mllm.experiment import foreign_tables, over_tasks, replicates
from mllm.experiment.candidates import Candidate, Duplicate, Grid, Start
from mllm.experiment.equivalence import meaning
from mllm.experiment.family_names import HEADED
from mllm.experiment.names import match
from mllm.experiment.recipes import expand
from mllm.experiment.routers import routers
from mllm.experiment.schema import Experiment
from mllm.experiment.training_entries import Baseline, Expert, Reference, Training
from mllm.experiment.yaml_files import ExperimentError

TRAINING_KEYS = tuple(Training.model_fields)


def build(experiment: Experiment) -> Grid:
    """Expand an experiment into bases, experts, merges, references, blends, routers, then the further replicates.

    Entries keep the file's order, and no name depends on other entries. Each task has its own base, ``base-<task>``,
    whose head has the task's classes.
    """
    if experiment.candidates:
        return _imported(experiment)
    starts = {f"base-{t.name}": _start(experiment, experiment.base, t.name) for t in experiment.tasks}
    bases = {start.task: start for start in starts.values()}
    candidates = [Candidate(s.name, "base", s.task, made_by="prepare_base", start=s) for s in starts.values()]
    experts = [e for entry in experiment.experts for e in _experts(experiment, entry, bases[experiment.task_of(entry)])]
    merges, duplicates = _merges(experiment, experts, bases)
    candidates += [*experts, *merges]
    for entry in experiment.references:
        references = _references(experiment, entry, experts)
        candidates += references
        for start in [r.start for r in references if r.start and r.made_by != "take_expert"]:
            starts.setdefault(start.name, start)  # a model that is taken as it is has no start
    candidates += [
        *_blends(experiment, candidates),
        *routers(experts),
        *over_tasks.asked_elsewhere(experts, merges, bases),
    ]
    candidates += replicates.further(candidates)
    return Grid({c.name: c for c in candidates}, starts, duplicates)


def _start(experiment: Experiment, model: str, task: str) -> Start:
    """Return a model's prepared checkpoint for a task."""
    name = f"base-{task}" if model == experiment.base else f"{model}-{task}.base"
    return Start(name, task, experiment.model(model, task))


def _experts(experiment: Experiment, entry: Expert, start: Start) -> list[Candidate]:
    """Return the experts of an entry: one, or one for each of its parts."""
    if entry.model:
        taken = experiment.model(entry.model, start.task)
        return [
            Candidate(
                entry.name, "expert", start.task, "published", made_by="take_expert", start=start, taken=taken,
                labels=entry.labels or {},
            )
        ]  # fmt: skip
    part: dict[str, Any] = {"where": entry.where} if entry.where else {}
    cap = {"cap": entry.cap, "seed": experiment.seed} if entry.cap else {}
    parts = {entry.name: part}
    if entry.parts:
        shard = {"of": entry.parts, "seed": experiment.seed}
        parts = {f"{entry.name}-{i}": {"shard": i, **shard} for i in range(entry.parts)}
    hyper, trainings = _hyper(entry, experiment.seed), entry.replicates or experiment.replicates
    return [
        Candidate(
            name, "expert", start.task, made_by="train_expert", start=start, part=own | cap, hyper=hyper, replicates=trainings
        )
        for name, own in parts.items()
    ]  # fmt: skip


def _merges(
    experiment: Experiment, experts: list[Candidate], bases: dict[str, Start]
) -> tuple[list[Candidate], list[Duplicate]]:
    """Return all points of all merge entries' grids, and separately the duplicates of other candidates."""
    task_of = {e.name: e.task for e in experts}
    candidates: list[Candidate] = []
    duplicates: list[Duplicate] = []
    first: dict[str, str] = {}  # recipe without its seed -> its first run
    written: set[str] = set()
    seen = {f"copy {name}": name for name in [*(s.name for s in bases.values()), *task_of]}
    for merge in experiment.merges:
        members = over_tasks.chosen(merge.members, task_of)
        mine = {member: task_of[member] for member in members}
        covers = over_tasks.covered(members, mine)
        base = bases[covers[0]]
        entry = over_tasks.with_defaults(merge) if len(covers) > 1 else merge
        for recipe in expand(entry, members, experiment.seed, base.name, partial(over_tasks.by_member, task_of=mine)):
            name, (key, why) = recipe.name(), meaning(recipe)
            key = over_tasks.key(recipe, key, mine) if len(covers) > 1 else key
            standing = seen.setdefault(key, name)
            if standing != name:
                duplicates.append(Duplicate(name, standing, why))
            elif name in written:
                duplicates.append(Duplicate(name, name, "written twice"))
            else:
                rule = "mix_experts" if recipe.method == "moe" else "merge"
                of = first.setdefault(replicates.but_for_the_seed(recipe), name)
                found = Candidate(
                    name, "merge", base.task, recipe.method, recipe.members, recipe.parameters, recipe, rule, base, of=of
                )  # fmt: skip
                whole = replace(found, covers=covers)
                candidates += over_tasks.parts(whole, bases) if len(covers) > 1 else [found]
            written.add(name)
    return candidates, duplicates


def _references(experiment: Experiment, entry: Reference | Baseline, experts: list[Candidate]) -> list[Candidate]:
    """Return the candidates of an entry: one, or one for each of the tasks that one model is trained on."""
    if not isinstance(entry, Reference) or entry.train != "tasks":
        return [_reference(experiment, entry, experts)]
    trained = [e for e in experts if e.made_by == "train_expert"]
    tasks = tuple(sorted(entry.tasks or {e.task for e in trained}))
    starts = {task: _start(experiment, entry.model, task) for task in tasks}
    unions = {task: _union([e for e in trained if e.task == task]) for task in tasks}
    whole = Candidate(
        entry.name, "reference", tasks[0], "multi_task", made_by="train_tasks", part={"tasks": unions},
        hyper=_hyper(entry, experiment.seed), replicates=entry.replicates or experiment.replicates, covers=tasks,
    )  # fmt: skip
    return over_tasks.parts(whole, starts)


def _reference(experiment: Experiment, entry: Reference | Baseline, experts: list[Candidate]) -> Candidate:
    """Return the candidate of a reference: fine-tuned, used without training, or fitted without a language model."""
    task = experiment.task_of(entry)
    if not isinstance(entry, Reference):
        return Candidate(entry.name, "reference", task, entry.model, made_by="fit_baseline")
    start = _start(experiment, entry.model, task)
    if entry.train == "none" and start.model.family == HEADED:
        return Candidate(
            entry.name, "reference", task, "published", made_by="take_expert", start=start, taken=start.model,
            labels=entry.labels or {},
        )  # fmt: skip
    if entry.train == "none":
        prompt = start.model.prompt
        method = "few_shot" if prompt and prompt.examples else "zero_shot"
        return Candidate(entry.name, "reference", task, method, made_by="prepare_base", start=start)
    if entry.train == "probe":
        return Candidate(entry.name, "reference", task, "linear_probe", made_by="fit_probe", start=start)
    hyper, trainings = _hyper(entry, experiment.seed), entry.replicates or experiment.replicates
    trained = [e for e in experts if e.task == task and e.made_by == "train_expert"]
    part, method = (_union(trained), "joint") if entry.train == "joint" else ({}, "fine_tuned")
    return Candidate(
        entry.name, "reference", task, method, made_by="train_expert", start=start, part=part, hyper=hyper, replicates=trainings
    )  # fmt: skip


def _union(experts: list[Candidate]) -> dict[str, Any]:
    """Return the union of the experts' reviews; it does not depend on the experts' order in the file."""
    parts = {json.dumps(e.part, sort_keys=True): e.part for e in experts}
    return {"union": [parts[key] for key in sorted(parts)]}


def _imported(experiment: Experiment) -> Grid:
    """Return the grid of candidates with existing predictions; a merge's method is its name up to the first hyphen."""
    assert experiment.candidates
    files = foreign_tables.tables(experiment.candidates)
    kinds, task = foreign_tables.kinds(experiment.candidates, list(files)), experiment.tasks[0].name
    order = ("base", "expert", "merge", "reference")
    runs = sorted(
        ((*replicates.parsed(name), kind) for name, kind in kinds.items()),
        key=lambda run: (run[1], order.index(run[2])),
    )
    number = Counter(candidate for candidate, _, _ in runs)
    candidates = [
        Candidate(
            replicates.run_name(candidate, replicate), kind, task, candidate.partition("-")[0] if kind == "merge" else "",
            made_by="import_predictions", replicates=number[candidate], replicate=replicate, of=candidate,
        )
        for candidate, replicate, kind in runs
    ]  # fmt: skip
    first = [c for c in candidates if c.replicate == 1]
    blends = _blends(experiment, first)
    candidates += [*blends, *(run for run in replicates.further([*first, *blends]) if run.kind == "blend")]
    return Grid({c.name: c for c in candidates}, {}, [], files)


def _blends(experiment: Experiment, candidates: list[Candidate]) -> list[Candidate]:
    """Return the blends of an experiment, whose members may be any other candidates.

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
            problems.append(f"blends[{i}].members: found members of different tasks, which predict different labels")
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
    off = {"freeze": 0, "head_only": False}  # equal to a missing key, also in names and digests
    return {k: v for k, v in values.items() if v is not None and not (k in off and v == off[k])}
