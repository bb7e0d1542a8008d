"""Find tensors below the floor of mergekit's model_stock: a minimum for the product of two task vectors' norms."""

from itertools import combinations

import torch

from mllm.merging.mergekit_private.methods import TensorGroup

FLOOR = 1e-6


def below_floor(group: TensorGroup, filter_wise: bool) -> bool:
    """Tell whether mergekit's model_stock would overestimate the angle between two short task vectors."""
    assert group.base is not None
    base = group.base.tensor
    rows = (-1, base.shape[-1]) if filter_wise and base.dim() > 1 else (1, -1)
    norms = [torch.linalg.vector_norm((e.tensor - base).reshape(rows), dim=-1) for e in group.non_base]
    return any(bool(((a * b > 0) & (a * b < FLOOR)).any()) for a, b in combinations(norms, 2))
