"""What an experiment's grid is made of: candidates and their runs, prepared checkpoints, points that are the same."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mllm.experiment.layered import is_layered
from mllm.experiment.model_entries import HubModel, LocalModel, ScratchModel
from mllm.experiment.recipes import Recipe

Model = HubModel | LocalModel | ScratchModel


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
    """One run of a candidate: what yields predictions, once. A candidate with one run, the usual case, is its run.

    Runs of one candidate differ in their seeds alone: of the trainings beneath them (replicates), and within those of what a
    random merge draws.
    """

    name: str
    """The candidate's own in the first replicate, ``<name>@<replicate>`` in the others."""
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
    labels: dict[str, str] = field(default_factory=dict)
    """Class -> what a published classifier calls it; by the classes' own names where empty."""
    part: dict[str, Any] = field(default_factory=dict)
    """Reviews that it is trained on; all where empty."""
    hyper: dict[str, Any] = field(default_factory=dict)
    """How it is trained."""
    replicates: int = 1
    """How often it is trained, with other seeds; merges and blends have as many runs as their members allow."""
    replicate: int = 1
    """Whose trainings it is, or has beneath it, from 1."""
    of: str = ""
    """The candidate that it is a run of; empty where that is its own name."""
    whole: str = ""
    """The model over several tasks that it is one task's part of, ``<whole>.<task>``; empty for all others."""
    covers: tuple[str, ...] = ()
    """All tasks of that model, sorted."""

    @property
    def candidate(self) -> str:
        """The candidate that it is a run of: a row of the leaderboard, and the name of its first run."""
        return self.of or self.name

    @property
    def folder(self) -> str:
        """Its weights, in the experiment's folder."""
        if self.recipe:
            return f"merges/{self.whole}/model/{self.task}" if self.whole else f"merges/{self.name}/model"
        if self.made_by == "train_tasks":
            return f"models/{self.whole}/{self.task}"
        if self.made_by == "predict":
            return f"models/{self.whole}"
        prepared = self.start.name if self.start and self.made_by == "prepare_base" else None
        return f"models/{prepared or self.name}"

    @property
    def gpus(self) -> int:
        """GPUs that its model's layers or batches spread over."""
        return self.start.model.gpus if self.start else 1

    def label(self) -> dict[str, Any]:
        """What a score file says of its run."""
        return {
            "candidate": self.candidate,
            "run": None if self.candidate == self.name else self.name,
            "replicate": self.replicate,
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
    """All runs of all candidates, and the prepared checkpoints they start from, by name."""

    candidates: dict[str, Candidate]
    """The first replicate's, then the others'."""
    starts: dict[str, Start]
    duplicates: list[Duplicate]
    """Grid points that compute what another candidate computes, and are not run again."""
    imported: dict[str, Path] = field(default_factory=dict)
    """Candidate whose predictions were made elsewhere -> their file."""

    def of_kind(self, *kinds: str) -> list[Candidate]:
        return [c for c in self.candidates.values() if c.kind in kinds]

    @cached_property
    def runs(self) -> dict[str, list[str]]:
        """Candidate -> the names of its runs."""
        found: dict[str, list[str]] = {}
        for run in self.candidates.values():
            found.setdefault(run.candidate, []).append(run.name)
        return found

    def made_by(self, *rules: str) -> list[str]:
        """Names of the candidates that some rules make."""
        return [c.name for c in self.candidates.values() if c.made_by in rules]

    @cached_property
    def merges(self) -> dict[str, Recipe]:
        """Merge -> its recipe; what covers several tasks is made once."""
        return {c.whole or c.name: c.recipe for c in self.candidates.values() if c.recipe}

    @cached_property
    def wholes(self) -> dict[str, dict[str, Candidate]]:
        """Model over several tasks -> task -> the candidate that it is there."""
        found: dict[str, dict[str, Candidate]] = {}
        for part in self.candidates.values():
            if part.whole:
                own = self.candidates.get(part.whole)  # an expert that is asked about other tasks, too
                found.setdefault(part.whole, {own.task: own} if own else {})[part.task] = part
        return found

    @cached_property
    def bases(self) -> dict[str, str]:
        """Task -> the prepared checkpoint from which its experts start."""
        return {c.task: c.name for c in self.of_kind("base")}


def _value(value: Any) -> str:
    if is_layered(value):
        return "→".join(f"{v:g}" for v in value["layers"]) + f" (rest {value['rest']:g})"
    if isinstance(value, dict):
        return "/".join(map(_value, value.values()))
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
