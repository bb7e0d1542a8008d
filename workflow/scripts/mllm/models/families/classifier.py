"""Score and train sequence classifiers, whose head has one output per class."""

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
    """Scores by the logits of one pass.

    If no token sees later ones, padding on the right needs no mask, and attention is faster without one. The model then
    reads its answer at the last token that is not padding.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer, self.classes = model, tokenizer, model.config.num_labels
        self.outputs = self.classes
        self._causal = sees_only_before(model)
        model.config.use_cache = False  # nothing would reuse keys and values

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        return encode(self.tokenizer, texts)

    def reads_as(self) -> str | None:
        return reading(self.tokenizer)

    def score(self, batch: Batch) -> torch.Tensor:
        ids, mask = padded(batch, self.model.config.pad_token_id or 0, self.model.device)
        seen = None if self._causal else seen_by_all(self.model, needed(mask, batch), ids.shape[1])
        return self.model(input_ids=ids, attention_mask=seen).logits.float()

    def prepare(self, tokens: Tokens) -> None:
        """Do nothing: the score is the model's own pass, which needs no check."""


def encode(tokenizer: Any, texts: Sequence[str]) -> tuple[list[list[int]], int]:
    """Return the tokens of reviews, and the number of cut ones; an empty review still needs one token for its prediction.

    Text that looks like a special token stays text, since T5 reads its answer at the end token.
    """
    if not texts:
        return [], 0
    found = tokenizer([t or " " for t in texts], truncation=True, split_special_tokens=True)
    if tokenizer.is_fast:
        cut = sum(bool(e.overflowing) for e in found.encodings)
    else:  # it does not tell what it left out
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
    """Return no examples: a classifier has no prompt."""
    return []


def priors(logp: Array, beside: Array, valid: Array) -> dict[str, Array]:
    """Return no priors: a classifier learns its answers and has no prompt."""
    return {}


def rows(
    card: Asked, tokenizer: Any, names: list[str], texts: Sequence[str], labels: Sequence[int]
) -> tuple[list[Row], int]:
    """See :class:`mllm.models.families.Family`."""
    ids, cut = encode(tokenizer, texts)
    return [{"input_ids": row, "answer": label} for row, label in zip(ids, labels, strict=True)], cut


def collator(model: Any, tokenizer: Any) -> Callable[[list[Row]], dict[str, torch.Tensor]]:
    """See :class:`mllm.models.families.Family`. There is no mask if nothing sees padding on the right, as in predictions."""
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
