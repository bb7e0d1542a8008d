"""Scorers: what predicts with a model. What all have in common, and what the language models among them have.

A language model's score of a label is the log-likelihood of all its tokens after the prompt. The prompt is computed once
for all labels, and what labels have in common once, too (see :mod:`mllm.models.label_tree`). Equal to scoring each label by
itself, which :meth:`LanguageModelScorer.prepare` checks on the model at hand, since an architecture may count its
positions otherwise.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from mllm.models.tokens import Batch, Tokens
from mllm.models.transformers_private.attention import fused

PLAIN = ("bert", "roberta", "distilbert", "t5", "mt5")
"""Architectures all of whose encoder layers see all tokens that are no padding."""


class Scorer(Protocol):
    """What prediction needs of a family."""

    model: Any
    classes: int

    @property
    def outputs(self) -> int:
        """Numbers that the model makes for one review's answer: label nodes times vocabulary, or classes."""
        ...

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Tokens of the reviews, none longer than the model reads; how many were cut for that."""
        ...

    def reads_as(self) -> str | None:
        """Equal for scorers with equal ``encode``; None where that cannot be told."""
        ...

    def score(self, batch: Batch) -> torch.Tensor:
        """(reviews, classes) float32, natural logarithms up to a constant per review."""
        ...

    def prepare(self, tokens: Tokens) -> None:
        """Compute what all reviews have in common; check on the shortest that ``score`` is what it should be.

        Raises:
            Failure: it is not.
        """
        ...


def padded(
    batch: Batch | Sequence[Sequence[int]], pad: int, device: Any, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """(reviews, longest) tokens, padded on the right unless said, and which of them are no padding.

    One copy brings them to a GPU, without waiting for it.
    """
    batch = Batch.of(batch)
    number, longest = len(batch), int(batch.lengths.max())
    packed = np.full(number * longest + number, pad, dtype=np.int64)
    place, own = np.arange(longest), batch.lengths[:, None]
    packed[: number * longest].reshape(number, longest)[place >= longest - own if left else place < own] = batch.flat
    packed[number * longest :] = batch.lengths
    both = sent(torch.from_numpy(packed), device)
    ids, lengths = both[: number * longest].view(number, longest), both[number * longest :, None]
    places = torch.arange(longest, device=both.device)
    return ids, places >= longest - lengths if left else places < lengths


def sent(tensor: torch.Tensor, device: Any) -> torch.Tensor:
    """A tensor of the host on another device, which nobody waits for: a GPU takes it from memory that stays in place."""
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def sees_only_before(model: Any) -> bool:
    """Whether none of a model's tokens sees those after it: padding on the right needs no mask then."""
    return {m.is_causal for m in model.modules() if hasattr(m, "is_causal")} == {True}


def needed(mask: torch.Tensor, batch: Batch | Sequence[Sequence[int]]) -> torch.Tensor | None:
    """No mask at all where nothing is padded: attention has a faster way then."""
    return mask.long() if Batch.of(batch).ragged else None


def seen_by_all(model: Any, mask: torch.Tensor | None, queries: int) -> torch.Tensor | None:
    """A mask of bidirectional attention as the model would make it; where it is made here, it looks at no value of it.

    transformers asks a mask whether it hides anything, and so waits for the GPU. Models with windows make masks of their own.

    Args:
        model: of any architecture.
        mask: (reviews, tokens) 1 where there is no padding, or none.
        queries: tokens that look at these.

    Returns:
        (reviews, 1, queries, tokens), or the mask as given.
    """
    model = getattr(model, "module", model)  # of what several processes train, too
    if mask is None or model.config.model_type not in PLAIN or not fused(model):
        return mask
    return mask.bool()[:, None, None].expand(-1, -1, queries, -1)
