"""Select entries of a task vector by the rank of their magnitudes, without sorting all of them."""

import torch


def between(delta: torch.Tensor, first: int, last: int) -> torch.Tensor | None:
    """Return a mask of the entries whose magnitudes have ranks first to last - 1, counted from the smallest.

    It is None where equal magnitudes lie on both sides of a border: mergekit's sorting decides which of them it keeps.
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
