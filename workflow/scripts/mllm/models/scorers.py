"""Define scorers, which predict with a model, and the functions that they share.

A language model's score of a label is the log-likelihood of all its tokens after the prompt. The prompt is computed once
for all labels, and so are common beginnings of labels (see :mod:`mllm.models.label_tree`). The scores equal those of each
label by itself. :meth:`LanguageModelScorer.prepare` checks this on the model at hand, since an architecture may count its
positions differently.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from mllm.models.tokens import Batch, Tokens
from mllm.models.transformers_private.attention import fused

PLAIN = ("bert", "roberta", "distilbert", "t5", "mt5")
"""Architectures in which every encoder layer sees all tokens that are not padding."""


class Scorer(Protocol):
    """The interface that prediction needs from a family."""

    model: Any
    classes: int

    @property
    def outputs(self) -> int:
        """Number of values that the model computes for one review's answer: label nodes times vocabulary, or classes."""
        ...

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Return the reviews' tokens, cut to the model's longest input, and the number of cut reviews."""
        ...

    def reads_as(self) -> str | None:
        """Return a text that is equal for scorers with equal ``encode``; None if that is unknown."""
        ...

    def score(self, batch: Batch) -> torch.Tensor:
        """Return (reviews, classes) float32: natural logarithms, up to a constant per review."""
        ...

    def prepare(self, tokens: Tokens) -> None:
        """Compute the common part of all reviews, and check ``score`` on some of them.

        Raises:
            Failure: ``score`` is wrong for this model.
        """
        ...


def padded(
    batch: Batch | Sequence[Sequence[int]], pad: int, device: Any, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (reviews, longest) tokens, by default padded on the right, and whether each is not padding.

    One copy brings both to a GPU, without waiting for it.
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
    """Send a tensor of the host to a device without waiting: a GPU reads it from pinned memory."""
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def sees_only_before(model: Any) -> bool:
    """Return whether no token of a model sees later ones: padding on the right then needs no mask."""
    return {m.is_causal for m in model.modules() if hasattr(m, "is_causal")} == {True}


def needed(mask: torch.Tensor, batch: Batch | Sequence[Sequence[int]]) -> torch.Tensor | None:
    """Return the mask, or None if nothing is padded: attention is faster without a mask."""
    return mask.long() if Batch.of(batch).ragged else None


def seen_by_all(model: Any, mask: torch.Tensor | None, queries: int) -> torch.Tensor | None:
    """Make the mask of bidirectional attention that the model would make, but without reading its values.

    transformers reads whether a mask hides anything, and so waits for the GPU. Models with windows make their own masks.

    Args:
        model: a model of any architecture.
        mask: (reviews, tokens) 1 where there is no padding, or None.
        queries: number of tokens that attend to these.

    Returns:
        (reviews, 1, queries, tokens), or the mask as given.
    """
    model = getattr(model, "module", model)  # unwraps a model that several processes train
    if mask is None or model.config.model_type not in PLAIN or not fused(model):
        return mask
    return mask.bool()[:, None, None].expand(-1, -1, queries, -1)
