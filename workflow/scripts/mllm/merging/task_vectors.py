"""Combine task vectors, in mergekit's order of operations: the common part of this project's methods of this kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mllm.merging.mergekit_private.methods import (
    GroupMergeMethod,
    MergeMethodSpec,
    ParameterSpec,
    RescaleNorm,
    TensorGroup,
    get_mask,
    registry,
)

Thin = Callable[[torch.Tensor, Mapping[str, Any]], torch.Tensor]


@dataclass(frozen=True)
class TaskVectorMerge(GroupMergeMethod):
    """Base + lambda x combination of thinned task vectors, in mergekit's order of operations."""

    spec: MergeMethodSpec
    thin: Thin
    """Thins a task vector by its member's parameters: entries that are left out become 0."""
    elect: bool
    """Whether only entries of the elected sign take part, as in TIES."""

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
    """Tell which entries have the sign of their sum over the members; sums of zero have the majority's sign."""
    if majority == 1.0:
        return get_mask(deltas, method="sum")
    sign = deltas.sum(dim=0).sign()
    return deltas.sign() == torch.where(sign == 0, majority, sign)


def spec_like(mergekits: str, name: str, *more: ParameterSpec) -> MergeMethodSpec:
    """Return the parameters and contract of one of mergekit's methods, with more parameters."""
    spec = registry.get(mergekits).spec
    return MergeMethodSpec(name, (*spec.parameters, *more), spec.contract, f"{spec.pretty_name} ({name})")


def norm(values: Mapping[str, Any]) -> RescaleNorm | None:
    """Return mergekit's rescaling of the kept entries to the L1 norm of all entries, or None without rescaling."""
    return RescaleNorm.l1 if values.get("rescale") else None
