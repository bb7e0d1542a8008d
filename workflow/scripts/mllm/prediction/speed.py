"""Count the operations of a prediction, and measure how many the device can do."""

import math
import time

import numpy as np
import torch

from mllm.core import gpu
from mllm.core.messages import log
from mllm.models.scorers import Scorer
from mllm.models.tokens import Batch, Tokens
from mllm.prediction.run_model import make_ready


def counted_flops(scorer: Scorer, tokens: Tokens) -> int | None:
    """Count the operations of one review; None if the counter fails, since no cost may stop a prediction."""
    try:
        return flops_per_review(scorer, tokens)
    except Exception as error:  # torch's counter can fail in many ways
        log.warning("operations cannot be counted, and are left empty: %s: %s", type(error).__name__,
                    (str(error).splitlines() or [""])[0])  # fmt: skip
        return None


def flops_per_review(scorer: Scorer, tokens: Tokens) -> int:
    """Count the operations of a forward pass over one review, on the real model: no formula fits all architectures.

    Matrix products count, also those of attention, which count in full even if a causal mask hides half of them. In
    mixtures of experts, the products of the experts that a token is sent to count. Additions, activations and
    normalisations do not count.

    Args:
        scorer: a model on any device, with its family's way to score a batch.
        tokens: of at least one review; the pass has their mean number.

    Returns:
        Floating-point operations, two for each multiplication and addition.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, which trainings do not need

    model = scorer.model
    make_ready(model)
    model.requires_grad_(False)  # the counter's hooks fail where a module is given a Parameter, as in DeBERTa
    ids = mean_review(tokens)
    # The counter misses fused products: those of experts, and of attention on CPUs.
    fused = model.get_experts_implementation()
    model.set_experts_implementation("eager")
    try:
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            scorer.score(Batch.of([ids]))
    finally:
        model.set_experts_implementation(fused)
    return counter.get_total_flops()


def mean_review(tokens: Tokens) -> list[int]:
    """Return the tokens of a review, cut to the mean number; keep the last one, which T5 and BERT add."""
    length = max(1, round(float(tokens.lengths.mean())))
    longer = tokens[int(np.where(tokens.lengths >= length, tokens.lengths, np.inf).argmin())]
    return [*longer[: length - 1], longer[-1]]


def peak_flops(dtype: str, seconds: float = 0.3) -> float:
    """Measure the operations per second of a large square matrix product: the best of all that fit into ``seconds``.

    Its values are random: GPUs multiply constants faster, since fewer bits change.
    """
    where = gpu.device()
    size = 8192 if where == "cuda" else 1024
    random = torch.Generator(where).manual_seed(0)
    matrix = torch.randn(size, size, generator=random, device=where).to(getattr(torch, dtype))
    best, end = math.inf, time.perf_counter() + seconds
    while best == math.inf or time.perf_counter() < end:
        begin = time.perf_counter()
        product = matrix @ matrix
        if where == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    del product
    return 2 * size**3 / best
