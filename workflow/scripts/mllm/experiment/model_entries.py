"""Entries under ``models`` of the experiment file: where checkpoints come from, and their prompts."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mllm.core.wording import listed, nearest
from mllm.experiment import family_names as families
from mllm.experiment.value_types import LONGEST, NAME, Strict

TEMPLATE = "Text: {review}\nQuestion: what is the {task} of this text? Options: {labels}.\nAnswer:"
DRUG_REVIEWS = "Drug review: {review}\nQuestion: what is the {task} of this review? Options: {labels}.\nAnswer:"
"""The template if the data are drug reviews."""
Name = Annotated[str, Field(pattern=NAME, max_length=LONGEST)]
Positive = Annotated[int, Field(ge=1)]


class Prompt(Strict):
    """How a language model is asked for a review's label (families text2text and causal)."""

    template: str = TEMPLATE
    """Text with {review} once; {task} and {labels} are filled in. Only a review that is too long is cut, never the
    rest. For drug reviews (data.source uci and synthetic) the default says "Drug review" and "this review"."""
    words: dict[str, str] = Field(default_factory=dict)
    """Class: the word that the model should answer; default: the class's name."""
    score: Literal["likelihood", "first_token"] = "likelihood"
    """likelihood: of all tokens of a label; first_token: of its first token among the labels' first tokens, which must
    differ."""
    examples: Annotated[int, Field(ge=0, le=64)] = 0
    """Number of train reviews shown with their labels before the question; classes alternate; the experiment's seed
    draws them."""
    chat: bool = False
    """Use the tokenizer's chat template (for instruction-tuned models)."""

    @field_validator("template")
    @classmethod
    def _one_review(cls, value: str) -> str:
        return _with_one_review(value)


class TaskPrompt(Strict):
    """A task's prompt, if it differs from the model's; missing keys are the model's."""

    template: str | None = None
    """Text with {review} once; {task} and {labels} are filled in."""
    words: dict[str, str] | None = None
    """Class: the word that the model should answer."""
    score: Literal["likelihood", "first_token"] | None = None
    """As in a model's prompt."""
    examples: Annotated[int, Field(ge=0, le=64)] | None = None
    """Number of train reviews shown with their labels before the question."""
    chat: bool | None = None
    """Use the tokenizer's chat template."""

    @field_validator("template")
    @classmethod
    def _one_review(cls, value: str | None) -> str | None:
        return value if value is None else _with_one_review(value)


def _with_one_review(template: str) -> str:
    if template.count("{review}") != 1:
        raise ValueError("expected {review} in it, once")
    return template


class Model(Strict):
    """Keys of all models."""

    name: Name
    """Its name in base, experts and references."""
    family: Annotated[str, Field(json_schema_extra={"enum": list(families.NAMES)})] = families.HEADED
    """classifier has a classification head; text2text (T5 and FLAN-T5) and causal (decoder-only) answer a prompt."""
    prompt: Prompt | None = None
    """How it is asked (families text2text and causal); missing keys have their defaults."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of predictions; auto is bfloat16 on GPUs that have it, else float32."""
    gpus: Annotated[int, Field(ge=1, le=16)] = 1
    """Number of GPUs of one node: training gives each a share of every batch; prediction spreads a large model's
    layers."""

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
    """Commit (40 hexadecimal digits), branch or tag. A branch or tag is resolved once: a .lock.yaml file beside the
    experiment then has its commit."""
    max_length: Annotated[int, Field(ge=8)] = 512
    """Longest input in tokens; longer reviews are cut."""


class LocalModel(Model):
    """A checkpoint in a local folder."""

    source: Literal["local"]
    path: str
    """Folder with config.json, model.safetensors and the tokenizer, from the project's root."""
    max_length: Annotated[int, Field(ge=8)] = 512
    """Longest input in tokens; longer reviews are cut."""


class Pretrain(Strict):
    """Language modelling on the train reviews, before the classification head is added (gpt2 and llama)."""

    steps: Positive
    """Number of optimiser steps."""
    batch_size: Positive = 16
    """Number of text pieces per step."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Highest learning rate."""


class ScratchModel(Model):
    """A small model and its tokenizer, made from the train reviews only."""

    source: Literal["scratch"]
    architecture: Literal["gpt2", "llama", "bert", "t5"] = "gpt2"
    """gpt2 and llama: classifier or causal; bert: classifier; t5 (FLAN-T5's kind): classifier or text2text."""
    width: Positive = 64
    """Hidden size, a multiple of heads."""
    layers: Positive = 2
    """Number of transformer blocks (t5: in encoder and decoder each)."""
    heads: Positive = 2
    """Number of attention heads in each block."""
    vocabulary: Annotated[int, Field(ge=300)] = 2000
    """Largest number of tokens of the byte-pair tokenizer that is made from the train reviews."""
    max_length: Annotated[int, Field(ge=8)] = 128
    """Longest input in tokens; longer reviews are cut."""
    pretrain: Pretrain | None = None


def about_drug_reviews(entry: Any) -> Any:
    """Return a raw entry under ``models``; a prompt without a template gets the one for drug reviews."""
    if not isinstance(entry, dict) or entry.get("family", families.HEADED) == families.HEADED:
        return entry
    prompt = entry.get("prompt") or {}
    return {**entry, "prompt": {"template": DRUG_REVIEWS, **prompt}} if isinstance(prompt, dict) else entry
