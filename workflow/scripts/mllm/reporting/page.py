"""The report: one page from an experiment's tables, which needs no network, and its figures and main table for papers."""

# Over 250 lines: the page's sections stand in the order in which they are read.

import json
import re
from pathlib import Path
from typing import Any

import polars as pl

from mllm.core.chart_style import styled
from mllm.core.files import read_json
from mllm.data import labelled
from mllm.evaluation import comparison_table, leaderboard, leaderboard_text, over_units, result_tables
from mllm.evaluation.metrics import METRICS, OF_CONFUSION
from mllm.evaluation.score_files import Scores
from mllm.evaluation.shared_draws import Pairs
from mllm.experiment import grid
from mllm.models import cards
from mllm.reporting import charts, page_tables, paper_files, provenance, rank_chart

TEMPLATE = Path(__file__).with_suffix(".html")
EXAMPLES = 5
RECIPES = 2_000_000  # bytes of them; all are in merges/
MOST = 2000  # candidates on the page, so that it stays below 8 MB; the tables beside it have all
TEXTS = ("words", "readability", "exclamations", "negations")  # of the slices: the others say much the same


class Report:
    """What the page holds, section by section.

    Args:
        results: the experiment's folder.
        experiment: as it was checked: name, metric, margin.
    """

    def __init__(self, results: Path, experiment: Any) -> None:
        self.results, self.experiment = results, experiment
        self.metric, self.margin = experiment.compare.metric, experiment.compare.margin
        self.board = result_tables.read(results, "leaderboard")
        self.comparisons = result_tables.read(results, "comparisons", comparison_table.SCHEMA)
        self.conditions = result_tables.read(results, "conditions")
        self.facts = read_json(results / "data/split.json")
        built = grid.build(experiment)  # what is left of earlier grids is not of this one
        models = {*built.made_by("train_expert", "take_expert"), *built.starts}
        files = sorted((results / "models").glob("*/model.json"))
        self.cards = {f.parent.name: cards.read(f.parent) for f in files if f.parent.name in models}
        self.charts: dict[str, Any] = {}
        self.several = self.board["task"].n_unique() > 1
        self.most = MOST // self.board["task"].n_unique()
        self.winners = set(self.board.filter("winner")["candidate"])
        self.kept = {c for _, part in self.board.group_by("task") for c in self._kept(part)["candidate"]}

    def sections(self) -> list[dict[str, Any]]:
        """All of them, those without content left out."""
        found = []
        for number, ((task,), board) in enumerate(self.board.group_by("task", maintain_order=True)):
            found += self._task(str(task), board, f"{number}")
        found += self._over_tasks()
        found += [
            self._section("training", "Training", "Loss of the batches (lines), and of validation after each epoch (diamonds).",
                          [("", charts.training(self.cards))]),
            {"id": "data", "title": "Data quality and leak", "text": leaderboard_text.leak_line(self.facts), "tables": self._repairs()},
            {"id": "recipes", "title": "Recipes", "text": "What mergekit-yaml makes each merge from.", "recipes": self._recipes()},
            {"id": "provenance", "title": "Provenance", "tables": self._provenance(), "recipes": self._experiment()},
        ]  # fmt: skip
        kept = ("board", "charts", "tables", "recipes", "examples")
        return [s for s in found if any(s.get(key) for key in kept)]

    def _section(self, id_: str, title: str, text: str, drawn: list[tuple[str, Any]]) -> dict[str, Any]:
        made = []
        for heading, chart in ((h, c) for h, c in drawn if c is not None):
            name = f"{id_}-{re.sub(r'[^A-Za-z0-9_-]', '_', heading)}" if heading else id_
            self.charts[f"chart-{name}"] = chart
            made.append({"id": f"chart-{name}", "title": heading})
        return {"id": id_, "title": title, "text": text, "charts": made}

    def _over_tasks(self) -> list[dict[str, Any]]:
        """Methods over the tasks: the critical-difference diagram, and who is better by how probable."""
        board = self.board.with_columns(unit="task")
        ranked = over_units.ranked(board, self.metric) if self.several else None
        if not ranked:
            return []
        text = (f"Methods over {ranked[2]} tasks. Grey joins what Nemenyi’s test does not tell apart at 5 %. The table has the probabilities that on"
                f" the next task the first is better, both are within {self.margin:g}, or the second is better (Bayesian signed-rank test).")  # fmt: skip
        section = self._section("tasks", "Over tasks", text, [("", rank_chart.diagram(ranked[0], ranked[1]))])
        table = over_units.compare(board, self.metric, self.margin).drop("metric")
        return [{**section, "tables": [page_tables.table("Method against method", table, "tasks")]}]

    def _task(self, task: str, board: pl.DataFrame, number: str) -> list[dict[str, Any]]:
        of = f" ({task})" if self.several else ""
        mine = self.comparisons.filter(pl.col("task") == task)
        methods = board.select("candidate", "method")
        claims, conditions = (
            mine.filter(pl.col("claim")).join(methods, on="candidate", maintain_order="left"),
            self.conditions.filter(pl.col("task") == task),
        )
        cost = leaderboard.price(board)
        shown = self._shown(board)
        scores = {c: Scores.read(self.results / f"scores/{c}.json") for c in shown}
        names = labelled.worded_names(self.results / "data", self.experiment.task(task).model_dump())
        label = METRICS[self.metric].label
        sections = [
            {"id": f"leaderboard-{number}", "title": f"Leaderboard{of}", "text": f"Chosen and sorted by {label} on validation;"
             f" intervals are 95 %, over texts and runs; ranks are on test. ★: a method’s best recipe.{self._left_out(board)}", "board": self._leaderboard(task, self._kept(board), f"board-{number}")},
            self._section(f"pareto-{number}", f"Quality against cost{of}", "Each candidate with its interval; a line joins those"
                          f" that nothing beats in both.{_free(board, cost)}", [("", charts.pareto(self._kept(board), self.metric, cost) if cost else None)]),
            self._section(f"differences-{number}", f"Paired differences{of}", f"Each method’s winner against the best expert, the best"
                          f" blend and the references, on the same test texts; to the right of 0 the merge is better. Dashed: the margin of {self.margin:g}. Filled: holds after correction. Tick: with class offsets fitted on validation.",
                          [(f"against {rival}", charts.forest(part, self.margin)) for (rival,), part in claims.group_by("against", maintain_order=True)]),
            self._section(f"grids-{number}", f"The grids{of}", "Validation scores of each method’s points; nothing here was seen on test.",
                          [*charts.grids(board, self.metric).items()]),
            self._section(f"calibration-{number}", f"Calibration{of}", "How often a prediction of some confidence is right, on test; raw,"
                          " and once temperature and class biases are fitted on validation.", [(how, charts.reliability(scores, shown, how)) for how in ("raw", "calibrated")]),
            self._section(f"confusion-{number}", f"Confusion{of}", "Shares of each true class, on test.",
                          [(c, charts.confusion(scores[c].confusion["test"], names)) for c in shown[:3]]),
            self._section(f"conditions-{number}", f"Conditions{of}", "Winners and all that is no merge on each condition’s test reviews.",
                          [("", charts.conditions(conditions, board.select("candidate", "kind"), label) if conditions.height else None)]),
            self._section(f"slices-{number}", f"Slices{of}", "Quarters of the test texts; nothing was chosen by them.",
                          [("", charts.slices(scores, shown[:2], self.metric, list(TEXTS)))]),
        ]  # fmt: skip
        examples = self._examples(task, board, names)
        return [*sections, {"id": f"examples-{number}", "title": f"Examples{of}", "examples": examples}]

    def _kept(self, board: pl.DataFrame) -> pl.DataFrame:
        """What the page has room for: the best merges on validation, and all that is no merge."""
        merge = pl.col("kind") == "merge"
        room = max(0, self.most - board.filter(~merge).height)
        return board.filter(~merge | (merge.cum_sum() <= room))

    def _left_out(self, board: pl.DataFrame) -> str:
        rest = board.height - self._kept(board).height
        return f" {rest:,} merges further down are in leaderboard.csv alone." if rest else ""

    def _shown(self, board: pl.DataFrame) -> list[str]:
        """The best merge, the best expert, the best reference, the best blend; by validation, as the leaderboard is sorted."""
        found = []
        for kind in ("merge", "expert", "reference", "blend"):
            found += board.filter(pl.col("kind") == kind)["candidate"].head(1).to_list()
        return found or board["candidate"].head(1).to_list()

    def _leaderboard(self, task: str, board: pl.DataFrame, id_: str) -> dict[str, Any]:
        metric = self.metric
        second = [] if metric == "accuracy" else [("test accuracy", "test_accuracy", True)]
        several = [("sd", f"test_{metric}_sd", True), ("runs", "runs", True)] if self.board["runs"].max() != 1 else []
        tuned = [("class offsets fitted", f"test_tuned_{metric}", True)] if metric in OF_CONFUSION else []
        columns = [
            ("★", "winner", False), ("candidate", "candidate", False), ("kind", "kind", False),
            (f"valid {metric}", f"valid_{metric}", True), (f"test {metric}", f"test_{metric}", True), ("95 % interval", "", True),
            *several, *second, *tuned, ("rank", "rank", True), ("rank interval", "rank_low", True), ("parameters", "n_parameters", True),
            ("FLOPs / review", "flops_per_review", True), ("reviews / s", "reviews_per_second", True), ("Pareto", "pareto", False),
        ]  # fmt: skip
        rows = [
            {"kind": row["kind"], "cells": [page_tables.cell(row, key, metric, number) for _, key, number in columns]}
            for row in board.iter_rows(named=True)
        ]
        kinds = [k for k in charts.KINDS if k in set(board["kind"])]
        heads = [{"title": title, "number": number} for title, _, number in columns]
        return {"id": id_, "task": task, "kinds": kinds, "columns": heads, "rows": rows}

    def _examples(self, task: str, board: pl.DataFrame, names: list[str]) -> list[dict[str, Any]]:
        """Test reviews on which the best merge and all of its members disagree about what is right."""
        best = board.filter(pl.col("kind") == "merge").head(1).to_dicts()
        reviews = self.results / "data/test.parquet"
        if not best or "review" not in pl.read_parquet_schema(reviews):
            return []
        members = best[0]["members"].split()
        if not members:  # predictions made elsewhere: whose, nobody said
            return []
        rows = labelled.labelled(self.results / "data", ("test",), task).with_row_index("place")
        rows = rows.unique("group", keep="first", maintain_order=True)
        labels = Pairs(self.results / "scores", task).labels([best[0]["candidate"], *members])
        mine, *theirs = labels[:, rows["place"].to_numpy()].tolist()
        truth = rows["label"].to_list()
        parts = {
            "The merge is right, every member is wrong": lambda i: mine[i] == truth[i] and all(t[i] != truth[i] for t in theirs),
            "The merge is wrong, every member is right": lambda i: mine[i] != truth[i] and all(t[i] == truth[i] for t in theirs),
        }  # fmt: skip
        found = []
        for title, wanted in parts.items():
            chosen = [i for i in range(rows.height) if wanted(i)]
            shown = [
                {"review": _short(rows["review"][i]), "truth": names[truth[i]],
                 "said": f"the merge: {names[mine[i]]}; members: " + ", ".join(names[t[i]] for t in theirs)}
                for i in chosen[:EXAMPLES]
            ]  # fmt: skip
            found.append({"title": f"{title}: {len(chosen):,} of {rows.height:,} texts", "rows": shown})
        return found

    def _repairs(self) -> list[dict[str, Any]]:
        file = self.results / "data/repairs.csv"
        if not file.exists():
            return []
        found = pl.read_csv(file).filter(pl.col("rows") > 0)
        return [page_tables.table("What was found in the raw files", found, "repairs")]

    def _recipes(self) -> list[dict[str, str]]:
        files = (f for f in sorted((self.results / "merges").glob("*/mergekit.yaml")) if f.parent.name in self.kept)
        texts = {f.parent.name: f.read_text(encoding="utf-8") for f in files}
        first = sorted(texts, key=lambda name: (name not in self.winners, len(texts[name]), name))
        room, kept = RECIPES, set()
        # Winners first; a mixture's recipe holds reviews, and many of them would make the page too large.
        for name in first:
            room -= len(texts[name].encode())
            kept |= {name} if room >= 0 else set()
        return [{"title": name, "text": text} for name, text in texts.items() if name in kept]

    def _experiment(self) -> list[dict[str, str]]:
        return [{"title": "experiment.yaml", "text": (self.results / "experiment.yaml").read_text(encoding="utf-8")}]

    def _provenance(self) -> list[dict[str, Any]]:
        found = [page_tables.table("Time", provenance.stages(self.results), "time")]
        used = provenance.on_the_cluster(self.results)
        found += [page_tables.table("Asked for and used on the cluster", used, "cluster")] if used is not None else []
        return [
            *found,
            page_tables.table(
                "Software and hardware",
                provenance.software(self.results, self.cards, self.board),
                "software",
            ),
        ]


