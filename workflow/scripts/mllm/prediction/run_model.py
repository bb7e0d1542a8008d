"""Class log-probabilities of reviews, by models of any family."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from mllm.core.messages import log, progress
from mllm.models.scorers import Scorer
from mllm.models.tokens import Tokens
from mllm.prediction.shards import Shards

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65536}  # on CPUs more fill the caches with intermediate values
PADDING = 1 / 16  # of a batch's tokens at most


def log_probabilities(scorer: Scorer, tokens: Tokens, shards: Shards | None = None) -> np.ndarray:
    """Score texts in batches of similar length.

    Args:
        scorer: a model with what its family does with a batch.
        tokens: of the reviews.
        shards: where finished batches are kept, and taken from where they are there already.

    Returns:
        float32, (texts, classes): natural logarithms of the class probabilities, in the order of the texts.
    """
    device = make_ready(scorer.model)
    result = np.empty((len(tokens), scorer.classes), dtype=np.float32)
    batches = list(_batches(tokens.lengths.tolist(), TOKENS_PER_BATCH[device]))
    done = shards.resume() if shards else []
    for batch, rows in zip(batches, done, strict=False):
        result[batch] = rows
    with torch.inference_mode():
        if batches:
            scorer.prepare(tokens)
        scored = _scored_in_turn(scorer, tokens, batches[len(done) :], device)
        for batch, rows in progress(scored, "predicting", len(batches) - len(done), unit="batch"):
            result[batch] = rows
            if shards:
                shards.keep(rows)
    return result


def _scored_in_turn(
    scorer: Scorer, tokens: Tokens, batches: list[list[int]], device: str
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Each batch with its log-probabilities; a GPU computes one while the last is fetched and the next made."""
    waiting: tuple[list[int], torch.Tensor] | None = None
    for batch in batches:
        launched = _scored(scorer, [tokens[i] for i in batch], device)
        if waiting:
            yield waiting[0], waiting[1].cpu().numpy()
        waiting = batch, launched
    if waiting:
        yield waiting[0], waiting[1].cpu().numpy()


def dtype_of(wanted: str) -> str:
    """The number format to predict in: bfloat16 on GPUs that have it, else float32, unless another is wanted."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def make_ready(model: Any) -> str:
    """Put a model where it computes best, for predictions alone; returns the device of its inputs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not hasattr(model, "hf_device_map"):  # its layers already stand where they belong
        model.to(device)
    model.eval()
    # The same function in one pass over memory instead of eight.
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, torch.nn.GELU(approximate="tanh"))
    return device


def _scored(scorer: Scorer, batch: list[list[int]], device: str) -> torch.Tensor:
    """Log-probabilities of one batch; of its halves, where the GPU's memory is too small for it."""
    try:
        return scorer.score(batch).log_softmax(-1)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    # Outside of the handler, which would keep the failed batch's memory alive.
    log.info("GPU memory is too small for %d reviews at once: halved", len(batch))
    if device == "cuda":
        torch.cuda.empty_cache()
    half = len(batch) // 2
    return torch.cat([_scored(scorer, part, device) for part in (batch[:half], batch[half:])])


def _batches(lengths: list[int], budget: int) -> Iterator[list[int]]:
    """Indices of similar lengths, longest first (so that memory runs out at once or never)."""
    batch: list[int] = []
    longest = read = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        whole = longest * (len(batch) + 1)
        if batch and (whole > budget or whole - read - lengths[i] > PADDING * whole):
            yield batch
            batch = []
        if not batch:
            longest, read = lengths[i], 0
        batch.append(i)
        read += lengths[i]
    if batch:
        yield batch
