"""Write the report: one page that works without network and script, its figures, its main table for papers."""

import json
import re
from pathlib import Path
from typing import Any

from mllm.core.chart_style import styled
from mllm.evaluation import comparison_table
from mllm.reporting import colours, paper_files
from mllm.reporting.report import Report

TEMPLATE = Path(__file__).with_suffix(".html")


def write(report: Report, folder: Path) -> None:
    """Write ``index.html``, ``figures/<chart>.{svg,png,csv}``, ``tables/<table>.csv`` and ``leaderboard.{md,tex}``."""
    answers, sections = report.answers(), report.sections()
    (folder / "figures").mkdir(parents=True)
    for name, chart in report.figures.items():
        paper_files.write_chart(styled(chart).to_dict(), folder / "figures" / name)
    (folder / "index.html").write_text(_page(report, answers, sections, folder / "figures"), encoding="utf-8")
    main = paper_files.main_table(report.board, report.metric)
    (folder / "leaderboard.md").write_text(paper_files.markdown(main), encoding="utf-8")
    (folder / "leaderboard.tex").write_text(paper_files.latex(main), encoding="utf-8")
    (folder / "tables").mkdir()
    for table in (t for section in sections for t in section.get("tables", [])):
        table["table"].write_csv(folder / f"tables/{table['id']}.csv")


def _page(report: Report, answers: list[dict[str, Any]], sections: list[dict[str, Any]], figures: Path) -> str:
    import jinja2
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    markdown = MarkdownIt("commonmark", {"html": False})  # of texts written here, from names and numbers

    def drawing(name: str) -> Markup:
        return Markup(inline((figures / f"{name}.svg").read_text(encoding="utf-8"), name))

    def rendered(text: str) -> Markup:
        return Markup(markdown.render(text))

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.ChainableUndefined)
    environment.globals |= {"drawing": drawing, "rendered": rendered}
    environment.filters["wbr"] = breakable
    data = json.dumps(report.details(), ensure_ascii=False, separators=(",", ":"))
    board = report.board
    count = {kind: board.filter(kind=kind).height for kind in colours.KINDS if board.filter(kind=kind).height}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=report.experiment.name, answers=answers, sections=sections, count=count, light=Markup(colours.light()),
        dark=Markup(colours.dark()), description=report.experiment.data.description or "", margin=report.margin, metric=report.label,
        rule=comparison_table.rule(report.margin), details=Markup(data.replace("<", "\\u003c")),
        verdict=rendered(_below_the_title((report.results / "verdict.md").read_text(encoding="utf-8"))),
    )  # fmt: skip


def inline(svg: str, name: str) -> str:
    """Return a drawing for the page: in the page's colours, with identifiers of its own, as wide as possible."""
    svg = colours.variables(re.sub(r'fill="(?:white|#fff|#ffffff)"', 'fill="none"', svg))
    svg = re.sub(r'(id="|url\(#)', rf"\g<1>{name}-", svg)
    width = re.search(r'width="([\d.]+)"', svg)
    style = f'style="max-width:{float(width[1]) * 1.3:.0f}px"' if width else ""
    return re.sub(r'<svg([^>]*?) width="[\d.]+" height="[\d.]+"', rf"<svg\g<1> {style}", svg, count=1)


def _below_the_title(verdict: str) -> str:
    return re.sub(r"\A# .*\n", "", verdict)


def breakable(name: str) -> Any:
    """Let a long name wrap after its hyphens and underscores."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[-_])", name))
