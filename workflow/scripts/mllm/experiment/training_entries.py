"""Entries under ``experts`` and ``references`` of the experiment file: what is trained, on what, how, and how often."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from mllm.experiment.model_entries import Name, Positive
from mllm.experiment.value_types import Seed, Strict, Value

BASELINES = ("tfidf", "majority")
Labels = Annotated[dict[str, str], Field(min_length=2)]


class Lora(Strict):
    """Low-rank adapters on all linear maps, folded into the weights at the end (Hu et al. 2021); a classifier's head is
    trained whole."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of each adapter."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """What adapters add is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an adapter's inputs that is dropped in training."""


class Training(Strict):
    """Fine-tuning, for experts and references alike."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the reviews (default 1)."""
    steps: Positive | None = None
    """Optimiser steps, instead of epochs."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 5e-5
    """Its highest value; it rises over the warm-up, then falls linearly to 0."""
    batch_size: Positive = 16
    """Reviews per optimiser step, over all GPUs."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Fraction of the steps in which the learning rate rises."""
    lora: Lora | None = None
    """Train adapters instead of all weights; {} for its defaults."""
    class_weights: Literal["balanced", "sqrt"] | None = None
    """balanced: a review counts in inverse proportion to its class's frequency among the reviews trained on; sqrt: to the square
    root of that frequency. Either way 1 on average over these reviews."""
    freeze: Annotated[int, Field(ge=0)] | None = None
    """Layers, from the first, that stay as the base has them, and the embeddings with them; of T5 the encoder's. 0: none."""
    head_only: bool = False
    """Train a classifier's head alone."""
    early_stopping: Positive | None = None
    """Stop after so many epochs without a better likelihood of validation (of an expert's own conditions, 1,000 reviews at
    most), and keep the best epoch's weights."""
    seed: Seed | None = None
    """Default: the experiment's seed."""


class Expert(Training):
    """The base, fine-tuned on a part of train; or a checkpoint that is fine-tuned already."""

    name: Name
    """What merges and blends call it."""
    task: str | None = None
    """What it learns; needed where there are several tasks."""
    model: str | None = None
    """A name under models, of the base's architecture and tokenizer, taken as it is. Beside it only labels."""
    labels: Labels | None = None
    """Class -> the name of its output in the checkpoint's config.json, for a classifier taken as it is: {negative: LABEL_0, …}.
    Needed where the names are others than the task's, upper and lower case aside."""
    cap: Positive | None = None
    """At most this many reviews of each class, drawn by the experiment's seed."""
    parts: Annotated[int, Field(ge=2)] | None = None
    """Random equal shards: makes experts name-0, name-1, …"""
    where: Annotated[dict[str, list[Value]], Field(min_length=1)] | None = None
    """Only reviews whose column has one of the values, for example condition: [Pain]."""
    replicates: Positive | None = None
    """How often it is trained, each time with another seed. Default: the experiment's."""


class Reference(Training):
    """A model to compare the merges with: fine-tuned on all of train, or as it is, asked by its prompt."""

    name: Name
    """Its name in the leaderboard."""
    model: Annotated[str, Field(json_schema_extra={"not": {"enum": list(BASELINES)}})]
    """A name under models, or tfidf (TF-IDF and logistic regression), or majority (the most frequent class)."""
    train: Literal["all", "joint", "tasks", "probe", "none"] = "all"
    """all: fine-tuned on all of train; joint: on all reviews that its task's experts saw; tasks: one model, on the reviews that
    the experts of several tasks saw; probe: logistic regression on its frozen features; none: as it is. A classifier keeps its
    head; a text2text or causal model is asked, zero-shot or with examples."""
    tasks: Annotated[list[str], Field(min_length=2)] | None = None
    """With train: tasks, the tasks that it learns (default: all that have experts)."""
    labels: Labels | None = None
    """As for experts: a classifier's own names for the task's classes (train: none)."""
    task: str | None = None
    """What it learns; needed where there are several tasks."""
    replicates: Positive | None = None
    """How often it is trained, each time with another seed. Default: the experiment's."""


class Baseline(Strict):
    """What needs no language model, to compare the merges with."""

    name: Name
    """Its name in the leaderboard."""
    model: Literal["tfidf", "majority"]
    """tfidf (TF-IDF and logistic regression), majority (the most frequent class), or a name under models."""
    train: Literal["all"] = "all"
    """Always all of train."""
    task: str | None = None
    """What it learns; needed where there are several tasks."""


def _is_baseline(value: Any) -> str:
    model = value.get("model") if isinstance(value, dict) else getattr(value, "model", None)
    return "baseline" if model in BASELINES else "fine_tuned"


AnyReference = Annotated[
    Annotated[Baseline, Tag("baseline")] | Annotated[Reference, Tag("fine_tuned")], Discriminator(_is_baseline)
]
