"""Entries of a task vector by the rank of their magnitudes, without sorting all of them."""

import torch


def between(delta: torch.Tensor, first: int, last: int) -> torch.Tensor | None:
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
