"""Merge by Breadcrumbs (Davari and Belilovsky 2023, arXiv 2312.06795), trimmed as in mergekit.

It is faster than mergekit: it selects entries instead of sorting them.
"""

from collections.abc import Mapping
from typing import Any

import torch

from mllm.merging.mergekit_private.methods import sparsify
from mllm.merging.ranks import between
from mllm.merging.task_vectors import TaskVectorMerge, norm, spec_like


def middling(delta: torch.Tensor, values: Mapping[str, Any]) -> torch.Tensor:
    """Leave out the largest and the smallest entries of the tensor, as in Breadcrumbs."""
    density, gamma, number = values["density"], values["gamma"], delta.numel()
    keep, top = int(density * number), int(gamma * number)
    bottom = max(0, number - keep - top)
    if density < 1 and keep:
        mask = between(delta, bottom, bottom + keep)
        if mask is not None:
            return sparsify.rescaled_masked_tensor(delta, mask, norm(values))
    return sparsify.magnitude_outliers(delta, density, norm(values), gamma)


METHOD = TaskVectorMerge(spec_like("breadcrumbs", "breadcrumbs"), middling, False)
