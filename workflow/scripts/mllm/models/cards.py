"""Define cards: ``model.json`` in each model folder describes its model, so that readers of the folder need nothing else."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict

from mllm.core.errors import Failure
from mllm.core.files import read_json
from mllm.core.records import Record

FILE = "model.json"


class Asked(TypedDict):
    """The part of a model's card that models made from it need, too."""

    family: str
    model: dict[str, Any]
    """The experiment's entry of the model that the base was made from."""
    task: str


@dataclass(frozen=True, kw_only=True)
class Card(Record):
    """The facts about every model that this project made."""

    VERSION: ClassVar[int] = 1
    WHOLE: ClassVar[bool] = True

    family: str
    model: dict[str, Any]
    task: str
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries that made the weights."""

    def asked(self) -> Asked:
        """Return the facts that models made from this one need."""
        return {"family": self.family, "model": self.model, "task": self.task}

    @property
    def train_seconds(self) -> float | None:
        """Seconds of the model's own training; None if they are unknown."""
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Base(Card):
    """A checkpoint that experts start from."""

    kind: Literal["base"] = "base"
    seed: int
    license: str | None = None


@dataclass(frozen=True, kw_only=True)
class FineTuned(Card):
    """A model that this project trained."""

    kind: Literal["fine_tuned"] = "fine_tuned"
    part: dict[str, Any]
    """The reviews it learned from: {}, {shard, of, seed} or {where}."""
    hyper_parameters: dict[str, Any]
    identity: str
    """Digest of all that the training depends on."""
    parents: dict[str, str]
    """``base`` -> SHA-256 of its weights."""
    data: str
    """Digest of the reviews."""
    reviews: int
    cut_reviews: int
    steps: int
    loss: list[dict[str, float]]
    """step and loss of batches."""
    validation: list[dict[str, float]]
    """step, epoch, loss and accuracy on validation, after each epoch."""
    batch_parts: int
    device: str
    processes: int
    seconds: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int

    @property
    def train_seconds(self) -> float | None:
        return self.seconds


@dataclass(frozen=True, kw_only=True)
class Published(Card):
    """A fine-tuned checkpoint that is used as it is."""

    kind: Literal["published"] = "published"
    source: dict[str, Any]
    """Its entry in the experiment."""
    license: str | None = None
    parents: dict[str, str]

    @property
    def train_seconds(self) -> float | None:
        return None


@dataclass(frozen=True, kw_only=True)
class Merge(Card):
    """A merge or a mixture; ``merge.json`` beside its folder is the same card."""

    kind: Literal["merge"] = "merge"
    recipe: dict[str, Any]
    """method, members, parameters, base."""
    dtype: str
    weights: str
    """SHA-256 of the weights."""
    parents: dict[str, str]
    """Base and members -> SHA-256 of their weights."""
    device: str


KINDS: dict[str, type[Card]] = {"base": Base, "fine_tuned": FineTuned, "published": Published, "merge": Merge}


def read(folder: Path) -> Card:
    """Read the card of a model folder.

    Raises:
        Failure: the card is missing or damaged, or another version of the project wrote it.
    """
    path = folder / FILE
    found = read_json(path)
    kind = found.get("kind") if isinstance(found, dict) else None
    if kind not in KINDS:
        fix = f"Fix: delete {folder} and rerun the same command"
        raise Failure(f"{path}: not a card of this project (found kind {kind}, expected {', '.join(KINDS)}). {fix}")
    return KINDS[kind].of(found, path)
