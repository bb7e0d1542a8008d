"""Entries under ``models`` of the experiment file: where checkpoints come from, and how they are asked."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mllm.core.wording import listed, nearest
from mllm.experiment import family_names as families
from mllm.experiment.value_types import LONGEST, NAME, Strict

TEMPLATE = "Text: {review}\nQuestion: what is the {task} of this text? Options: {labels}.\nAnswer:"
DRUG_REVIEWS = "Drug review: {review}\nQuestion: what is the {task} of this review? Options: {labels}.\nAnswer:"
"""The template where the data are drug reviews."""
Name = Annotated[str, Field(pattern=NAME, max_length=LONGEST)]
Positive = Annotated[int, Field(ge=1)]


class Prompt(Strict):
    """How a language model is asked for a review's label (families text2text and causal)."""

    template: str = TEMPLATE
    """With {review} once; {task} and {labels} are filled in. Too long a review is cut, the rest never. For drug reviews (data.source
    uci and synthetic) the default says "Drug review" and "this review"."""
    words: dict[str, str] = Field(default_factory=dict)
    """Class -> the word that the model is to answer; a class's own name by default."""
    score: Literal["likelihood", "first_token"] = "likelihood"
    """likelihood of all of a label's tokens, or its first token's among the labels' first tokens, which must differ."""
    examples: Annotated[int, Field(ge=0, le=64)] = 0
    """Train reviews shown with their labels before the question, the classes in turn, drawn by the experiment's seed."""
    chat: bool = False
    """Ask in the tokenizer's chat template (instruction-tuned models)."""

    @field_validator("template")
    @classmethod
    def _one_review(cls, value: str) -> str:
        return _with_one_review(value)


class TaskPrompt(Strict):
    """How a task's reviews are asked about, where it is not as the model's own prompt says; keys that are left out are the model's."""

    template: str | None = None
    """With {review} once; {task} and {labels} are filled in."""
    words: dict[str, str] | None = None
    """Class -> the word that stands for it."""
    score: Literal["likelihood", "first_token"] | None = None
    """As in a model's prompt."""
    examples: Annotated[int, Field(ge=0, le=64)] | None = None
    """Train reviews shown with their labels before the question."""
    chat: bool | None = None
    """Ask in the tokenizer's chat template."""

    @field_validator("template")
    @classmethod
    def _one_review(cls, value: str | None) -> str | None:
        return value if value is None else _with_one_review(value)


def _with_one_review(template: str) -> str:
    if template.count("{review}") != 1:
        raise ValueError("expected {review} in it, once")
    return template


class Model(Strict):
    """What all models have."""

    name: Name
    """What base, experts and references call it."""
    family: Annotated[str, Field(json_schema_extra={"enum": list(families.NAMES)})] = families.HEADED
    """classifier has a classification head; text2text (T5 and FLAN-T5) and causal (decoder-only) answer a prompt."""
    prompt: Prompt | None = None
    """Families text2text and causal; all its defaults where it is left out."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of predictions; auto is bfloat16 on GPUs that have it, else float32."""
    gpus: Annotated[int, Field(ge=1, le=16)] = 1
    """GPUs of one node: training gives each a share of every batch, prediction of a large model spreads its layers."""

    @field_validator("family")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in families.NAMES:
            raise ValueError(f"allowed: {listed(families.NAMES)}{nearest(value, families.NAMES)}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _asked(cls, value: Any) -> Any:
        headed = not isinstance(value, dict) or value.get("family", families.HEADED) == families.HEADED
        return value if headed or value.get("prompt") is not None else {**value, "prompt": {}}


class HubModel(Model):
    """A checkpoint of the Hugging Face hub."""

    source: Literal["hub"]
    id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    """Repository, as owner/name."""
    revision: Annotated[str, Field(pattern=r"^[\w.][\w./-]*$")]
    """Commit (40 hexadecimal digits), or a branch or tag, which is resolved once: its commit is then in a .lock.yaml file
    beside the experiment."""
    max_length: Annotated[int, Field(ge=8)] = 512
    """Longest input in tokens; longer reviews are cut."""


class LocalModel(Model):
    """A checkpoint in a folder of yours."""

    source: Literal["local"]
    path: str
    """Folder with config.json, model.safetensors and the tokenizer, from the project's root."""
    max_length: Annotated[int, Field(ge=8)] = 512
    """Longest input in tokens; longer reviews are cut."""


class Pretrain(Strict):
    """Language modelling on the train reviews, before there is a classification head (gpt2 and llama)."""

    steps: Positive
    """Optimiser steps."""
    batch_size: Positive = 16
    """Pieces of text per step."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Its highest value."""


class ScratchModel(Model):
    """A small model and its tokenizer made from nothing but the train reviews."""

    source: Literal["scratch"]
    architecture: Literal["gpt2", "llama", "bert", "t5"] = "gpt2"
    """gpt2 and llama: classifier or causal; bert: classifier; t5 (FLAN-T5's kind): classifier or text2text."""
    width: Positive = 64
    """Hidden size, a multiple of heads."""
    layers: Positive = 2
    """Transformer blocks (t5: of encoder and decoder each)."""
    heads: Positive = 2
    """Attention heads of each block."""
    vocabulary: Annotated[int, Field(ge=300)] = 2000
    """Tokens of the byte-pair tokenizer that is made from the train reviews, at most."""
    max_length: Annotated[int, Field(ge=8)] = 128
    """Longest input in tokens; longer reviews are cut."""
    pretrain: Pretrain | None = None


def about_drug_reviews(entry: Any) -> Any:
    """A raw entry under ``models`` whose prompt, where the file gives no template, speaks of drug reviews."""
    if not isinstance(entry, dict) or entry.get("family", families.HEADED) == families.HEADED:
        return entry
    prompt = entry.get("prompt") or {}
    return {**entry, "prompt": {"template": DRUG_REVIEWS, **prompt}} if isinstance(prompt, dict) else entry
