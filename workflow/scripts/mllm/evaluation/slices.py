"""Cut reviews into slices that are scored separately: by text statistics, condition, drug, year and the user's own columns."""

import itertools

import numpy as np
import polars as pl

from mllm.experiment.review_columns import SLICEABLE, STATISTICS, TAKEN_PREFIXES

FEWEST = 50  # texts of a slice; scores of fewer say little
MOST = 20  # values of one column, the most frequent ones
NO_SLICES = ("review_id", "file", "line", "review", "date", "group", "split", "label", "truth")


def slices(rows: pl.DataFrame, label: str) -> dict[tuple[str, str], pl.Series]:
    """Return (column, slice) -> a mask of its rows.

    Numeric columns with many different values are cut at their quartiles in ``rows``; each value of other columns is a slice.
    Slices of fewer than FEWEST texts are left out, and so is the column that holds the label.

    Args:
        rows: scored reviews with ``group`` and the columns of data/test.parquet.
        label: the source of the task's label: rating, sentiment, condition or a column.
    """
    answer = "rating" if label == "sentiment" else label
    columns = [c for c in rows.columns if c not in (*NO_SLICES, answer) and not c.startswith(TAKEN_PREFIXES)]
    columns = [c for c in columns if not rows[c].dtype.is_nested()]
    order = {name: i for i, name in enumerate((*SLICEABLE, *STATISTICS))}
    found = {}
    for column in sorted(columns, key=lambda c: (order.get(c, len(order)), c)):
        values = rows[column]
        many = values.dtype.is_numeric() and values.n_unique() > MOST
        for name, mask in _quarters(values) if many else _values(values):
            if rows["group"].filter(mask).n_unique() >= FEWEST:
                found[column, name] = mask
    return found


def _quarters(values: pl.Series) -> list[tuple[str, pl.Series]]:
    edges = [float(values.quantile(q, "linear") or 0) for q in (0.25, 0.5, 0.75)]
    parts = [(f"≤ {edges[0]:g}", values <= edges[0])]
    parts += [(f"> {a:g} and ≤ {b:g}", (values > a) & (values <= b)) for a, b in itertools.pairwise(edges) if b > a]
    parts.append((f"> {edges[2]:g}", values > edges[2]))
    return [(name, mask.fill_null(False)) for name, mask in parts]


def _values(values: pl.Series) -> list[tuple[str, pl.Series]]:
    plain = values.drop_nulls().rename("value")
    counted = plain.value_counts(name="count").sort(["count", "value"], descending=[True, False]).head(MOST)
    return [(str(v), (values == v).fill_null(False)) for v in sorted(counted["value"].to_list())]


def masks(found: dict[tuple[str, str], pl.Series]) -> list[np.ndarray]:
    """Return the slices' masks as arrays, in order."""
    return [mask.to_numpy() for mask in found.values()]
