"""Altair charts, written as SVG, PNG and one self-contained HTML page (vl-convert, no browser)."""

from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

WIDTH, HEIGHT = 420, 240
COLOURS = ["#2a6f97", "#e07a5f", "#81b29a", "#6d597a"]


def bars(table: pl.DataFrame, x: str, y: str, title: str, *, label: str, colour: str | None = None) -> Any:
    """Draw vertical bars in the table's order; bars of different ``colour`` values are side by side."""
    data = alt.Data(values=table.to_dicts())
    chart = alt.Chart(data, title=title, width=WIDTH, height=HEIGHT).mark_bar()
    kind = "Q" if table[x].dtype.is_numeric() and table[x].n_unique() > 25 else "O"
    chart = chart.encode(
        x=alt.X(f"{x}:{kind}", title=label, sort=None, axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y(f"{y}:Q", title=None, axis=alt.Axis(format=".0%" if y == "share" else ",d")),
        tooltip=_tooltip(table),
    )
    return chart.encode(_colour(colour), xOffset=alt.XOffset(f"{colour}:N", sort=None)) if colour else chart


def ranking(table: pl.DataFrame, name: str, value: str, title: str, *, colour: str | None = None) -> Any:
    """Draw horizontal bars with uncut names and the number at the end of each bar."""
    data = alt.Data(values=table.to_dicts())
    base = alt.Chart(data, title=title, width=WIDTH, height=max(120, 18 * table[name].n_unique())).encode(
        y=alt.Y(f"{name}:N", sort=None, title=None, axis=alt.Axis(labelLimit=280)),
        x=alt.X(f"{value}:Q", title=None, axis=alt.Axis(format=".0%" if value == "share" else ",d")),
        tooltip=_tooltip(table),
    )
    if colour:
        base = base.encode(_colour(colour), yOffset=alt.YOffset(f"{colour}:N", sort=None))
    number = alt.Text("rows:Q" if "rows" in table.columns else f"{value}:Q", format=",d")
    return base.mark_bar() + base.mark_text(align="left", dx=3, fontSize=10).encode(text=number)


def _colour(column: str) -> Any:
    return alt.Color(f"{column}:N", sort=None, scale=alt.Scale(range=COLOURS), title=None)


def _tooltip(table: pl.DataFrame) -> list[Any]:
    kinds = {c: "N" if table[c].dtype == pl.String else "Q" for c in table.columns}
    return [alt.Tooltip(f"{c}:{kind}", format=_format(c)) for c, kind in kinds.items()]


def _format(column: str) -> str:
    return {"share": ".1%", "year": "d"}.get(column, "")


def write(charts: dict[str, Any], folder: Path, title: str) -> None:
    """Write ``<name>.svg`` and ``<name>.png`` for each chart, and all charts in ``index.html``."""
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    for name, chart in charts.items():
        spec = styled(chart).to_dict()
        (folder / f"{name}.svg").write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
        (folder / f"{name}.png").write_bytes(vl_convert.vegalite_to_png(spec, scale=2))
    page = alt.vconcat(*charts.values(), title=title).resolve_scale(color="independent")
    (folder / "index.html").write_text(styled(page).to_html(inline=True), encoding="utf-8")


def styled(chart: Any) -> Any:
    """Return a chart in the project's style."""
    return (
        chart.configure(font="Helvetica, Arial, sans-serif", background="white")
        .configure_bar(color=COLOURS[0])
        .configure_title(anchor="start", fontSize=14, offset=10)
        .configure_axis(grid=False, labelColor="#333333", titleColor="#333333")
        .configure_axisY(grid=True, gridColor="#eeeeee")
        .configure_view(stroke=None)
        .configure_legend(orient="top")
    )
