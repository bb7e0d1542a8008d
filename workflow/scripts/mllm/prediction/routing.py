"""The router: each review goes to the expert that was trained on its slice, as nobody would forgo who knows the slice."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mllm.core.arrays import Array
from mllm.data.labels import has_one_of


@dataclass(frozen=True)
class Routed:
    """What the router says, and what it takes."""

    logp: Array
    """(reviews, classes)"""
    share: Array
    """(members,) of the reviews that each member reads; they sum to more than 1 where several read one."""
    facts: dict[str, Any]
    """Reviews of each member alone, and of none."""


def slices(rows: pl.DataFrame, where: dict[str, dict[str, list[Any]]]) -> Array:
    """(members, reviews): which member was trained on reviews like this one.

    Args:
        rows: reviews with the columns that the experts' parts name.
        where: member -> column -> values, all of which must hold.
    """
    found = []
    for parts in where.values():
        mask = pl.lit(True)
        for column, values in parts.items():
            mask &= has_one_of(rows[column], values)
        found.append(rows.select(mask.fill_null(False).alias("mine"))["mine"].to_numpy())
    return np.stack([np.broadcast_to(mine, rows.height) for mine in found])


def route(members: list[str], logp: Array, mine: Array) -> Routed:
    """Mean probability of the members whose slice a review is of; of all members where it is of none.

    Args:
        members: names.
        logp: (members, reviews, classes) natural log-probabilities.
        mine: (members, reviews) as from :func:`slices`.
    """
    asked = np.where(mine.any(0), mine, True)
    weights = asked / asked.sum(0)
    p = (weights[:, :, None] * np.exp(logp.astype(float))).sum(0)
    alone = {name: int(own.sum()) for name, own in zip(members, mine, strict=True)}
    share = asked.mean(1) if asked.size else np.zeros(len(members))
    return Routed(np.log(np.maximum(p, 1e-12)), share, {"reviews": alone, "of_none": int((~mine.any(0)).sum())})
