"""Compare methods over several data sets or tasks, by one score of each on each."""

import polars as pl

from mllm.evaluation import across, metrics

UNITS = {
    "first": (pl.String, "a merge method, by its winner on validation"),
    "second": (pl.String, "another method, the best expert, the best blend, or a reference"),
    "metric": (pl.String, "what is compared"),
    "units": (pl.Int64, "data sets and tasks that have both"),
    "mean_difference": (pl.Float64, "over these, positive where the first is better"),
    "better": (pl.Float64, "probability that on the next one the first is better by more than the margin"),
    "equivalent": (pl.Float64, "that both are within the margin"),
    "worse": (pl.Float64, "that the second is better by more than the margin"),
}


def scores(board: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Return one row per unit and one column per entry: the test score of the candidate that validation chose.

    Args:
        board: rows of one or several leaderboards with a column ``unit``, each unit's best validation score first.
        metric: which.

    Returns:
        unit, then merge methods, ``best expert``, ``best blend``, references by name, where some unit has them; null elsewhere.
    """
    merge, reference = pl.col("kind") == "merge", pl.col("kind") == "reference"
    entry = (
        pl.when(merge).then(pl.col("method")).when(reference).then(pl.col("candidate")).when(pl.col("kind").is_in(["expert", "blend"]))
        .then(pl.format("best {}", pl.col("kind")))
    )  # fmt: skip
    if (
        "whole" in board.columns
    ):  # models over several tasks are chosen for all of them at once; experts of other tasks are none here
        whole = pl.col("whole").is_not_null()
        board = board.filter(~whole | (reference | (merge & pl.col("winner"))))
    rows = (
        board.with_columns(entry=entry).drop_nulls("entry").unique(["unit", "entry"], keep="first", maintain_order=True)
    )
    return rows.pivot("entry", index="unit", values=f"test_{metric}", maintain_order=True)


def compare(board: pl.DataFrame, metric: str, margin: float) -> pl.DataFrame:
    """Compare each merge method with all other entries, on the units that have both; the columns are those of UNITS."""
    table = scores(board, metric)
    methods = [m for m in board.filter(pl.col("kind") == "merge")["method"].unique(maintain_order=True) if m]
    rows = []
    for i, first in enumerate(methods):
        for second in (c for c in table.columns[1:] if c not in methods[: i + 1]):
            both = table.select(first, second).drop_nulls()
            if both.height < 2:
                continue
            gain = metrics.sign(metric) * (both[first] - both[second]).to_numpy()
            found = across.signed_rank(gain, margin)
            rows.append({
                "first": first, "second": second, "metric": metric, "units": both.height, "mean_difference": float(gain.mean()),
                "better": found.better, "equivalent": found.equivalent, "worse": found.worse,
            })  # fmt: skip
    return pl.DataFrame(rows, schema={name: kind for name, (kind, _) in UNITS.items()})


def ranked(board: pl.DataFrame, metric: str) -> tuple[list[str], across.Ranks, int] | None:
    """Return the entries that all units have, their mean ranks and the number of units; None with fewer than two of either."""
    table = scores(board, metric)
    whole = [c for c in table.columns[1:] if table[c].null_count() == 0]
    if len(whole) < 2 or table.height < 2:
        return None
    return whole, across.ranks(metrics.sign(metric) * table.select(whole).to_numpy()), table.height
