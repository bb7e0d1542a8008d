"""Systems: what answers in several tasks, be it one model or several used together. Merges over tasks are compared with all others."""

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
    """merge, expert, reference, blend or base, as its candidates'."""
    method: str
    members: tuple[str, ...]
    options: dict[str, tuple[str, ...]]
    """Task -> candidates, of which the best on validation answers there."""
    one: bool
    """Whether it is one model, whose weights count once; else its costs are the candidates' sum."""


def systems(grid: Grid) -> list[System]:
    """All systems of an experiment with a model over several tasks, such models first; none in any other experiment.

    Beside these models: each task's expert (a switch between tasks; nothing is merged), the base of models that are asked, references
    of one model and way of training, blends of one method, where two or more of the tasks have them.
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
    """Candidate -> the model over several tasks that it is a part of, of those that are."""
    return {c.name: c.whole for c in grid.candidates.values() if c.whole and c.name == c.candidate}


def _wholes(first: list[Candidate]) -> list[System]:
    """The models over several tasks: merges, trainings, experts that are asked about other tasks, too."""
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
    """(name, method, candidates) of one kind by a common name."""
    groups: dict[str, list[Candidate]] = {}
    for c in candidates:
        if c.kind == kind:
            groups.setdefault(name_of(c), []).append(c)
    return [(name, of[0].method, of) for name, of in groups.items()]


def _model(reference: Candidate) -> str:
    """What references of several tasks have in common: their model and how it was trained."""
    return f"{reference.start.model.name} ({reference.method})" if reference.start else reference.method


def _asked(candidate: Candidate) -> bool:
    """Whether its model is asked by a prompt: an untrained classifier's head knows nothing."""
    return candidate.start is not None and candidate.start.model.family != HEADED