def write(report: Report, folder: Path) -> None:
    """``index.html``, ``figures/<chart>.{svg,png,csv}``, ``tables/<table>.csv``, ``leaderboard.{md,tex}``."""
    import jinja2
    import vl_convert
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    sections = report.sections()
    specs = {name: styled(chart).to_dict() for name, chart in report.charts.items()}
    (folder / "figures").mkdir(parents=True)
    for name, spec in specs.items():
        paper_files.write_chart(spec, folder / "figures" / name.removeprefix("chart-"))
    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.ChainableUndefined)
    others = report.board.filter(pl.col("kind") != "merge").height
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=report.experiment.name, sections=sections, kinds=charts.KINDS,
        question=f"{report.board.height} candidates, {others} of them no merges. Does a merge of small models do what others do,"
        " and at what cost?",
        verdict=Markup(MarkdownIt("commonmark", {"html": False}).render((report.results / "verdict.md").read_text(encoding="utf-8"))),  # written here, from names and numbers
        library=Markup(library.replace("</script", "<\\/script")),
        specs=Markup(json.dumps(specs).replace("<", "\\u003c")),
    )  # fmt: skip
    (folder / "index.html").write_text(page, encoding="utf-8")
    main = paper_files.main_table(report.board, report.metric)
    (folder / "leaderboard.md").write_text(paper_files.markdown(main), encoding="utf-8")
    (folder / "leaderboard.tex").write_text(paper_files.latex(main), encoding="utf-8")
    (folder / "tables").mkdir()
    for table in (t for section in sections for t in section.get("tables", [])):
        table["table"].write_csv(folder / f"tables/{table['id']}.csv")


def _free(board: pl.DataFrame, cost: str | None) -> str:
    """What has no place on a logarithmic axis."""
    names = board.filter(pl.col(cost) == 0)["candidate"].to_list() if cost else []
    return f" Without any cost, and so not drawn: {', '.join(names)}." if names else ""


def _short(text: str, most: int = 400) -> str:
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"
