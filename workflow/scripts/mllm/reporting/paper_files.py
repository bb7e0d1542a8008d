"""Write the report's tables and charts as files for papers: CSV, Markdown, LaTeX, SVG, PNG."""

import json
from pathlib import Path
from typing import Any

import polars as pl

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "_%&#${}"},
}


def main_table(board: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Return the leaderboard's columns for a paper, as text."""

    def three(column: str) -> pl.Expr:
        return pl.col(column).map_elements("{:.3f}".format, pl.String)

    return board.select(
        "candidate", "kind",
        *(three(f"{s}_{metric}").alias(f"{s} {metric}") for s in ("valid", "test")),
        pl.format("{} to {}", three(f"test_{metric}_low"), three(f"test_{metric}_high")).alias("95 % interval"),
        pl.col("n_parameters").alias("parameters"),
    )  # fmt: skip


def markdown(table: pl.DataFrame) -> str:
    """Write a table in GitHub's Markdown."""
    lines = [table.columns, ["---"] * table.width, *table.rows()]
    return "\n".join("| " + " | ".join(_plain(c).replace("|", "\\|") for c in line) + " |" for line in lines) + "\n"


def latex(table: pl.DataFrame) -> str:
    """Write a tabular for ``booktabs``; the first two columns are text, the others numbers."""

    def clean(cell: Any) -> str:
        return "".join(LATEX.get(c, c) for c in _plain(cell))

    rows = [" & ".join(map(clean, row)) + r" \\" for row in [table.columns, *table.rows()]]
    rows.insert(1, r"\midrule")
    begin = rf"\begin{{tabular}}{{ll{'r' * (table.width - 2)}}}"
    return "\n".join([begin, r"\toprule", *rows, r"\bottomrule", r"\end{tabular}"]) + "\n"


def write_chart(spec: dict[str, Any], file: Path) -> None:
    """Write a chart as ``file`` .svg and .png, and its numbers as .csv."""
    import vl_convert

    with_ending = {ending: file.with_name(f"{file.name}.{ending}") for ending in ("svg", "png", "csv")}
    with_ending["svg"].write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
    with_ending["png"].write_bytes(vl_convert.vegalite_to_png(spec, scale=2))
    pl.DataFrame(_drawn(spec), infer_schema_length=None).write_csv(with_ending["csv"])


def _drawn(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that a chart draws, each once, from all layers with its main columns; guide lines have other columns."""
    sets = [values for values in _values(spec) if values]
    widest = max((set(values[0]) for values in sets), key=len)
    rows = [row for values in sets if set(values[0]) == widest for row in values]
    return list({json.dumps(row, sort_keys=True): row for row in rows}.values())


def _values(spec: dict[str, Any]) -> list[list[dict[str, Any]]]:
    own = [spec["data"]["values"]] if "values" in spec.get("data", {}) else []
    named = list(spec.get("datasets", {}).values())
    return own + named + [values for layer in spec.get("layer", []) for values in _values(layer)]


def _plain(cell: Any) -> str:
    return "" if cell is None else str(cell)
