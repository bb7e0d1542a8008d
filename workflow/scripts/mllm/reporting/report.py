"""Build the report's page, section by section, from an experiment's tables."""

from pathlib import Path
from typing import Any

import polars as pl

from mllm.core.counting import counted
from mllm.core.files import read_json
from mllm.data import labelled
from mllm.evaluation import (
    comparison_table,
    leaderboard,
    leaderboard_text,
    over_units,
    result_tables,
    rivals,
    tasks_verdict,
    verdict_answers,
)
from mllm.evaluation.metrics import METRICS
from mllm.evaluation.score_files import Scores
from mllm.experiment import grid, systems
from mllm.models import cards
from mllm.reporting import (
    board_table,
    curves,
    details,
    examples,
    page_tables,
    provenance,
    rank_chart,
    task_figures,
    tasks_figures,
    tasks_section,
)
from mllm.reporting.heat_map import HeatMap
from mllm.reporting.row_chart import RowChart

MOST = 2000  # candidates on the page; the tables beside it have all


class Report:
    """Build the page's sections and figures.

    Args:
        results: the experiment's folder.
        experiment: the checked experiment.
        taken: rows of times, of execution/stage_times.py.
    """

    def __init__(self, results: Path, experiment: Any, taken: dict[str, list[dict[str, Any]]]) -> None:
        self.results, self.experiment, self.taken = results, experiment, taken
        self.metric, self.margin = experiment.compare.metric, experiment.compare.margin
        self.label = METRICS[self.metric].label
        self.board = result_tables.read(results, "leaderboard")
        self.comparisons = result_tables.read(results, "comparisons", comparison_table.SCHEMA)
        self.parts = result_tables.read(results, "parts")
        built = grid.build(experiment)  # folders of earlier grids are ignored
        models = sorted({*built.made_by("train_expert", "take_expert"), *built.starts})
        self.over = result_tables.read(results, "tasks") if systems.systems(built) else None
        folders = {name: results / "models" / name for name in models}
        self.cards = {name: cards.read(folder) for name, folder in folders.items() if folder.exists()}
        joint = {c.whole: results / c.folder for c in built.candidates.values() if c.made_by == "train_tasks"}
        # The cards of one training's tasks agree on it.
        self.cards |= {name: cards.read(folder) for name, folder in joint.items() if folder.exists()}
        self.figures: dict[str, Any] = {}
        """Name -> chart, for the files beside the page."""
        self.tasks = self.board["task"].unique(maintain_order=True).to_list()
        self.most = MOST // len(self.tasks)

    def answers(self) -> list[dict[str, Any]]:
        """Make the first screen: the answers over all tasks and for each task, with a picture."""
        found = self._answer_over_tasks()
        for number, task in enumerate(self.tasks):
            board = self.board.filter(task=task)
            winners = rivals.own_winners(board)  # merges over several tasks have a section of their own
            if not winners.height:
                continue
            best = winners.row(0, named=True)
            claims = comparison_table.rows(self._claims(task).filter(candidate=best["candidate"]))
            lines = verdict_answers.answers(best, claims, board, self.margin) if claims else []
            chart = task_figures.answer(claims, board, self.margin)
            figures = self._figures(f"answer-{number}", {best["candidate"]: chart})
            score = f"{self.label} {best[f'test_{self.metric}']:.3f} ({best[f'test_{self.metric}_low']:.3f} to {best[f'test_{self.metric}_high']:.3f})"
            found.append(
                {"heading": f"Task {task}", "lines": "\n".join(lines), "figures": figures, "merge": best["candidate"], "score": f"{score} on test"}
            )  # fmt: skip
        return found

    def _answer_over_tasks(self) -> list[dict[str, Any]]:
        """Answer whether the selected merge over several tasks may replace other systems."""
        chosen = self.over.filter("chosen").to_dicts() if self.over is not None else []
        if self.over is None or not chosen:
            return []
        best, pairs = chosen[0], result_tables.read(self.results, "tasks_comparisons")
        claims = pairs.filter(pl.col("candidate") == best["system"], "claim").to_dicts()
        share = tasks_verdict.size(self.over, best)
        figures = self._figures("answer-tasks", {"": tasks_figures.answer(claims, self.margin)}) if claims else []
        first = f"**{tasks_verdict.keeps(best, share)}** {tasks_verdict.loses(best)}"
        lines = [first, "", *tasks_verdict.answers(claims, self.margin)]
        score = f"{100 * best['mean_normalised']:.0f} % of the experts’ mean score on test"
        heading = f"One model for {len(best['tasks'].split())} tasks"
        return [
            {"heading": heading, "lines": "\n".join(lines), "figures": figures, "merge": best["system"], "score": score}
        ]

    def sections(self) -> list[dict[str, Any]]:
        """Make all sections below the first screen; sections without content are left out."""
        found = self._one_model()
        for number, task in enumerate(self.tasks):
            found += self._task(task, self.board.filter(task=task), str(number))
        facts = read_json(self.results / "data/split.json")
        found += [
            *self._over_tasks(),
            {"id": "training", "title": "Training", "text": "Line: loss of the batches. Diamonds: loss of validation after each epoch.",
             "figures": self._figures("training", curves.trainings(self.cards))},
            {"id": "data", "title": "Data quality and leak", "text": leaderboard_text.leak_line(facts), "tables": page_tables.repairs(self.results)},
            {"id": "provenance", "title": "Provenance", "tables": provenance.tables(self.results, self.taken, self.cards, self.board),
             "recipes": [{"title": "experiment.yaml", "text": (self.results / "experiment.yaml").read_text(encoding="utf-8")}]},
        ]  # fmt: skip
        return [s for s in found if any(s.get(key) for key in ("board", "figures", "tables", "recipes", "examples"))]

    def details(self) -> dict[str, Any]:
        """Return task -> the details that a click on a candidate's name opens."""
        return {
            task: details.gather(self.results, task, self._names(task), self._kept(self.board.filter(task=task)), self.metric)
            for task in self.tasks
        }  # fmt: skip

    def _figures(self, id_: str, charts: dict[str, Any]) -> list[dict[str, Any]]:
        """Prepare charts by their headings for the template, and keep each as a figure for files."""
        made = []
        for heading, chart in charts.items():
            if chart is None:
                continue
            name = "-".join([id_, *([page_tables.file_name(heading)] if heading and len(charts) > 1 else [])])
            kind = {RowChart: "rows", HeatMap: "heat"}.get(type(chart), "svg")
            self.figures[name] = chart.drawn() if kind != "svg" else chart
            made.append({"id": f"chart-{name}", "title": heading if len(charts) > 1 else "", "kind": kind,
                         "drawn": chart.on_page() if kind != "svg" else name})  # fmt: skip
        return made

    def _claims(self, task: str) -> pl.DataFrame:
        return self.comparisons.filter(pl.col("claim") & (pl.col("task") == task))

    def _names(self, task: str) -> list[str]:
        return labelled.worded_names(self.results / "data", self.experiment.task(task).model_dump())

    def _kept(self, board: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that fit on the page: the best merges on validation, and all other candidates."""
        merge = pl.col("kind") == "merge"
        room = max(0, self.most - board.filter(~merge).height)
        return board.filter(~merge | (merge.cum_sum() <= room))

    def _task(self, task: str, board: pl.DataFrame, number: str) -> list[dict[str, Any]]:
        of = f" ({task})" if len(self.tasks) > 1 else ""
        kept, names, label = self._kept(board), self._names(task), self.label
        claims, methods = self._claims(task), dict(board.select("candidate", "method").rows())
        rest = board.height - kept.height
        left_out = f" Only leaderboard.csv has the {counted(rest, 'merge')} further down." if rest else ""
        chosen = [
            c
            for kind in ("merge", "expert", "reference", "blend")
            for c in board.filter(kind=kind)["candidate"].head(1)
        ]
        scores = {c: Scores.read(self.results / f"scores/{c}.json") for c in chosen or board["candidate"].head(1)}
        against = {
            f"against {rival}": task_figures.differences(rows, methods, self.margin)
            for rival, rows in task_figures.by_rival(claims).items()
        }
        sliced = task_figures.sliced_columns(next(iter(scores.values())), self.parts["column"].unique().to_list())
        parts = {
            column: task_figures.parts(table, self.metric)
            for (column,), table in self.parts.filter(pl.col("task") == task).group_by("column", maintain_order=True)
        }
        sections = [
            {"id": f"leaderboard-{number}", "title": f"Leaderboard{of}", "text": f"Sorted by {label} on validation. Intervals are 95 %; ranks are on test."
             f" ★: a method’s best recipe on validation. Click a name for its recipe, confusion, errors and scores by slice.{left_out}",
             "board": board_table.board(kept, claims, self.metric, f"board-{number}")},
            {"id": f"pareto-{number}", "title": f"Quality against cost{of}", **self._cost(board, number)},
            {"id": f"differences-{number}", "title": f"Paired differences{of}", "text": "Each method’s best recipe against each rival, on the same test texts."
             f" Right of 0 the merge is better. Shaded: within the margin of {self.margin:g}. Tick: the same difference after class offsets are fitted on validation.",
             "figures": self._figures(f"differences-{number}", against), "pairs": True},
            {"id": f"grids-{number}", "title": f"The grids{of}", "text": f"{label} of each method’s recipes on validation; test has no part in it."
             " Seeds are repeats of a recipe. Where recipes differ in a third parameter, the best is shown.",
             "figures": self._figures(f"grids-{number}", {**task_figures.grids(board, self.metric)}), "pairs": True},
            {"id": f"calibration-{number}", "title": f"Calibration{of}", "text": "How often a prediction of some confidence is right, on test. Grey: as predicted."
             " Coloured: after temperature and class offsets are fitted on validation. On the dashed line, 80 % confidence is right 80 % of the time.",
             "figures": self._figures(f"calibration-{number}", {c: curves.calibration(s) for c, s in scores.items()})},
            {"id": f"confusion-{number}", "title": f"Confusion{of}", "text": "Each row shows the predictions for the test texts of one true class.",
             "figures": self._figures(f"confusion-{number}", {c: task_figures.confusion(scores[c].confusion["test"], names) for c in list(scores)[:3]}), "pairs": True},
            {"id": f"parts-{number}", "title": f"Who knows which part{of}", "text": f"{label} of each method’s best merge, and of all other candidates, on each part of the"
             " test reviews. Framed: the candidate, or one of its members, learned from this part.", "figures": self._figures(f"parts-{number}", parts)},
            {"id": f"slices-{number}", "title": f"Slices{of}", "text": f"Parts of the test texts. Upper: the best {scores[chosen[0]].kind if chosen else 'candidate'}."
             + (f" Lower: the best {scores[chosen[1]].kind}." if len(chosen) > 1 else ""),
             "figures": self._figures(f"slices-{number}", {"": task_figures.slices(scores, chosen[:2], self.metric, sliced)})},
            {"id": f"examples-{number}", "title": f"Examples{of}", "examples": examples.disagreements(self.results, task, board, names)},
        ]  # fmt: skip
        return sections

    def _one_model(self) -> list[dict[str, Any]]:
        """Show what each system over several tasks keeps of the experts' scores."""
        if self.over is None or not self.over.height:
            return []
        text = (
            "Scores on test, divided by those of each task’s best expert on validation, with 95 % intervals: each method’s best merge, and"
            " all other systems. Framed: the selected merge. tasks.csv has all merges."
        )
        more = [
            {"id": id_, "title": title, "text": text, "figures": self._figures(id_, charts), "pairs": True}
            for id_, title, text, charts in tasks_section.parts(self.results, self.over, self.board, self.metric)
        ]
        return [{"id": "over-tasks", "title": "One model for several tasks", "text": text,
                 "figures": self._figures("over-tasks", {"": tasks_figures.scores(self.over)})}, *more]  # fmt: skip

    def _cost(self, board: pl.DataFrame, number: str) -> dict[str, Any]:
        """Show quality against cost, where costs are known."""
        cost = leaderboard.price(board)
        if cost is None:
            return {}
        unit = [*board.filter("winner")["candidate"].head(1), board["candidate"][0]][0]
        chart = task_figures.quality_and_cost(board, self.metric, cost, unit)
        no_better = task_figures.left_out(board, self.metric)
        rest = board.height - len(chart.rows) - len(no_better)
        more = f" {rest} other merge{'s are' if rest > 1 else ' is'} in the leaderboard." if rest else ""
        more += (
            f" Not drawn: {', '.join(no_better)}, the constant answer and candidates no better than it."
            if no_better
            else ""
        )
        text = f"Candidates by cost, the cheapest first. Filled: no other is both better and cheaper on these test texts.{more}"
        return {"text": text, "figures": self._figures(f"pareto-{number}", {"": chart})}

    def _over_tasks(self) -> list[dict[str, Any]]:
        """Compare methods over the tasks: the critical-difference diagram, and the probabilities that one is better."""
        board = self.board.with_columns(unit="task")
        ranked = over_units.ranked(board, self.metric) if len(self.tasks) > 1 else None
        if not ranked:
            return []
        text = (f"Methods over {ranked[2]} tasks. Grey joins what Nemenyi’s test does not tell apart at 5 %. The table has the probabilities that on"
                f" the next task the first is better, both are within {self.margin:g}, or the second is better (Bayesian signed-rank test).")  # fmt: skip
        table = over_units.compare(board, self.metric, self.margin).drop("metric")
        return [{
            "id": "tasks", "title": "Over tasks", "text": text, "figures": self._figures("tasks", {"": rank_chart.diagram(ranked[0], ranked[1])}),
            "tables": [page_tables.table("Method against method", table, "tasks")],
        }]  # fmt: skip
