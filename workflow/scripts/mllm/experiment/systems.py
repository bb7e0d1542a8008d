"""Systems: one model, or several models together, that answer in several tasks and are compared with merges."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mllm.experiment.candidates import Candidate, Grid
from mllm.experiment.family_names import HEADED

SWITCH = "each task's expert"


@dataclass(frozen=True)
class System:
    """One way to answer in several tasks."""

    name: str
    kind: str
    """merge, expert, reference, blend or base: its candidates' kind."""
    method: str
    members: tuple[str, ...]
    options: dict[str, tuple[str, ...]]
    """Task -> candidates; the best of them on validation answers in that task."""
    one: bool
    """Whether it is one model, whose weights count once; otherwise its costs are its candidates' sum."""


def systems(grid: Grid) -> list[System]:
    """Return all systems of an experiment with a model over several tasks, such models first; else an empty list.

    The other systems are each task's expert (a switch between tasks, without a merge) and the base of prompted models.
    References of one model and training, and blends of one method, are systems, too. Two or more of the tasks must have
    them.
    """
    first = [c for c in grid.candidates.values() if c.name == c.candidate]
    models = _wholes(first)
    tasks = {task for system in models for task in system.options}
    others = [c for c in first if c.task in tasks and not c.whole]
    found = [
        *models,
        _together(SWITCH, "switch", (c for c in others if c.kind == "expert")),
        _together("base", "", (c for c in others if c.kind == "base" and _asked(c)), one=True),
    ]
    for name, method, part in _alike(others, "reference", _model):
        found.append(_together(name, method, part, one=all(c.made_by == "prepare_base" for c in part)))
    for name, method, part in _alike(others, "blend", lambda c: f"{c.method} in each task"):
        found.append(_together(name, method, part))
    return [system for system in found if len(system.options) > 1]


def wholes(grid: Grid) -> dict[str, str]:
    """Return candidate -> the model over several tasks that it is a part of, for such candidates."""
    return {c.name: c.whole for c in grid.candidates.values() if c.whole and c.name == c.candidate}


def _wholes(first: list[Candidate]) -> list[System]:
    """Return the models over several tasks: merges, joint trainings, experts that also answer other tasks."""
    parts: dict[str, list[Candidate]] = {}
    for part in first:
        if part.whole:
            parts.setdefault(part.whole, []).append(part)
    own = {c.name: c for c in first if not c.whole}
    return [
        _together(name, of[0].method, [*of, *([own[name]] if name in own else [])], one=True)
        for name, of in parts.items()
    ]


def _together(name: str, method: str, candidates: Iterable[Candidate], one: bool = False) -> System:
    options: dict[str, tuple[str, ...]] = {}
    kind: str = ""
    members: tuple[str, ...] = ()
    for c in candidates:
        options[c.task] = (*options.get(c.task, ()), c.name)
        kind, members = c.kind, c.members
    return System(name, kind, method, members if one else (), dict(sorted(options.items())), one)


def _alike(
    candidates: list[Candidate], kind: str, name_of: Callable[[Candidate], str]
) -> list[tuple[str, str, list[Candidate]]]:
    """Return (name, method, candidates) of one kind, grouped by a common name."""
    groups: dict[str, list[Candidate]] = {}
    for c in candidates:
        if c.kind == kind:
            groups.setdefault(name_of(c), []).append(c)
    return [(name, of[0].method, of) for name, of in groups.items()]


def _model(reference: Candidate) -> str:
    """Return the common name of references in several tasks: their model and its training."""
    return f"{reference.start.model.name} ({reference.method})" if reference.start else reference.method


def _asked(candidate: Candidate) -> bool:
    """Return whether its model answers a prompt; the head of an untrained classifier is random."""
    return candidate.start is not None and candidate.start.model.family != HEADED
