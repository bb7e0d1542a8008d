"""The critical-difference diagram: mean ranks over data sets or tasks, and which of them may be chance."""

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from mllm.evaluation import across


def diagram(names: list[str], found: across.Ranks) -> Any:
    """Entries at their mean ranks; a bar joins those that are within Nemenyi's critical distance (Demšar 2006).

    Args:
        names: of the entries.
        found: their ranks.
    """
    order = np.argsort(found.mean, kind="stable")
    points = pl.DataFrame({"entry": [names[i] for i in order], "rank": found.mean[order], "row": np.arange(len(order))})
    joined = across.groups(found.mean, found.distance)
    bars = pl.DataFrame(
        {"from": [float(found.mean[order[a]]) for a, _ in joined], "to": [float(found.mean[order[b]]) for _, b in joined],
         "row": [a - 0.35 for a, _ in joined], "last": [b + 0.35 for _, b in joined]},
        schema={"from": pl.Float64, "to": pl.Float64, "row": pl.Float64, "last": pl.Float64},
    )  # fmt: skip
    rank = alt.X("rank:Q", title="mean rank (1 is the best)", scale=alt.Scale(zero=False, nice=True))
    place = alt.Y("row:Q", axis=None, scale=alt.Scale(domain=[len(order) - 0.4, -0.6]))
    base = alt.Chart(alt.Data(values=points.to_dicts()), height=26 * len(order) + 30).encode(
        y=place, tooltip=["entry:N", alt.Tooltip("rank:Q", format=".2f")]
    )
    boxes = (
        alt.Chart(alt.Data(values=bars.to_dicts()))
        .mark_rect(color="#9ca3af", opacity=0.25)
        .encode(x="from:Q", x2="to:Q", y="row:Q", y2="last:Q")
    )
    text = base.mark_text(align="left", dx=9).encode(x=rank, text="entry:N")
    return alt.layer(boxes, base.mark_circle(size=70, opacity=1, color="#b0432c").encode(x=rank), text)
