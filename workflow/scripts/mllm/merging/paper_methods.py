"""Combinations of task vectors that mergekit's registry lacks, and a quicker way to the same bits where it sorts.

mergekit trims each tensor by sorting it; the threshold alone, by selection, keeps the same entries many times sooner.
The papers' conventions are registered in mergekit's own registry: ``ties_paper`` trims by one threshold over the whole
task vector (Yadav et al. 2023, arXiv 2306.01708), ``dare_…_paper`` rescale by the density (Yu et al. 2024, arXiv
2311.03099), ``model_stock_paper`` has no floor under the norms (Jang et al. 2024, arXiv 2403.19522).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from mergekit import sparsify
from mergekit.merge_methods import registry
from mergekit.merge_methods.base import (
    BasePolicy,
    GroupMergeMethod,
    InputContract,
    MergeMethod,
    MergeMethodSpec,
    ParameterScope,
    ParameterSpec,
    TensorGroup,
)  # fmt: skip
from mergekit.merge_methods.generalized_task_arithmetic import get_mask

Thin = Callable[[torch.Tensor, Mapping[str, Any]], torch.Tensor]
FLOOR = 1e-6  # under the product of two norms, in mergekit's model_stock


@dataclass(frozen=True)
class TaskVectorMerge(GroupMergeMethod):
    """Base + lambda x combination of thinned task vectors, in the order of operations of mergekit's own."""

    spec: MergeMethodSpec
    thin: Thin
    """From a task vector and its member's parameters to what is kept of it."""
    elect: bool
    """Only entries of the elected sign take part, as in TIES."""

    def merge_group(self, group: TensorGroup, /, **parameters: Any) -> torch.Tensor:
        assert group.base is not None
        base, entries = group.base.tensor, group.non_base
        own = [p.name for p in self.spec.input_parameters]
        weights = torch.tensor([parameters["weight"][e.id] for e in entries], dtype=base.dtype, device=base.device)
        weights = weights.view(-1, *[1] * base.dim())
        deltas = base.new_empty((len(entries), *base.shape))
        for i, entry in enumerate(entries):
            values = {name: parameters[name][entry.id] for name in own}
            deltas[i] = self.thin(entry.tensor - base, {**parameters, **values})
        deltas.mul_(weights)
        if self.elect:
            agree = elected(deltas, parameters.get("majority", 1.0))
            combined, total = (deltas * agree).sum(dim=0), (weights * agree).sum(dim=0)
            total[total == 0] = 1
        else:
            combined, total = deltas.sum(dim=0), weights.sum(dim=0)
            total[total.abs() < 1e-8] = 1
        if parameters["normalize"]:
            combined /= total
        if parameters["lambda"] != 1:
            combined *= parameters["lambda"]
        return base + combined


def elected(deltas: torch.Tensor, majority: float) -> torch.Tensor:
    """Which entries have the sign of their sum over the members; sums of zero have the majority's sign."""
    if majority == 1.0:
        return get_mask(deltas, method="sum")
    sign = deltas.sum(dim=0).sign()
    return deltas.sign() == torch.where(sign == 0, majority, sign)


# ── Ways to thin a task vector ──


def largest(delta: torch.Tensor, values: Mapping[str, Any]) -> torch.Tensor:
    """TIES: the largest entries of the tensor."""
    density, number = values["density"], delta.numel()
    keep = max(1, int(density * number))
    if density < 1 and number:
        mask = _between(delta, number - keep, number)
        if mask is not None:
            return sparsify.rescaled_masked_tensor(delta, mask, _norm(values))
    return sparsify.magnitude(delta, density, _norm(values))


def middling(delta: torch.Tensor, values: Mapping[str, Any]) -> torch.Tensor:
    """Breadcrumbs: neither the largest entries of the tensor nor the smallest."""
    density, gamma, number = values["density"], values["gamma"], delta.numel()
    keep, top = int(density * number), int(gamma * number)
    bottom = max(0, number - keep - top)
    if density < 1 and keep:
        mask = _between(delta, bottom, bottom + keep)
        if mask is not None:
            return sparsify.rescaled_masked_tensor(delta, mask, _norm(values))
    return sparsify.magnitude_outliers(delta, density, _norm(values), gamma)


def dropped(delta: torch.Tensor, values: Mapping[str, Any]) -> torch.Tensor:
    """DARE by the paper: each entry kept with a probability, and divided by it."""
    density = values["density"]
    kept = sparsify.bernoulli(delta, density, None)
    return kept / density if values["rescale"] and density < 1 else kept


def above(delta: torch.Tensor, values: Mapping[str, Any]) -> torch.Tensor:
    """TIES by the paper: what reaches the whole task vector's threshold."""
    mask = (delta.abs() >= values["threshold"]).to(delta.dtype)
    return sparsify.rescaled_masked_tensor(delta, mask, _norm(values))


