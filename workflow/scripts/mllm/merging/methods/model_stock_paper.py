"""Merge by model stock as in its paper (Jang et al. 2024, arXiv 2403.19522): without a floor under the norms."""

from itertools import combinations
from typing import Any

import torch

from mllm.merging.mergekit_private.methods import (
    BasePolicy,
    GroupMergeMethod,
    InputContract,
    MergeMethodSpec,
    ParameterScope,
    ParameterSpec,
    TensorGroup,
)


def model_stock_paper(group: TensorGroup, filter_wise: bool = False) -> torch.Tensor:
    """Merge one tensor by model stock, with the exact cosine of the angle, however short the task vectors are."""
    assert group.base is not None
    base = group.base.tensor
    rows = (-1, base.shape[-1]) if filter_wise and base.dim() > 1 else (1, -1)
    deltas = [(e.tensor - base).reshape(rows).double() for e in group.non_base]
    cosines = [torch.nn.functional.cosine_similarity(a, b, dim=-1, eps=0) for a, b in combinations(deltas, 2)]
    cosine = torch.stack([c.nan_to_num(0.0).clamp(-1, 1) for c in cosines]).mean(dim=0).unsqueeze(-1)
    number = len(deltas)
    total = 1 + (number - 1) * cosine
    ratio = torch.where(total.abs() < 1e-6, 0.0, number * cosine / total)
    return base + (ratio * sum(deltas) / number).reshape(base.shape).to(base.dtype)


class _ModelStockPaper(GroupMergeMethod):
    spec = MergeMethodSpec(
        "model_stock_paper",
        (ParameterSpec("filter_wise", bool, ParameterScope.SHARED, default=False),),
        InputContract(base=BasePolicy.REQUIRED, min_inputs=3),
    )

    def merge_group(self, group: TensorGroup, /, **parameters: Any) -> torch.Tensor:
        return model_stock_paper(group, parameters["filter_wise"])


METHOD = _ModelStockPaper()
