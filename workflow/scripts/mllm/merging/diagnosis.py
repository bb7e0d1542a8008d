"""Measure from weights alone how much the members of a task's merges differ.

A task vector is a member minus its base (Ilharco et al. 2023, arXiv 2212.04089). All measures of task vectors follow
from sums over their entries: one pass over the tensors gives every layer and the complete model.
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
DENSITIES = (0.2, 1.0)  # the share that TIES keeps of a task vector in its paper (section 4: the top 20 %); all entries
COLUMNS = {
    "task": "task whose experts are compared; several tasks, with commas: their experts are compared without heads",
    "layer": "all: the full model; a layer (transformer.h.3); for tensors of no layer, their module (transformer.wte)",
    "measure": "one of MEASURES",
    "density": "fraction of each tensor's entries kept before signs are compared; 1: all; empty for other measures",
    "first": "member; for kept_by, the number of members; empty where the value concerns all members",
    "second": "other member; empty where the value concerns one or all",
    "value": "empty where it is undefined",
}
"""Column of members.csv -> what it holds."""
MEASURES = {
    "norm": "L2 norm of the first member's task vector",
    "relative_norm": "the same, divided by the norm of the base's weights; undefined where those are all 0",
    "cosine": "cosine of the angle between two members' task vectors; undefined where one of them is 0",
    "sign_conflict": "of the entries that two members or more keep, the share with different signs; undefined for none",
    "kept_by": "share of all entries that exactly this number of members keeps; no member keeps the remaining share",
}
"""Measure -> what it is, in the order of the file. Entries of 0, which have no sign, are never kept."""
CHUNK = 2**18  # entries of each task vector that are converted to double precision at a time

Row = tuple[str, float | None, str | None, str | None, float | None]


@dataclass(frozen=True)
class Sums:
    """Sums over the entries of some tensors; the sums of two parts add up to those of both."""

    base: float
    """Square of the base's L2 norm."""
    products: np.ndarray
    """Inner products of the task vectors, (members, members)."""
    kept: np.ndarray
    """Numbers of entries that 0, 1, … all members keep, (densities, members + 1)."""
    conflicts: np.ndarray
    """Numbers of entries on which two members that keep them differ in sign, (densities,)."""

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def sums(base: torch.Tensor, members: Iterable[torch.Tensor]) -> Sums:
    """Sum over one tensor of all members. Differences are in float32, as in merges; sums are in float64.

    Args:
        base: the tensor in the base, of any shape.
        members: the same tensor in each member; read one by one, so that only differences stay in memory.
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
    """Return the signs of a tensor's largest entries, as many as mergekit's TIES keeps, and 0 for all others.

    Among equal magnitudes at the border, the first are kept; mergekit leaves that to its sorting, which takes much
    longer.

    Args:
        delta: tensor of a task vector, float32, of any shape, on the CPU.
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
    """Count the entries by the number of members that keep them, and the entries whose kept signs disagree.

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
    """Return the numbered layer of a tensor, else its module: ``transformer.h.3``, ``transformer.wte``, ``score``."""
    match = re.match(r"(.+?\.)(\d+)\.", name)
    if match and match[1] in depth.layers:
        return match[1] + match[2]
    return name.rpartition(".")[0] or name


def by_layer(folders: dict[str, Path], base: str, what: str = "members", heads: bool = True) -> dict[str, Sums]:
    """Sum over checkpoints, one tensor at a time.

    Args:
        folders: model folder of each member, in the order of the sums, and of their base.
        base: name of the base among them.
        what: name of the progress bar.
        heads: whether classification heads count; heads of different tasks are not comparable.

    Returns:
        The complete model's sums as ``all``, then each layer's, ordered by name with numbers as numbers.

    Raises:
        Failure: a checkpoint is incomplete, or cannot be merged with the base.
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
    """Yield the measures of some tensors in the order of MEASURES, as (measure, density, first, second, value)."""
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
