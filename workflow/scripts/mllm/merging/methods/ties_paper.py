"""Merge by TIES as in its paper (Yadav et al. 2023, arXiv 2306.01708): one threshold over the full task vector."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from mllm.merging.mergekit_private.methods import ParameterScope, ParameterSpec, sparsify
from mllm.merging.task_vectors import TaskVectorMerge, norm, spec_like


def above(delta: torch.Tensor, values: Mapping[str, Any]) -> torch.Tensor:
    """Keep the entries that reach the full task vector's threshold, as in the paper's TIES."""
    mask = (delta.abs() >= values["threshold"]).to(delta.dtype)
    return sparsify.rescaled_masked_tensor(delta, mask, norm(values))


def thresholds(
    deltas: Callable[[str], Iterator[np.ndarray]], members: list[str], density: dict[str, float]
) -> dict[str, float]:
    """Return, for each member, the smallest magnitude among the kept entries of its full task vector.

    Args:
        deltas: yields the tensors of a member's task vector, one after the other.
        members: names of the members.
        density: member -> fraction of its entries to keep.
    """
    found = {}
    for member in members:
        size = np.abs(np.concatenate([d.ravel() for d in deltas(member)]))
        rank = len(size) - max(1, int(density[member] * len(size)))
        size.partition(rank)
        found[member] = float(size[rank])
    return found


METHOD = TaskVectorMerge(
    spec_like(
        "ties",
        "ties_paper",
        ParameterSpec("threshold", float, ParameterScope.NON_BASE),
        ParameterSpec("majority", float, ParameterScope.SHARED, default=1.0),
    ),
    above,
    True,
)
