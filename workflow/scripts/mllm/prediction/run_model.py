"""Predict class log-probabilities of reviews with models of any family."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mllm.core import gpu
from mllm.core.errors import Failure
from mllm.core.messages import log, progress
from mllm.models.scorers import Scorer
from mllm.models.tokens import Batch, Tokens
from mllm.models.transformers_private.activations import fuse_gelu
from mllm.models.transformers_private.attention import fuse_t5_attention
from mllm.models.transformers_private.devices import hooked
from mllm.models.transformers_private.waiting import wait_for_nothing
from mllm.prediction.shards import Shards

if TYPE_CHECKING:
    from mllm.prediction.first_layers import FirstLayers

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65536}  # on CPUs, intermediate values of larger batches exceed the caches
OUTPUTS_PER_BATCH = 2**29  # 2 GiB of float32, and the same again while they become probabilities
RMS_NORMS = ("T5LayerNorm", "LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
PADDING = 1 / 16  # of a batch's tokens at most


def log_probabilities(
    scorer: Scorer, tokens: Tokens, shards: Shards | None = None, first: "FirstLayers | None" = None
) -> np.ndarray:
    """Score texts in batches of similar length.

    Args:
        scorer: a model with its family's way to score a batch.
        tokens: of the reviews.
        shards: keeps finished batches, and returns those of an interrupted run.
        first: the states of the model's first layers, which other candidates share.

    Returns:
        float32, (texts, classes): natural logarithms of the class probabilities, in the order of the texts.
    """
    make_ready(scorer.model)
    result = np.empty((len(tokens), scorer.classes), dtype=np.float32)
    planned = batches(scorer, tokens)
    done = shards.resume() if shards else []
    for batch, rows in zip(planned, done, strict=False):
        result[batch] = rows
    with torch.inference_mode():
        if planned:
            scorer.prepare(tokens)
        scored = _scored_in_turn(scorer, tokens, planned[len(done) :], first)
        for batch, rows in progress(scored, "predicting", len(planned) - len(done), unit="batch"):
            result[batch] = rows
            if shards:
                shards.keep(rows)
    return result


def batches(scorer: Scorer, tokens: Tokens) -> list[list[int]]:
    """Return the indices of each batch's texts."""
    most = max(1, OUTPUTS_PER_BATCH // scorer.outputs)
    return list(_batches(tokens.lengths.tolist(), TOKENS_PER_BATCH[gpu.device()], most))


def _scored_in_turn(
    scorer: Scorer, tokens: Tokens, planned: list[list[int]], first: "FirstLayers | None"
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield each batch with its log-probabilities; a GPU computes one while the last is fetched and the next made."""
    room, waiting = _Room(), None
    for batch in planned:
        with first.around(batch) if first else nullcontext():
            launched = batch, _Fetched(_scored(scorer, tokens.batch(batch), room))
        if waiting:
            yield waiting[0], waiting[1].rows()
        waiting = launched
    if waiting:
        yield waiting[0], waiting[1].rows()


class _Fetched:
    """A batch's results, copied from the GPU at once: a later copy would also wait for the next batch's kernels."""

    def __init__(self, found: torch.Tensor) -> None:
        self._there: torch.cuda.Event | None = None
        self._host = found
        if found.is_cuda:
            self._host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
            with torch.cuda.device(found.device):
                self._host.copy_(found, non_blocking=True)
                self._there = torch.cuda.Event()
                self._there.record()

    def rows(self) -> np.ndarray:
        if self._there:
            self._there.synchronize()
        return self._host.numpy()


def dtype_of(wanted: str) -> str:
    """Choose the number format of predictions: as wanted; ``auto`` is bfloat16 on GPUs that have it, else float32.

    Raises:
        Failure: bfloat16 is wanted on a GPU that only emulates it.
    """
    if wanted == "bfloat16" and torch.cuda.is_available() and not gpu.has_bfloat16():
        found = "sm_{}{}".format(*torch.cuda.get_device_capability())
        raise Failure(
            f"{torch.cuda.get_device_name()}: cannot compute in bfloat16 (found {found}, expected sm_80 or later)."
            " Fix: set dtype: float32 for the model, or newer GPU types in the profile."
        )
    if wanted != "auto":
        return wanted
    return "bfloat16" if gpu.has_bfloat16() else "float32"


def warm_up(scorer: Scorer, tokens: Tokens) -> None:
    """Move the model to its device; on a GPU, score one review, which loads libraries before any time is measured."""
    if make_ready(scorer.model) == "cuda" and len(tokens):
        with torch.inference_mode():
            scorer.score(tokens.batch([int(tokens.lengths.argmin())])).cpu()


def make_ready(model: Any) -> str:
    """Move a model to the fastest device and speed it up for predictions only; return the device of its inputs."""
    device = gpu.device()
    gpu.settle_attention()
    if not hasattr(model, "hf_device_map"):  # else its layers are on their devices already
        model.to(device)
    model.eval()
    fuse_gelu(model)
    if device == "cuda":
        wait_for_nothing(model)
        fuse_t5_attention(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if device == "cuda" and type(child).__name__ in RMS_NORMS and not hooked(child):
                setattr(module, name, fused_norm(child))
    return device


def fused_norm(norm: Any) -> torch.nn.RMSNorm:
    """Return T5's or LLaMA's norm as one kernel instead of six; in float32 it differs by rounding only."""
    fused = torch.nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon, device="meta")
    fused.weight = norm.weight
    return fused


@dataclass
class _Room:
    """The number of tokens that fit into GPU memory at once, as far as known: a size that failed is not tried again."""

    tokens: float = float("inf")


def _scored(scorer: Scorer, batch: Batch, room: _Room) -> torch.Tensor:
    """Return one batch's log-probabilities; score its halves if GPU memory is too small for it."""
    size, half = len(batch) * int(batch.lengths.max()), len(batch) // 2
    if size <= room.tokens or not half:
        try:
            scores = scorer.score(batch).split(getattr(scorer, "sizes", scorer.classes), dim=-1)
            return torch.cat([of_a_task.log_softmax(-1) for of_a_task in scores], dim=-1)
        except torch.OutOfMemoryError:
            if not half:
                raise
        # Outside of the handler, which would keep the failed batch's memory alive.
        room.tokens = size // 2
        log.info("GPU memory is too small for %d reviews at once: halved from now on", len(batch))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return torch.cat([_scored(scorer, part, room) for part in (batch.part(0, half), batch.part(half, len(batch)))])


def _batches(lengths: list[int], budget: int, most: int | None = None) -> Iterator[list[int]]:
    """Yield batches of indices of similar lengths, at most ``most`` each, with ``budget`` tokens at most.

    The longest come first, so that memory runs out at once or never.
    """
    batch: list[int] = []
    longest = read = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        whole = longest * (len(batch) + 1)
        if batch and (len(batch) == most or whole > budget or whole - read - lengths[i] > PADDING * whole):
            yield batch
            batch = []
        if not batch:
            longest, read = lengths[i], 0
        batch.append(i)
        read += lengths[i]
    if batch:
        yield batch
