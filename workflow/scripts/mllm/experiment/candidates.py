"""Parts of an experiment's grid: candidates and their runs, prepared checkpoints, duplicate points."""

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
    """Name of its folder in models/."""
    task: str
    """Task of its head."""
    model: Model
    """Its entry under models."""


@dataclass(frozen=True)
class Candidate:
    """One run of a candidate; each run yields predictions once. A candidate usually has one run, with its own name.

    Runs of one candidate differ in their seeds only: those of their trainings (replicates), and within a replicate the
    seeds of a random merge.
    """

    name: str
    """The candidate's own name in the first replicate, ``<name>@<replicate>`` in the others."""
    kind: str
    """base, expert, merge, blend or reference"""
    task: str
    method: str = ""
    members: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    made_by: str = ""
    """Rule that makes its weights; without a model, the rule that makes its predictions."""
    start: Start | None = None
    """Prepared checkpoint that its weights come from."""
    taken: Model | None = None
    """Published checkpoint that is used without training."""
    labels: dict[str, str] = field(default_factory=dict)
    """Class -> its name in a published classifier; empty: the classes' own names."""
    part: dict[str, Any] = field(default_factory=dict)
    """Reviews that it is trained on; empty: all."""
    hyper: dict[str, Any] = field(default_factory=dict)
    """Hyperparameters of its training."""
    replicates: int = 1
    """Number of its trainings, with different seeds; merges and blends have as many runs as their members allow."""
    replicate: int = 1
    """Replicate of its own training or of its members', from 1."""
    of: str = ""
    """The candidate of this run; empty: its own name."""
    whole: str = ""
    """The model over several tasks that it is a part of, as ``<whole>.<task>``; empty for all others."""
    covers: tuple[str, ...] = ()
    """All tasks of that model, sorted."""

    @property
    def candidate(self) -> str:
        """Return the candidate of this run: a row of the leaderboard, and the name of its first run."""
        return self.of or self.name

    @property
    def folder(self) -> str:
        """Return the folder of its weights, within the experiment's folder."""
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
        """Return the number of GPUs that its model's layers or batches spread over."""
        return self.start.model.gpus if self.start else 1

    def label(self) -> dict[str, Any]:
        """Return the facts of its run that score files contain."""
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
        """Return a one-line description."""
        values = self.recipe.telling() if self.recipe else self.parameters
        shown = " ".join(f"{k}={_value(v)}" for k, v in values.items())
        members = ", ".join(self.members)
        return "  ".join(part for part in (self.method or self.kind, members, shown) if part)


@dataclass(frozen=True)
class Duplicate:
    """A grid point that computes the same as another candidate."""

    name: str
    same_as: str
    """The candidate that is run in its place."""
    why: str


@dataclass(frozen=True)
class Grid:
    """All runs of all candidates, and the prepared checkpoints they start from, by name."""

    candidates: dict[str, Candidate]
    """Runs of the first replicate, then of the others."""
    starts: dict[str, Start]
    duplicates: list[Duplicate]
    """Grid points that compute the same as another candidate, and are not run."""
    imported: dict[str, Path] = field(default_factory=dict)
    """Candidate -> file of its predictions, if they were made elsewhere."""

    def of_kind(self, *kinds: str) -> list[Candidate]:
        return [c for c in self.candidates.values() if c.kind in kinds]

    @cached_property
    def runs(self) -> dict[str, list[str]]:
        """Return candidate -> the names of its runs."""
        found: dict[str, list[str]] = {}
        for run in self.candidates.values():
            found.setdefault(run.candidate, []).append(run.name)
        return found

    def made_by(self, *rules: str) -> list[str]:
        """Return the names of the candidates that some rules make."""
        return [c.name for c in self.candidates.values() if c.made_by in rules]

    @cached_property
    def merges(self) -> dict[str, Recipe]:
        """Return merge -> its recipe; a merge over several tasks is made once."""
        return {c.whole or c.name: c.recipe for c in self.candidates.values() if c.recipe}

    @cached_property
    def wholes(self) -> dict[str, dict[str, Candidate]]:
        """Return model over several tasks -> task -> its candidate in that task."""
        found: dict[str, dict[str, Candidate]] = {}
        for part in self.candidates.values():
            if part.whole:
                own = self.candidates.get(part.whole)  # an expert that also answers other tasks
                found.setdefault(part.whole, {own.task: own} if own else {})[part.task] = part
        return found

    @cached_property
    def bases(self) -> dict[str, str]:
        """Return task -> the prepared checkpoint from which its experts start."""
        return {c.task: c.name for c in self.of_kind("base")}


def _value(value: Any) -> str:
    if is_layered(value):
        return "→".join(f"{v:g}" for v in value["layers"]) + f" (rest {value['rest']:g})"
    if isinstance(value, dict):
        return "/".join(map(_value, value.values()))
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
