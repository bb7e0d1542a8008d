"""Entries under ``experts`` and ``references`` of the experiment file: models, their reviews and their trainings."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from mllm.experiment.model_entries import Name, Positive
from mllm.experiment.value_types import Seed, Strict, Value

BASELINES = ("tfidf", "majority")
Labels = Annotated[dict[str, str], Field(min_length=2)]


class Lora(Strict):
    """Low-rank adapters on all linear maps, added to the weights at the end (Hu et al. 2021); a classifier's head is
    trained completely."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of each adapter."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """Adapters' outputs are multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an adapter's inputs that is dropped in training."""


class Training(Strict):
    """Fine-tuning, for experts and references alike."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    """Number of passes over the reviews (default 1)."""
    steps: Positive | None = None
    """Number of optimiser steps, instead of epochs."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 5e-5
    """Highest learning rate: it rises over the warm-up, then falls linearly to 0."""
    batch_size: Positive = 16
    """Number of reviews per optimiser step, over all GPUs."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Fraction of the steps in which the learning rate rises."""
    lora: Lora | None = None
    """Train adapters instead of all weights; {}: with their defaults."""
    class_weights: Literal["balanced", "sqrt"] | None = None
    """balanced: a review's weight is inversely proportional to its class's frequency in the reviews that are trained
    on; sqrt: to the square root of that frequency. The mean weight over these reviews is 1."""
    freeze: Annotated[int, Field(ge=0)] | None = None
    """Number of first layers that stay as in the base, together with the embeddings; for T5, layers of the encoder. 0:
    no layers, and no embeddings."""
    head_only: bool = False
    """Train a classifier's head only."""
    early_stopping: Positive | None = None
    """Stop after this many epochs without a higher likelihood on validation, and keep the best epoch's weights. An
    expert uses validation reviews of its own conditions, at most 1,000."""
    seed: Seed | None = None
    """Default: the experiment's seed."""


class Expert(Training):
    """The base, fine-tuned on a part of train; or a checkpoint that is fine-tuned already."""

    name: Name
    """Its name in merges and blends."""
    task: str | None = None
    """Task that it learns; needed if there are several tasks."""
    model: str | None = None
    """A name under models, with the base's architecture and tokenizer, that is used without training. Only labels may
    be beside it."""
    labels: Labels | None = None
    """Class: the name of its output in the checkpoint's config.json, for a published classifier: {negative:
    LABEL_0, …}. Needed if these names differ from the task's classes in more than upper and lower case."""
    cap: Positive | None = None
    """Largest number of reviews of each class, drawn by the experiment's seed."""
    parts: Annotated[int, Field(ge=2)] | None = None
    """Number of random equal shards, which make the experts name-0, name-1, …"""
    where: Annotated[dict[str, list[Value]], Field(min_length=1)] | None = None
    """Only reviews whose column has one of the values, for example condition: [Pain]."""
    replicates: Positive | None = None
    """Number of its trainings, each with another seed. Default: the experiment's."""


class Reference(Training):
    """A model to compare the merges with: fine-tuned on train, or used without training."""

    name: Name
    """Its name in the leaderboard."""
    model: Annotated[str, Field(json_schema_extra={"not": {"enum": list(BASELINES)}})]
    """A name under models, or tfidf (TF-IDF and logistic regression), or majority (the most frequent class)."""
    train: Literal["all", "joint", "tasks", "probe", "none"] = "all"
    """all: fine-tuned on all of train; joint: on all reviews that its task's experts saw; tasks: one model, on the
    reviews that the experts of several tasks saw; probe: logistic regression on its frozen features; none: used without
    training. With none, a classifier keeps its head; a text2text or causal model is asked, zero-shot or with
    examples."""
    tasks: Annotated[list[str], Field(min_length=2)] | None = None
    """With train: tasks, the tasks that it learns (default: all tasks with experts)."""
    labels: Labels | None = None
    """As for experts: a classifier's own names for the task's classes (train: none)."""
    task: str | None = None
    """Task that it learns; needed if there are several tasks."""
    replicates: Positive | None = None
    """Number of its trainings, each with another seed. Default: the experiment's."""


class Baseline(Strict):
    """A baseline without a language model, to compare the merges with."""

    name: Name
    """Its name in the leaderboard."""
    model: Literal["tfidf", "majority"]
    """tfidf (TF-IDF and logistic regression), majority (the most frequent class), or a name under models."""
    train: Literal["all"] = "all"
    """A baseline always learns from all of train."""
    task: str | None = None
    """Task that it learns; needed if there are several tasks."""


def _is_baseline(value: Any) -> str:
    model = value.get("model") if isinstance(value, dict) else getattr(value, "model", None)
    return "baseline" if model in BASELINES else "fine_tuned"


AnyReference = Annotated[
    Annotated[Baseline, Tag("baseline")] | Annotated[Reference, Tag("fine_tuned")], Discriminator(_is_baseline)
]
