"""What a prediction takes of a model and of a device: operations, and how many of them the device can do."""

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
    """Operations of one review, or none where the counter fails on an architecture: a cost never fails a prediction."""
    try:
        return flops_per_review(scorer, tokens)
    except Exception as error:  # of torch's counter, on whatever a model does
        log.warning("operations could not be counted, and stay empty: %s: %s", type(error).__name__,
                    (str(error).splitlines() or [""])[0])  # fmt: skip
        return None


def flops_per_review(scorer: Scorer, tokens: Tokens) -> int:
    """Count what a forward pass over one review takes, on the real model: no formula holds for all architectures.

    Matrix products count, those of attention too (whole, also where a causal mask hides half of them), and in mixtures
    of experts those of the experts that a token is sent to; additions, activations and normalisations do not.

    Args:
        scorer: a model on any device, with what its family does with a batch.
        tokens: of reviews, at least one, whose mean number the pass has.

    Returns:
        Floating-point operations, two for each multiplication and addition.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode  # takes triton along, which trainings have no use for

    model = scorer.model
    make_ready(model)
    model.requires_grad_(False)  # the counter's hooks fail where a module is given a Parameter, as in DeBERTa
    ids = mean_review(tokens)
    # The counter passes over products that are fused: of experts, and of attention on CPUs.
    fused = model.get_experts_implementation()
    model.set_experts_implementation("eager")
    try:
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            scorer.score(Batch.of([ids]))
    finally:
        model.set_experts_implementation(fused)
    return counter.get_total_flops()


def mean_review(tokens: Tokens) -> list[int]:
    """Tokens of a review, cut to the mean number; T5 and BERT have a token of their own at the end."""
    length = max(1, round(float(tokens.lengths.mean())))
    longer = tokens[int(np.where(tokens.lengths >= length, tokens.lengths, np.inf).argmin())]
    return [*longer[: length - 1], longer[-1]]


def peak_flops(dtype: str, seconds: float = 0.3) -> float:
    """Operations per second of a large square matrix product, measured: the best of as many as fit into ``seconds``.

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
