"""Gather all scores into one leaderboard."""

import argparse
import json
from pathlib import Path

from mllm.core import script
from mllm.core.files import whole


def main(arguments: argparse.Namespace) -> None:
    import yaml

    from mllm.evaluation import leaderboard, leaderboard_text, result_tables, run_table, shared_draws
    from mllm.experiment import grid, read, systems

    experiment = read.read(*arguments.experiment, override=arguments.override)
    built, metric, output = grid.build(experiment), experiment.compare.metric, arguments.results
    scores = run_table.read_scores(output / "scores", output / "predictions", list(built.candidates))
    tasks = {c.task for c in built.candidates.values()}
    side_by_side = {task: shared_draws.Pairs(output / "scores", task, built.runs) for task in tasks}
    runs = run_table.table(scores)
    frame = leaderboard.table(scores, metric, side_by_side, systems.wholes(built), experiment.compare.tasks)
    frame = leaderboard.ranked(frame, side_by_side, metric, runs)
    with whole(output / "experiment.yaml") as partial:
        partial.write_text(
            yaml.safe_dump(
                experiment.model_dump(by_alias=True, exclude_none=True), sort_keys=False, allow_unicode=True
            ),
            encoding="utf-8",
        )
    result_tables.write(runs, output, "runs")
    result_tables.write(frame, output, "leaderboard")
    with whole(output / "leaderboard.txt") as partial:
        partial.write_text(leaderboard_text.text(frame, metric, experiment.name), encoding="utf-8")


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--experiment", type=Path, nargs="+", required=True, help="experiment file")
    parser.add_argument("--override", type=json.loads, default={}, help="values that replace the file's, as JSON")
    parser.add_argument(
        "--results", type=Path, required=True, help="folder with scores/ and predictions/; the leaderboard goes there"
    )
    script.run(main, parser.parse_args())
