"""Scorers: what predicts with a model. What all have in common, and what the language models among them have.

A language model's score of a label is the log-likelihood of all its tokens after the prompt. The prompt is computed once
for all labels, and what labels have in common once, too (see :mod:`mllm.models.label_tree`). Equal to scoring each label by
itself, which :meth:`LanguageModelScorer.prepare` checks on the model at hand, since an architecture may count its
positions otherwise.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from mllm.models.tokens import Tokens


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
