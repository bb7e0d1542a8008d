"""Make tables with coloured cells: a table on the page, a drawing in files."""

from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from mllm.reporting.colours import HEAT, INK

STRONGEST = 0.55  # share of colour in the darkest cell, so that text stays readable in light and in dark mode


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Hold one value."""

    value: float
    low: float | None = None
    """Its 95 % interval, if any."""
    high: float | None = None
    mark: bool = False
    """Whether the cell is framed."""


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Hold values by row and column."""

    rows: list[str]
    columns: list[str]
    cells: dict[tuple[str, str], Cell]
    """(row, column) -> value; all other cells are empty."""
    of_rows: str
    of_columns: str
    share: bool = False
    """Whether values are shares: shown in per cent, and coloured from 0 to 1 without ``ends``."""
    ends: tuple[float, float] | None = None
    """Values of the palest and the darkest colour (default: the smallest and the largest value)."""
    smaller_is_better: bool = False

    def strength(self, value: float) -> float:
        """Return the share of colour for a value; better values are darker."""
        values = [c.value for c in self.cells.values()]
        low, high = self.ends or ((0.0, 1.0) if self.share else (min(values), max(values)))
        part = min(1.0, max(0.0, (value - low) / ((high - low) or 1)))
        return round(STRONGEST * (1 - part if self.smaller_is_better else part), 3)

    def on_page(self) -> dict[str, Any]:
        """Return the table as the template draws it."""
        lines = []
        for row in self.rows:
            found = [self.cells.get((row, column)) for column in self.columns]
            lines.append({"label": row, "cells": [self._cell(cell) for cell in found]})
        return {"rows": lines, "columns": self.columns, "of_rows": self.of_rows, "of_columns": self.of_columns}

    def _cell(self, cell: Cell | None) -> dict[str, Any]:
        if cell is None:
            return {"text": "–", "percent": 0}
        ends = "" if cell.low is None or cell.high is None else f"{self.text(cell.low)}–{self.text(cell.high)}"
        interval = ends.replace("%–", "–")
        percent = round(100 * self.strength(cell.value), 1)
        return {"text": self.text(cell.value), "interval": interval, "percent": percent, "mark": cell.mark}

    def text(self, value: float) -> str:
        """Write a value."""
        return f"{value:.0%}" if self.share else f"{value:.3f}"

    def drawn(self) -> Any:
        """Draw the table for files."""
        lines = [
            {self.of_rows: row, self.of_columns: column, "value": c.value, "low": c.low, "high": c.high,
             "strength": self.strength(c.value), "text": self.text(c.value)}
            for (row, column), c in self.cells.items()
        ]  # fmt: skip
        data = alt.Data(values=pl.DataFrame(lines, infer_schema_length=None).to_dicts())
        base = alt.Chart(data, width=alt.Step(84), height=alt.Step(34)).encode(
            x=alt.X(f"{_field(self.of_columns)}:N", sort=self.columns, title=self.of_columns, axis=alt.Axis(labelAngle=-30, labelLimit=400)),
            y=alt.Y(f"{_field(self.of_rows)}:N", sort=self.rows, title=None, axis=alt.Axis(labelLimit=400, grid=False)),
        )  # fmt: skip
        colour = alt.Color(
            "strength:Q", scale=alt.Scale(domain=[0, 1], range=["#ffffff", HEAT], interpolate="rgb"), legend=None
        )
        layers = [base.mark_rect().encode(color=colour), base.mark_text(dy=-5, color=INK).encode(text="text:N")]
        if any(c.low is not None for c in self.cells.values()):
            number = "datum.low === null ? '' : format(datum.low, '.0%') + ' – ' + format(datum.high, '.0%')" if self.share else \
                "datum.low === null ? '' : format(datum.low, '.3f') + ' – ' + format(datum.high, '.3f')"  # fmt: skip
            interval = base.transform_calculate(interval=number).mark_text(dy=8, fontSize=9, color=INK)
            layers.append(interval.encode(text="interval:N"))
        return alt.layer(*layers)


def _field(name: str) -> str:
    return name.replace(".", "\\.").replace(":", "\\:")
