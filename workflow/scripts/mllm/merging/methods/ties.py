"""Merge by TIES (Yadav et al. 2023, arXiv 2306.01708), trimmed tensor by tensor as in mergekit.

It is faster than mergekit: it selects entries instead of sorting them.
"""

from collections.abc import Mapping
from typing import Any

import torch

from mllm.merging.mergekit_private.methods import sparsify
from mllm.merging.ranks import between
from mllm.merging.task_vectors import TaskVectorMerge, norm, spec_like


def largest(delta: torch.Tensor, values: Mapping[str, Any]) -> torch.Tensor:
    """Keep the largest entries of the tensor, as in TIES."""
    density, number = values["density"], delta.numel()
    keep = max(1, int(density * number))
    if density < 1 and number:
        mask = between(delta, number - keep, number)
        if mask is not None:
            return sparsify.rescaled_masked_tensor(delta, mask, norm(values))
    return sparsify.magnitude(delta, density, norm(values))


METHOD = TaskVectorMerge(spec_like("ties", "ties"), largest, True)
