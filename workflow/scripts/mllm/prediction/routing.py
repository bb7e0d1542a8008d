"""Route each review to the expert that was trained on its slice, as anyone who knows the slice would."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mllm.core.arrays import Array
from mllm.data.labels import has_one_of


@dataclass(frozen=True)
class Routed:
    """The router's predictions and its cost."""

    logp: Array
    """(reviews, classes)"""
    share: Array
    """Share of the reviews that each member reads, (members,); the sum is above 1 where several read one review."""
    facts: dict[str, Any]
    """Number of reviews in each member's slice, and in no member's slice."""


def slices(rows: pl.DataFrame, where: dict[str, dict[str, list[Any]]]) -> Array:
    """Tell which members were trained on reviews like each one; booleans, (members, reviews).

    Args:
        rows: reviews with the columns that the experts' parts name.
        where: member -> column -> values. A review must have one of the values in every column.
    """
    found = []
    for parts in where.values():
        mask = pl.lit(True)
        for column, values in parts.items():
            mask &= has_one_of(rows[column], values)
        found.append(rows.select(mask.fill_null(False).alias("mine"))["mine"].to_numpy())
    return np.stack([np.broadcast_to(mine, rows.height) for mine in found])


def route(members: list[str], logp: Array, mine: Array) -> Routed:
    """Average the probabilities of the members whose slice holds a review, or of all members if none does.

    Args:
        members: names of the members.
        logp: (members, reviews, classes) natural log-probabilities.
        mine: (members, reviews) as from :func:`slices`.
    """
    asked = np.where(mine.any(0), mine, True)
    weights = asked / asked.sum(0)
    p = (weights[:, :, None] * np.exp(logp.astype(float))).sum(0)
    alone = {name: int(own.sum()) for name, own in zip(members, mine, strict=True)}
    share = asked.mean(1) if asked.size else np.zeros(len(members))
    return Routed(np.log(np.maximum(p, 1e-12)), share, {"reviews": alone, "of_none": int((~mine.any(0)).sum())})
