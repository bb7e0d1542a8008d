"""What prediction needs of a family, and what it is for classifiers."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from mllm.tokens import Tokens, reading


class Scorer(Protocol):
    """What prediction needs of a family."""

    model: Any
    classes: int

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Tokens of the reviews, none longer than the model reads; how many were cut for that."""
        ...

    def reads_as(self) -> str | None:
        """Equal for scorers with equal ``encode``; None where that cannot be told."""
        ...

    def score(self, batch: list[list[int]]) -> torch.Tensor:
        """(reviews, classes) float32, natural logarithms up to a constant per review."""
        ...

    def prepare(self, tokens: Tokens) -> None:
        """Compute what all reviews have in common; check on the shortest that ``score`` is what it should be.

        Raises:
            Failure: it is not.
        """
        ...


def padded(batch: list[list[int]], pad: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(reviews, longest) tokens, padded on the right, and which of them are no padding."""
    longest = max(map(len, batch))
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in batch])
    lengths = torch.tensor([len(row) for row in batch])
    mask = torch.arange(longest)[None, :] < lengths[:, None]
    return ids.to(device, non_blocking=True), mask.to(device, non_blocking=True)


def needed(mask: torch.Tensor, batch: list[list[int]]) -> torch.Tensor | None:
    """No mask at all where nothing is padded: attention has a faster way then."""
    return mask.long() if len(set(map(len, batch))) > 1 else None


class ClassifierScorer:
    """A sequence classifier: one pass, its logits.

    Where no token sees those after it, padding on the right needs no mask, and attention has a faster way; the model
    reads its answer at the last token that is no padding.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer, self.classes = model, tokenizer, model.config.num_labels
        self._causal = {m.is_causal for m in model.modules() if hasattr(m, "is_causal")} == {True}
        model.config.use_cache = False  # keys and values, which nothing comes back for

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        # An empty review still needs one token to read the prediction from.
        found = self.tokenizer([t or " " for t in texts], truncation=True)
        cut = sum(bool(e.overflowing) for e in found.encodings or [])
        return [ids or [self.tokenizer.eos_token_id] for ids in found["input_ids"]], cut

    def reads_as(self) -> str | None:
        return reading(self.tokenizer)

    def score(self, batch: list[list[int]]) -> torch.Tensor:
        ids, mask = padded(batch, self.model.config.pad_token_id or 0, self.model.device)
        return self.model(input_ids=ids, attention_mask=None if self._causal else needed(mask, batch)).logits.float()

    def prepare(self, tokens: Tokens) -> None:
        """Nothing to prepare or prove: this is the model's own pass."""
