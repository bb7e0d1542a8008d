"""Warn before a run that it retrains finished models, and say what changed."""

import json
from pathlib import Path
from typing import Any

import yaml

from mllm.core.files import read_json
from mllm.core.wording import in_time
from mllm.execution.estimate import Estimate
from mllm.execution.log_format import why

RULES = ("prepare_base", "train_expert", "train_tasks")
SHOWN = 3


def warning(dag: Any, experiment: Any, finished: Path, estimate: Estimate) -> str:
    """Return a warning of one line; empty if no finished model is retrained.

    Args:
        dag: Snakemake's graph of jobs.
        experiment: the present experiment.
        finished: file of the experiment when its leaderboard was written; may be missing.
        estimate: usual seconds per rule.
    """
    planned = dag.needrun_jobs(exclude_finished=False)
    again = [j for j in planned if j.name in RULES and Path(str(j.output[0])).exists()]
    if not again:
        return ""
    names = sorted(str(job.output[0]).rpartition("/")[2] for job in again)
    listed = ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
    seconds = sum(estimate.seconds.get(job.name, 0) for job in again)
    cost = f" This takes about {in_time(seconds)}, one after another." if seconds else ""
    many = "s that are" if len(names) > 1 else " that is"
    return f"Retrains {len(names)} model{many} finished ({listed}), because {cause(dag, again, experiment, finished)}.{cost}"


def taken_over(candidates: list[Any], all_names: set[str], models: Path) -> str:
    """Return one line about planned trainings that are finished under a name that the experiment no longer has.

    Args:
        candidates: candidates of the planned trainings.
        all_names: all names of the present experiment.
        models: the experiment's folder of models.
    """
    left = [card for card in models.glob("*/model.json") if card.parent.name not in all_names] if candidates else []
    finished = {}
    for path in left:
        card = read_json(path)
        finished[_definition(card.get("task"), card.get("part"), card.get("hyper_parameters"))] = path.parent.name
    pairs = [(c.name, finished.get(_definition(c.task, c.part, c.hyper))) for c in candidates]
    renamed = [f"{old} as {new}" for new, old in pairs if old]
    shown = ", ".join(renamed[:SHOWN]) + (" …" if len(renamed) > SHOWN else "")
    return (
        f"Reuses trained models under their new names ({shown}) if nothing else about them changed." if renamed else ""
    )


def same(name: str, candidate: Any, models: Path) -> list[Path]:
    """Return finished models of other names with a training's definition; the job takes one over if all else is equal, too.

    Args:
        name: of the folder that the training makes.
        candidate: that is trained, in one task or (the first of) several.
        models: the experiment's folder of models.
    """
    several = candidate.part.get("tasks")
    task = min(several) if several else candidate.task
    wanted = _definition(task, several[task] if several else candidate.part, candidate.hyper)
    found = []
    for folder in sorted(models.glob("[!.]*")):
        card = folder / (task if several else "") / "model.json"
        if folder.name != name and card.exists():
            facts = read_json(card)
            if _definition(facts.get("task"), facts.get("part"), facts.get("hyper_parameters")) == wanted:
                found.append(folder)
    return found


def _definition(*values: Any) -> str:
    return json.dumps(values, sort_keys=True)


def cause(dag: Any, again: list[Any], experiment: Any, finished: Path) -> str:
    """Return the keys of the experiment file that changed; else Snakemake's reasons for the first jobs that rerun."""
    if finished.exists():
        before = yaml.safe_load(finished.read_text(encoding="utf-8"))
        keys = changed(before, experiment.model_dump(mode="json", by_alias=True))
        keys = [
            k
            for k in keys
            if k.partition(".")[0].partition("[")[0] not in ("compare", "keep", "slices", "name", "merges", "blends")
        ]
        if keys:
            return f"{', '.join(keys[:SHOWN])}{' …' if len(keys) > SHOWN else ''} changed"
    reasons = dict.fromkeys(why(str(dag.reason(job))) for job in roots(dag, again))
    return "; ".join(str(r).partition(":")[0] for r in list(reasons)[:SHOWN])


def roots(dag: Any, jobs: list[Any]) -> list[Any]:
    """Return the planned jobs before ``jobs`` (or among them) that no other planned job precedes."""
    found: dict[Any, None] = {}
    seen: set[Any] = set()
    waiting = list(jobs)
    while waiting:
        job = waiting.pop()
        if job in seen:
            continue
        seen.add(job)
        before = [other for other in dag.dependencies[job] if dag.needrun(other)]
        waiting += before
        if not before:
            found[job] = None
    return list(found)


def changed(before: Any, now: Any, where: str = "") -> list[str]:
    """Return the dotted keys whose values differ: ``split.seed``, ``experts.pain.steps``."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [k for key in keys for k in changed(before.get(key), now.get(key), f"{where}.{key}".lstrip("."))]
    if (
        isinstance(before, list)
        and isinstance(now, list)
        and all(isinstance(i, dict) and "name" in i for i in before + now)
    ):
        return changed({i["name"]: i for i in before}, {i["name"]: i for i in now}, where)
    return [] if before == now else [where]
