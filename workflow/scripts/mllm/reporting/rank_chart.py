"""Draw the critical-difference diagram: mean ranks over data sets or tasks, and differences that may be chance."""

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from mllm.evaluation import across
from mllm.reporting.colours import INK, KINDS, SOFT


def diagram(names: list[str], found: across.Ranks) -> Any:
    """Draw entries at their mean ranks; a bar joins those within Nemenyi's critical distance (Demšar 2006).

    Args:
        names: of the entries.
        found: their ranks.
    """
    order = np.argsort(found.mean, kind="stable")
    places = np.arange(len(order))
    points = pl.DataFrame(
        {"entry": [names[i] for i in order], "rank": found.mean[order], "row": places, "place": places + 1}
    ).with_columns(critical_distance=pl.lit(found.distance))
    joined = across.groups(found.mean, found.distance)
    bars = pl.DataFrame(
        {"from": [float(found.mean[order[a]]) for a, _ in joined], "to": [float(found.mean[order[b]]) for _, b in joined],
         "row": [a - 0.35 for a, _ in joined], "last": [b + 0.35 for _, b in joined]},
        schema={"from": pl.Float64, "to": pl.Float64, "row": pl.Float64, "last": pl.Float64},
    )  # fmt: skip
    rank = alt.X("rank:Q", title="mean rank (1 is the best)", scale=alt.Scale(zero=False, nice=True))
    place = alt.Scale(domain=[len(order) - 0.4, -0.6])
    base = alt.Chart(alt.Data(values=points.to_dicts()), width=420, height=26 * len(order) + 30).encode(
        x=rank, y=alt.Y("row:Q", axis=None, scale=place), tooltip=["entry:N", alt.Tooltip("rank:Q", format=".2f")]
    )
    layers = [
        base.mark_circle(size=70, opacity=1, color=KINDS["merge"]),
        base.mark_text(align="left", dx=9, color=INK).encode(text="entry:N"),
    ]
    if bars.height:
        boxes = alt.Chart(alt.Data(values=bars.to_dicts())).mark_rect(color=SOFT, opacity=0.2)
        ends = {"x": "from:Q", "x2": "to:Q", "y": alt.Y("row:Q", axis=None, scale=place), "y2": "last:Q"}
        layers.insert(0, boxes.encode(**ends))
    return alt.layer(*layers)
