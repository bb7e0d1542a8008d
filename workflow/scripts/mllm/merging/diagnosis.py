"""How far the members of a task's merges are from each other, told by their weights alone.

A task vector is a member minus its base (Ilharco et al. 2023, arXiv 2212.04089). All that is told of task vectors
follows from sums over their entries: one pass over the tensors gives every layer and the whole model.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from mllm.core.files import read_json
from mllm.core.messages import progress
from mllm.merging.compatibility import open_alike
from mllm.merging.depth import Depth
from mllm.models.task_folders import heads_of

WHOLE = "all"
DENSITIES = (0.2, 1.0)  # what TIES keeps of a task vector in its paper (section 4: the top 20 %), and all of it
COLUMNS = {
    "task": "task whose experts are compared; several, with commas, of whose experts all but the heads is",
    "layer": "all: the whole model; a layer (transformer.h.3); for tensors of no layer, their module (transformer.wte)",
    "measure": "one of MEASURES",
    "density": "fraction of each tensor's entries that is kept before signs are compared; 1: all; else empty",
    "first": "member; of kept_by, the number of members; empty where the value concerns all members",
    "second": "other member; empty where the value concerns one or all",
    "value": "empty where it is not defined",
}
"""Column of members.csv -> what it holds."""
MEASURES = {
    "norm": "L2 norm of the first member's task vector",
    "relative_norm": "the same, divided by the norm of the base's weights; not defined where those are all 0",
    "cosine": "cosine of the angle between two members' task vectors; not defined where one of them is 0",
    "sign_conflict": "of the entries that two members or more keep, the share on which signs differ; not defined without any",
    "kept_by": "share of all entries that exactly so many members keep; what is missing to 1, no member keeps",
}
"""Measure -> what it is, in the order of the file. Entries of 0, which have no sign, are never kept."""
CHUNK = 2**18  # entries of each task vector that are in double precision at a time

Row = tuple[str, float | None, str | None, str | None, float | None]


@dataclass(frozen=True)
class Sums:
    """What is summed over the entries of some tensors; the sums of two parts add up to those of both."""

    base: float
    """Square of the base's L2 norm."""
    products: np.ndarray
    """Inner products of the task vectors, (members, members)."""
    kept: np.ndarray
    """Entries that 0, 1, … all members keep, (densities, members + 1)."""
    conflicts: np.ndarray
    """Entries on which two members that keep them differ in sign, (densities,)."""

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def sums(base: torch.Tensor, members: Iterable[torch.Tensor]) -> Sums:
    """Sum up one tensor of all members; differences are taken in float32, as merges take them, and summed in float64.

    Args:
        base: the tensor in the base, of any shape.
        members: the same one in each member; read one by one, so that only differences stay in memory.
    """
    start = base.float()
    deltas = [(member.float() - start).reshape(-1) for member in members]
    products, square = np.zeros((len(deltas), len(deltas))), 0.0
    for part, *others in zip(*(t.split(CHUNK) for t in (start.reshape(-1), *deltas)), strict=True):
        square += float(part.double().square().sum())
        block = torch.stack(others).double()
        products += (block @ block.T).numpy()
    kept, conflicts = zip(*(tally([kept_signs(d, density) for d in deltas]) for density in DENSITIES), strict=True)
    return Sums(square, products, np.stack(kept), np.array(conflicts))


def kept_signs(delta: torch.Tensor, density: float) -> torch.Tensor:
    """Signs of the largest entries of one tensor of a task vector, as many as mergekit's TIES keeps; 0 of all others.

    Of equal magnitudes at the border, the first are kept; mergekit leaves that to its sorting, which takes much longer.

    Args:
        delta: float32, of any shape, on the CPU.
        density: fraction of the entries to keep, above 0 and up to 1.

    Returns:
        int8, (entries,): -1, 0 or 1.
    """
    delta, number = delta.reshape(-1), delta.numel()
    signs, keep = delta.sign().to(torch.int8), max(1, int(density * number))
    if keep >= number:
        return signs
    size = delta.abs()
    ranked = size.numpy().copy()
    ranked.partition(number - keep)
    border = float(ranked[number - keep])
    signs.masked_fill_(size < border, 0)
    if border:
        last = (size == border).nonzero().reshape(-1)
        surplus = int((size >= border).sum()) - keep
        signs[last[len(last) - surplus :]] = 0
    return signs


