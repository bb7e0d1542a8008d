"""Merge by DARE as in its paper (Yu et al. 2024, arXiv 2311.03099): kept entries are divided by the density."""

from collections.abc import Mapping
from typing import Any

import torch

from mllm.merging.mergekit_private.methods import sparsify
from mllm.merging.task_vectors import TaskVectorMerge, spec_like


def dropped(delta: torch.Tensor, values: Mapping[str, Any]) -> torch.Tensor:
    """Keep each entry with probability ``density``, and divide it by that, as in the paper's DARE."""
    density = values["density"]
    kept = sparsify.bernoulli(delta, density, None)
    return kept / density if values["rescale"] and density < 1 else kept


METHOD = TaskVectorMerge(spec_like("dare_linear", "dare_linear_paper"), dropped, False)
