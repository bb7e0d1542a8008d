"""Chart estimates with intervals, one below the other: rows that wrap on the page, a drawing in files."""

import math
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import polars as pl

from mllm.reporting.colours import ANSWERS, INK, KINDS, SOFT

HEIGHT, APART = 22, 9  # pixels of a row, and between several estimates of one row


@dataclass(frozen=True, kw_only=True)
class Point:
    """Hold an estimate with its 95 % interval."""

    value: float
    low: float
    high: float
    colour: str
    """A kind of candidate, or an answer."""
    filled: bool = True
    tick: float | None = None
    """A second estimate, drawn as a tick."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Further columns of the figure's CSV."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold one line of the chart."""

    label: str
    points: list[Point]
    note: str = ""
    """Text at the line's end."""
    group: str = ""
    """Heading above the row, where it differs from the row before."""


@dataclass(frozen=True, kw_only=True)
class RowChart:
    """Hold rows on one axis."""

    rows: list[Row]
    axis: str
    """Title of the axis."""
    margin: float | None = None
    """Half the width of the shaded band around 0, for differences."""
    domain: tuple[float, float] | None = None
    """Ends of the axis, if several charts share it."""

    def ends(self) -> tuple[float, float]:
        """Return the axis' ends: all intervals, and 0 and the margin if there is one, with some room."""
        if self.domain:
            return self.domain
        values = [v for row in self.rows for p in row.points for v in (p.low, p.high, p.value, p.tick) if v is not None]
        values += [-self.margin, self.margin] if self.margin is not None else []
        low, high = min(values), max(values)
        room = 0.05 * ((high - low) or abs(high) or 1)
        return low - room, high + room

    def on_page(self) -> dict[str, Any]:
        """Return the chart as the template draws it; positions are percentages of the width."""
        low, high = self.ends()

        def place(value: float) -> float:
            return round(100 * (value - low) / (high - low), 2)

        marks = ticks(low, high)
        digits = max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9)) if len(marks) > 1 else 2
        band = (
            None if self.margin is None else (place(-self.margin), round(place(self.margin) - place(-self.margin), 2))
        )
        shown, group = [], ""
        for row in self.rows:
            points = [
                {"low": place(p.low), "high": place(p.high), "at": place(p.value), "colour": _class(p.colour), "filled": p.filled,
                 "tick": None if p.tick is None else place(p.tick), "y": HEIGHT / 2 + APART * i}
                for i, p in enumerate(row.points)
            ]  # fmt: skip
            shown.append({
                "label": row.label, "note": row.note, "group": row.group if row.group != group else "", "points": points,
                "height": HEIGHT + APART * (len(points) - 1),
            })  # fmt: skip
            group = row.group
        return {
            "rows": shown, "axis": self.axis, "band": band, "zero": None if band is None else place(0),
            "ticks": [{"at": place(t), "text": f"{t:.{digits}f}".replace("-", "−")} for t in marks],
        }  # fmt: skip

    def drawn(self) -> Any:
        """Draw the chart for files."""
        colours = KINDS | ANSWERS
        lines = [
            {"row": i + 0.25 * k, "label": f"{row.label} ({row.group})" if row.group else row.label, "note": row.note, "value": p.value, "low": p.low, "high": p.high,
             "colour": p.colour, "filled": p.filled, "tick": p.tick, **p.facts}
            for i, row in enumerate(self.rows) for k, p in enumerate(row.points)
        ]  # fmt: skip
        table = pl.DataFrame(lines, infer_schema_length=None)
        count = len(self.rows)
        y = alt.Y("row:Q", axis=None, scale=alt.Scale(domain=[-0.8, count - 0.4], reverse=True, nice=False))
        x = alt.X(
            "low:Q", title=self.axis, scale=alt.Scale(domain=list(self.ends()), nice=False), axis=alt.Axis(tickCount=5)
        )
        base = alt.Chart(alt.Data(values=table.to_dicts()), width=560, height=HEIGHT * 2 * count).encode(y=y)
        colour = alt.Color("colour:N", scale=alt.Scale(domain=list(colours), range=list(colours.values())), legend=None)
        layers = []
        if self.margin is not None:
            bands = [
                {"from": -self.margin, "to": self.margin, "zero": 0, "top": i - 0.2, "bottom": i + 0.4}
                for i in range(count)
            ]
            lined = alt.Chart(alt.Data(values=bands)).encode(y=alt.Y("top:Q", axis=None), y2="bottom:Q")
            layers = [
                lined.mark_rect(color=SOFT, opacity=0.15).encode(x="from:Q", x2="to:Q"),
                lined.mark_rule(color=INK).encode(x="zero:Q"),
            ]
        first = base.transform_filter("datum.row % 1 == 0")
        layers += [
            base.mark_rule(size=2.5).encode(x=x, x2="high:Q", color=colour),
            base.transform_filter("datum.filled").mark_point(size=70, filled=True, opacity=1).encode(x="value:Q", color=colour),
            base.transform_filter("!datum.filled").mark_point(size=60, fill="white", opacity=1).encode(x="value:Q", color=colour),
            base.transform_filter("datum.tick !== null").mark_tick(thickness=2, size=12, color=SOFT).encode(x="tick:Q"),
            first.mark_text(align="left", dy=-17, fontWeight="bold", color=INK).encode(x=alt.value(0), text="label:N"),
            first.mark_text(align="right", dy=-17, color=INK).encode(x=alt.value(560), text="note:N"),
        ]  # fmt: skip
        return alt.layer(*layers)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return a few round numbers between two ends."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= most)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _class(name: str) -> str:
    return name.lower().replace(" ", "-")