def tally(members: list[torch.Tensor]) -> tuple[np.ndarray, int]:
    """Count by how many members an entry is kept, and on how many entries those that keep it disagree in sign.

    Such conflicts between trimmed task vectors are what TIES resolves (Yadav et al. 2023, arXiv 2306.01708, section 3).

    Args:
        members: each member's kept signs (-1, 0 or 1), of one shape.

    Returns:
        Number of entries that 0, 1, … all members keep, (members + 1,); number of entries in conflict.
    """
    kept, conflicts = np.zeros(len(members) + 1, dtype=np.int64), 0
    for parts in zip(*(m.reshape(-1).split(CHUNK) for m in members), strict=True):
        block = torch.stack(parts)
        number, total = block.abs().sum(dim=0, dtype=torch.int32), block.sum(dim=0, dtype=torch.int32)
        kept += torch.bincount(number, minlength=len(kept)).numpy()
        conflicts += int((total.abs() < number).sum())
    return kept, conflicts


def layer_of(name: str, depth: Depth) -> str:
    """The numbered layer that a tensor belongs to, else its module: ``transformer.h.3``, ``transformer.wte``, ``score``."""
    match = re.match(r"(.+?\.)(\d+)\.", name)
    if match and match[1] in depth.layers:
        return match[1] + match[2]
    return name.rpartition(".")[0] or name


def by_layer(folders: dict[str, Path], base: str, what: str = "members", heads: bool = True) -> dict[str, Sums]:
    """Sum up checkpoints, one tensor at a time.

    Args:
        folders: model folder of each member, in the order of the sums, and of their base.
        base: which of them the base is.
        what: name of the progress bar.
        heads: whether classification heads count; those of several tasks are not comparable.

    Returns:
        The whole model's sums as ``all``, then each layer's, ordered by name with numbers as numbers.

    Raises:
        Failure: a checkpoint is not whole, or cannot be merged with the base.
    """
    left_out = set() if heads else heads_of(folders[base])
    parents, names = open_alike(folders, folders[base], None if heads else lambda name: name not in left_out)
    start = parents.pop(base)
    depth = Depth(names, read_json(folders[base] / "config.json"))
    found: dict[str, Sums] = {}
    for name in progress(names, what):
        if all(weights.dtype(name).is_floating_point for weights in (start, *parents.values())):
            here = sums(start.read(name), (weights.read(name) for weights in parents.values()))
            for layer in (WHOLE, layer_of(name, depth)):
                found[layer] = found[layer] + here if layer in found else here
    order = {layer: re.sub(r"\d+", lambda digits: digits[0].zfill(9), layer) for layer in found}
    return {layer: found[layer] for layer in sorted(found, key=lambda layer: (layer != WHOLE, order[layer]))}


def rows(total: Sums, members: list[str]) -> Iterator[Row]:
    """The measures of some tensors, in the order of MEASURES; (measure, density, first, second, value)."""
    norms = np.sqrt(total.products.diagonal())
    for measure, unit in (("norm", 1.0), ("relative_norm", total.base**0.5)):
        for member, norm in zip(members, norms, strict=True):
            yield measure, None, member, None, _ratio(norm, unit)
    for (i, first), (j, second) in combinations(enumerate(members), 2):
        cosine = _ratio(total.products[i, j], norms[i] * norms[j])
        yield "cosine", None, first, second, None if cosine is None else min(1.0, max(-1.0, cosine))
    for density, kept, conflicts in zip(DENSITIES, total.kept, total.conflicts, strict=True):
        yield "sign_conflict", density, None, None, _ratio(conflicts, kept[2:].sum())
    for density, kept in zip(DENSITIES, total.kept, strict=True):
        for number in range(1, len(kept)):
            yield "kept_by", density, str(number), None, _ratio(kept[number], kept.sum())


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
