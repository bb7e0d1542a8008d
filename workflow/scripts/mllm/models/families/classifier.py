"""Sequence classifiers: a head with one output per class."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mllm.core.arrays import Array
from mllm.models.cards import Asked
from mllm.models.families import Row
from mllm.models.scorers import Scorer, needed, padded, seen_by_all, sees_only_before
from mllm.models.tokens import Batch, Tokens, reading

AUTO = "AutoModelForSequenceClassification"
WHAT = "a sequence classifier"
BESIDE: tuple[str, ...] = ()


class ClassifierScorer:
    """A sequence classifier: one pass, its logits.

    Where no token sees those after it, padding on the right needs no mask, and attention has a faster way; the model
    reads its answer at the last token that is no padding.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer, self.classes = model, tokenizer, model.config.num_labels
        self.outputs = self.classes
        self._causal = sees_only_before(model)
        model.config.use_cache = False  # keys and values, which nothing comes back for

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        return encode(self.tokenizer, texts)

    def reads_as(self) -> str | None:
        return reading(self.tokenizer)

    def score(self, batch: Batch) -> torch.Tensor:
        ids, mask = padded(batch, self.model.config.pad_token_id or 0, self.model.device)
        seen = None if self._causal else seen_by_all(self.model, needed(mask, batch), ids.shape[1])
        return self.model(input_ids=ids, attention_mask=seen).logits.float()

    def prepare(self, tokens: Tokens) -> None:
        """Nothing to prepare or prove: this is the model's own pass."""


def encode(tokenizer: Any, texts: Sequence[str]) -> tuple[list[list[int]], int]:
    """Tokens of reviews, and how many were cut; an empty review still needs one token to read the prediction from.

    What looks like a special token in a review is only text: T5 reads its answer at the end's token.
    """
    if not texts:
        return [], 0
    found = tokenizer([t or " " for t in texts], truncation=True, split_special_tokens=True)
    if tokenizer.is_fast:
        cut = sum(bool(e.overflowing) for e in found.encodings)
    else:  # it does not say what it left out
        uncut = tokenizer([t or " " for t in texts], truncation=False, split_special_tokens=True, verbose=False)
        cut = sum(len(a) > len(b) for a, b in zip(uncut["input_ids"], found["input_ids"], strict=True))
    empty = next(i for i in (tokenizer.eos_token_id, tokenizer.pad_token_id, 0) if i is not None)
    return [ids or [empty] for ids in found["input_ids"]], cut


def scorer(
    card: Asked, model: Any, tokenizer: Any, names: list[str], examples: Sequence[tuple[str, int]] = ()
) -> Scorer:
    """See :class:`mllm.models.families.Family`."""
    return ClassifierScorer(model, tokenizer)


def examples(
    card: Asked, train: Callable[[], tuple[list[str], Array]], classes: int, seed: int
) -> list[tuple[str, int]]:
    """None: a classifier is shown no examples."""
    return []


def priors(logp: Array, beside: Array, valid: Array) -> dict[str, Array]:
    """None: a classifier's answers are learnt, not asked for."""
    return {}


def rows(
    card: Asked, tokenizer: Any, names: list[str], texts: Sequence[str], labels: Sequence[int]
) -> tuple[list[Row], int]:
    """See :class:`mllm.models.families.Family`."""
    ids, cut = encode(tokenizer, texts)
    return [{"input_ids": row, "answer": label} for row, label in zip(ids, labels, strict=True)], cut


def collator(model: Any, tokenizer: Any) -> Callable[[list[Row]], dict[str, torch.Tensor]]:
    """See :class:`mllm.models.families.Family`. No mask where padding on the right is seen by nothing, as in predictions."""
    pad, causal = model.config.pad_token_id or 0, sees_only_before(model)

    def collate(batch: list[Row]) -> dict[str, torch.Tensor]:
        ids, mask = padded([row["input_ids"] for row in batch], pad, "cpu")
        seen = {} if causal else {"attention_mask": mask.long()}
        return {"input_ids": ids, **seen, "labels": torch.tensor([row["answer"] for row in batch])}

    return collate


def losses(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """See :class:`mllm.models.families.Family`."""
    labels, mask = batch.pop("labels"), batch.pop("attention_mask", None)
    if mask is not None and mask.is_cuda:
        mask = seen_by_all(model, mask, mask.shape[1])
    logits = model(**batch, attention_mask=mask).logits.float()
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none"), logits.argmax(-1) == labels
