"""Class log-probabilities of reviews, by sequence classifiers."""

import contextlib
import functools
import resource
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from mllm.cli import log, progress

TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 65536}


def log_probabilities(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Score texts in batches of similar length.

    Returns:
        float32, (texts, classes): natural logarithms of the class probabilities, in the order of ``texts``.
    """
    device = _make_ready(model)
    encoded = _encoded(tokenizer, tuple(texts))
    result = np.empty((len(texts), model.config.num_labels), dtype=np.float32)
    batches = list(_batches([len(ids) for ids in encoded], TOKENS_PER_BATCH[device]))
    with torch.inference_mode():
        for batch in progress(batches, "predicting", unit="batch"):
            result[batch] = _scored(model, tokenizer, [encoded[i] for i in batch], device)
    return result


def flops_per_review(model: Any, tokenizer: Any, texts: list[str]) -> tuple[int, float]:
    """Count what a forward pass over one review takes, on the real model: no formula holds for all architectures.

    Matrix products count, those of attention too (whole, also where a causal mask hides half of them), and in mixtures
    of experts those of the experts that a token is sent to; additions, activations and normalisations do not.

    Args:
        model: a sequence classifier, on any device.
        tokenizer: its tokenizer.
        texts: reviews whose mean number of tokens (as they are read: cut where too long) the pass has; at least one.

    Returns:
        Floating-point operations, two for each multiplication and addition; mean number of tokens.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode  # takes triton along, which trainings have no use for

    device = _make_ready(model)
    encoded = _encoded(tokenizer, tuple(texts))
    mean = sum(map(len, encoded)) / len(encoded)
    length = max(1, round(mean))
    longer = min((ids for ids in encoded if len(ids) >= length), key=len)
    ids = [*longer[: length - 1], longer[-1]]  # T5 and BERT have a token of their own at the end
    review = torch.tensor([ids], device=device)
    # The counter passes over products that are fused: of experts, and of attention on CPUs.
    fused = model.get_experts_implementation()
    model.set_experts_implementation("eager")
    try:
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(input_ids=review, attention_mask=torch.ones_like(review))
    finally:
        model.set_experts_implementation(fused)
    return counter.get_total_flops(), mean


def _make_ready(model: Any) -> str:
    """Put a model where it computes best, for predictions alone; returns the device of its inputs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not hasattr(model, "hf_device_map"):  # its layers already stand where they belong
        model.to(device)
    model.eval()
    return device


@functools.lru_cache(maxsize=1)  # the reviews are tokenised once for predictions and their cost
def _encoded(tokenizer: Any, texts: tuple[str, ...]) -> list[list[int]]:
    # An empty review still needs one token to read the prediction from.
    encoded = tokenizer([t or " " for t in texts], truncation=True)["input_ids"]
    return [ids or [tokenizer.eos_token_id] for ids in encoded]


def _scored(model: Any, tokenizer: Any, batch: list[list[int]], device: str) -> np.ndarray:
    """Log-probabilities of one batch; of its halves, where the GPU's memory is too small for it."""
    try:
        padded = tokenizer.pad({"input_ids": batch}, return_tensors="pt").to(device)
        logits = model(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]).logits
        return np.asarray(logits.float().log_softmax(-1).cpu().numpy())
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    # Outside of the handler, which would keep the failed batch's memory alive.
    log.info("GPU memory is too small for %d reviews at once: halved", len(batch))
    if device == "cuda":
        torch.cuda.empty_cache()
    half = len(batch) // 2
    return np.concatenate([_scored(model, tokenizer, part, device) for part in (batch[:half], batch[half:])])


def _batches(lengths: list[int], budget: int) -> Iterator[list[int]]:
    """Indices of similar lengths, longest first (so that memory runs out at once or never)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while order:
        size = max(1, budget // lengths[order[0]])
        yield order[:size]
        order = order[size:]


@contextlib.contextmanager
def timed(cost: dict[str, Any], name: str) -> Iterator[None]:
    """Put the wall-clock seconds of a block into ``cost``."""
    begin = time.perf_counter()
    yield
    cost[name] = max(round(time.perf_counter() - begin, 6), 1e-6)


def peak_memory() -> dict[str, int]:
    """Largest memory so far, in bytes: of the process, and of the GPU where there is one."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"peak_memory_bytes": host, "peak_gpu_memory_bytes": device}


def device_name() -> str:
    """The GPU's name, or cpu."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
