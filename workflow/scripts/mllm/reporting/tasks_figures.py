"""Draw charts of models over several tasks, from ``tasks.csv`` and ``tasks_comparisons.csv``."""

from typing import Any

import polars as pl

from mllm.evaluation import claim_sentences
from mllm.reporting.heat_map import Cell, HeatMap
from mllm.reporting.row_chart import Point, Row, RowChart

MANY = 40  # systems on the page


def answer(claims: list[dict[str, Any]], margin: float) -> RowChart:
    """Draw the selected merge over several tasks against each other system, in percentage points of the experts' score.

    Args:
        claims: of the merge, as in ``tasks_comparisons.csv``.
        margin: how much worse still counts as not worse, as a share of the experts' score.
    """
    claims = sorted(claims, key=lambda c: c["family"] != "primary")
    axis = "difference on test in percentage points of the experts’ score; right of 0 the merge is better"
    return RowChart(rows=[_row(c) for c in claims[:MANY]], axis=axis, margin=100 * margin)


def _row(claim: dict[str, Any]) -> Row:
    said = claim["answer"]
    value, low, high = (100 * claim[key] for key in ("difference", "low", "high"))
    ratio = claim["cost_ratio"]
    price = f" · {claim_sentences.times(1 / ratio)} its parameters" if ratio and not 0.95 < ratio < 1.05 else ""
    point = Point(
        value=value, low=low, high=high, colour=said, facts={"holds": claim["holds"], "p_holm": claim["p_holm"]}
    )
    note = f"{said}: {value:+.1f} ({low:+.1f} to {high:+.1f})".replace("-", "−")
    return Row(label=f"{claim['against']}{price}", points=[point], note=note)


def scores(table: pl.DataFrame) -> HeatMap:
    """Draw systems and what each keeps of the experts' score in each task; the selected merge is framed.

    Args:
        table: ``tasks.csv``.
    """
    tasks = [c.removesuffix("_normalised") for c in table.columns if c.endswith("_normalised")]
    tasks = [t for t in tasks if t in table.columns]
    merges = table.filter(pl.col("kind") == "merge")
    shown = pl.concat([merges.filter("winner"), table.filter(pl.col("kind") != "merge")]).head(MANY)
    shown = shown.sort("chosen", "mean_normalised", descending=True, nulls_last=True)
    columns = {"all tasks": "mean", "worst task": "worst"} | {t: t for t in tasks}
    cells = {
        (r["system"], heading): Cell(
            value=r[f"{key}_normalised"], low=r[f"{key}_normalised_low"], high=r[f"{key}_normalised_high"], mark=bool(r["chosen"])
        )
        for r in shown.iter_rows(named=True)
        for heading, key in columns.items()
        if r[f"{key}_normalised"] is not None
    }  # fmt: skip
    near = [c.value for (name, _), c in cells.items() if name in merges["system"]] or [c.value for c in cells.values()]
    return HeatMap(
        rows=shown["system"].to_list(), columns=list(columns), cells=cells, of_rows="system", of_columns="task", share=True,
        ends=(min(near), max(near)),
    )  # fmt: skip
