"""Compare candidates in pairs on the same test reviews, and write the verdict."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core import script
from mllm.core.files import read_json, whole

if TYPE_CHECKING:
    import polars as pl

    from mllm.evaluation.over_tasks import OverTasks
    from mllm.evaluation.score_files import Scores
    from mllm.evaluation.verdict import Facts
    from mllm.experiment.schema import Compare, Experiment


def main(arguments: argparse.Namespace) -> None:
    import polars as pl

    from mllm.data import labelled, labels
    from mllm.evaluation import (
        agreement,
        comparison,
        over_tasks,
        result_tables,
        score_files,
        selection,
        shared_draws,
        verdict,
    )  # fmt: skip
    from mllm.experiment import grid, read, systems

    experiment = read.read(*arguments.experiment, override=arguments.override)
    built = grid.build(experiment)
    results, metric, margin = arguments.results, experiment.compare.metric, experiment.compare.margin
    frame, runs = result_tables.read(results, "leaderboard"), result_tables.read(results, "runs")
    tasks = frame["task"].unique(maintain_order=True).to_list()
    side_by_side = {task: shared_draws.Pairs(results / "scores", task, built.runs) for task in tasks}
    truth = {}
    for task in tasks:
        rows = labelled.with_labels(results / "data", "test", task, ["review_id", "group"]).drop_nulls()
        truth[task] = rows[labels.label_column(task)].to_numpy(), rows["group"].to_numpy()
    compared = comparison.compare(frame, runs, side_by_side, truth, metric, margin)
    if not experiment.compare.equivalence:
        compared = comparison.without_equivalence(compared)
    scores = {name: score_files.Scores.read(results / f"scores/{name}.json") for name in built.candidates}
    found = systems.systems(built)
    over = over_tasks.OverTasks(found, frame, runs, side_by_side, experiment.compare, scores) if found else None
    chosen = selection.selection(frame, side_by_side, metric, over.choices() if over else ())

    members = {
        task: [c.name for c in built.of_kind("base", "expert") if c.task == task and c.replicate == 1 and not c.whole]
        for task in tasks
    }
    shown = frame.filter((pl.col("kind") != "merge") | pl.col("winner"))["candidate"].to_list()
    result_tables.write(compared, results, "comparisons")
    result_tables.write(chosen, results, "selection")
    result_tables.write(agreement.agreement(members, side_by_side, truth), results, "agreement")
    parts = agreement.by_part([*scores.values()], shown, trained_on(experiment) or {"condition": {}}, metric)
    result_tables.write(parts, results, "parts")
    apart = {task: pairs.told_apart for task, pairs in side_by_side.items()}
    said = beside_the_tables(experiment, built.runs, scores, apart, results)
    if over:
        said = replace(said, **across(over, chosen, experiment.compare, results))
    with whole(results / "verdict.md") as partial:
        partial.write_text(verdict.text(said, frame, compared, chosen), encoding="utf-8")


def trained_on(experiment: "Experiment") -> dict[str, dict[str, list[str]]]:
    """Return column -> expert -> its values of the reviews that the expert was trained on."""
    found: dict[str, dict[str, list[str]]] = {}
    for expert in experiment.experts:
        for column, values in (expert.where or {}).items():
            found.setdefault(column, {})[expert.name] = [str(v) for v in values]
    return found


def across(over: "OverTasks", chosen: "pl.DataFrame", compare: "Compare", results: Path) -> dict[str, Any]:
    """Write tasks.csv and tasks_comparisons.csv; return the verdict's facts about them."""
    from mllm.evaluation import comparison, result_tables, tasks_verdict

    table, pairs = over.table(), over.comparisons(compare.margin)
    pairs = pairs if compare.equivalence else comparison.without_equivalence(pairs)
    result_tables.write(table, results, "tasks")
    result_tables.write(pairs, results, "tasks_comparisons")
    lines = tasks_verdict.lines(table, pairs, chosen, compare.margin, over.weak())
    return {"over_tasks": lines, "chosen": over.winners[0] if over.winners else ""}


def beside_the_tables(
    experiment: "Experiment", runs: dict[str, list[str]], scores: dict[str, "Scores"], apart: dict[str, dict[str, int]], results: Path
) -> "Facts":  # fmt: skip
    """Return the verdict's facts beside the tables: sizes, classes, the leak, where candidates fail.

    Args:
        experiment: the experiment of these results.
        runs: candidate -> its runs.
        scores: run -> its score file.
        apart: task -> number of test reviews that some candidate distinguishes.
        results: the experiment's folder.
    """
    import numpy as np

    from mllm.data import labelled
    from mllm.evaluation import leaderboard_text, verdict

    counts: dict[str, Any] = {s.task: s.counts for s in scores.values()}
    if experiment.candidates and not experiment.candidates.group:  # it is unknown which reviews are copies of one text
        counts = {task: {**of, "told_apart": apart[task]} for task, of in counts.items()}
    classes = {t: labelled.worded_names(results / "data", experiment.task(t).model_dump()) for t in counts}
    confusion = {name: np.sum([scores[run].confusion["test"] for run in names], axis=0) for name, names in runs.items()}
    never = {
        name: [classes[scores[name].task][k] for k in np.flatnonzero((of.sum(1) > 0) & (of.sum(0) == 0))]
        for name, of in confusion.items()
    }
    recall = {run: of.recall["test"] for run, of in scores.items()}
    leak = leaderboard_text.leak_line(read_json(results / "data/split.json"))
    return verdict.Facts(
        name=experiment.name, margin=experiment.compare.margin, counts=counts, leak=leak, classes=classes, never=never, recall=recall
    )  # fmt: skip


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--experiment", type=Path, nargs="+", required=True, help="experiment file")
    parser.add_argument("--override", type=json.loads, default={}, help="values that replace the file's, as JSON")
    parser.add_argument(
        "--results", type=Path, required=True, help="folder with leaderboard.parquet, scores/ and data/"
    )
    script.run(main, parser.parse_args())