def _between(delta: torch.Tensor, first: int, last: int) -> torch.Tensor | None:
    """A mask of the entries whose magnitudes have the ranks from first to before last, smallest first.

    None where equal magnitudes stand on both sides of a border: which of them mergekit's sorting takes is its own affair.
    """
    size = delta.abs().reshape(-1)
    if size.is_cuda:
        low, high = (float(size.kthvalue(rank + 1).values) for rank in (first, last - 1))
    else:
        ranked = size.numpy().copy()
        inside = [r for r in (first, last - 1) if 0 <= r < len(ranked)]
        ranked.partition(sorted(set(inside)))
        low, high = float(ranked[first]), float(ranked[last - 1])
    mask = (size >= low) & (size <= high)
    return mask.to(delta.dtype).view_as(delta) if int(mask.sum()) == last - first else None


def _norm(values: Mapping[str, Any]) -> sparsify.RescaleNorm | None:
    return sparsify.RescaleNorm.l1 if values.get("rescale") else None


# ── TIES by the paper: what must be known of the whole task vectors ──


def thresholds(
    deltas: Callable[[str], Iterator[np.ndarray]], members: list[str], density: dict[str, float]
) -> dict[str, float]:
    """The magnitude that the kept entries of each member's whole task vector reach at least.

    Args:
        deltas: the tensors of a member's task vector, one after the other.
        members: their names.
        density: fraction of each one's entries to keep.
    """
    found = {}
    for member in members:
        size = np.abs(np.concatenate([d.ravel() for d in deltas(member)]))
        rank = len(size) - max(1, int(density[member] * len(size)))
        size.partition(rank)
        found[member] = float(size[rank])
    return found


# ── Model stock ──


def model_stock_paper(group: TensorGroup, filter_wise: bool = False) -> torch.Tensor:
    """Model stock with the cosine of the angle as it is, however short the task vectors."""
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


def below_floor(group: TensorGroup, filter_wise: bool) -> bool:
    """Whether mergekit's model_stock would take two short task vectors for more different than they are."""
    assert group.base is not None
    base = group.base.tensor
    rows = (-1, base.shape[-1]) if filter_wise and base.dim() > 1 else (1, -1)
    norms = [torch.linalg.vector_norm((e.tensor - base).reshape(rows), dim=-1) for e in group.non_base]
    return any(bool(((a * b > 0) & (a * b < FLOOR)).any()) for a, b in combinations(norms, 2))


# ── The table ──


def _spec(like: str, name: str, *more: ParameterSpec) -> MergeMethodSpec:
    spec = registry.get(like).spec
    return MergeMethodSpec(name, (*spec.parameters, *more), spec.contract, f"{spec.pretty_name} ({name})")


class _ModelStockPaper(GroupMergeMethod):
    spec = MergeMethodSpec(
        "model_stock_paper",
        (ParameterSpec("filter_wise", bool, ParameterScope.SHARED, default=False),),
        InputContract(base=BasePolicy.REQUIRED, min_inputs=3),
    )

    def merge_group(self, group: TensorGroup, /, **parameters: Any) -> torch.Tensor:
        return model_stock_paper(group, parameters["filter_wise"])


_METHODS: tuple[MergeMethod, ...] = (
    TaskVectorMerge(
        _spec(
            "ties",
            "ties_paper",
            ParameterSpec("threshold", float, ParameterScope.NON_BASE),
            ParameterSpec("majority", float, ParameterScope.SHARED, default=1.0),
        ),
        above,
        True,
    ),
    TaskVectorMerge(_spec("dare_linear", "dare_linear_paper"), dropped, False),
    TaskVectorMerge(_spec("dare_ties", "dare_ties_paper"), dropped, True),
    _ModelStockPaper(),
)
for _method in _METHODS:
    registry.register(_method)
OURS = frozenset(m.spec.name for m in _METHODS)
"""Names that mergekit-yaml does not know. The entries in methods.py say so too; asked there, a new entry would run all merges again."""

QUICKER: dict[str, MergeMethod] = {
    "ties": TaskVectorMerge(_spec("ties", "ties"), largest, True),
    "breadcrumbs": TaskVectorMerge(_spec("breadcrumbs", "breadcrumbs"), middling, False),
    "breadcrumbs_ties": TaskVectorMerge(_spec("breadcrumbs_ties", "breadcrumbs_ties"), middling, True),
}


def method(name: str) -> MergeMethod:
    """The method of a recipe: mergekit's, ours, or ours that gives mergekit's bits sooner."""
    return QUICKER.get(name) or registry.get(name)
