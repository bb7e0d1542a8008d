"""Gather all scores into one leaderboard."""

import argparse
import json
from pathlib import Path

from mllm.core import script
from mllm.core.files import whole


def main(arguments: argparse.Namespace) -> None:
    import yaml

    from mllm.evaluation import leaderboard, result_tables, shared_draws
    from mllm.experiment import grid, read

    experiment = read.read(*arguments.experiment, override=arguments.override)
    candidates, metric, output = grid.build(experiment).candidates, experiment.compare.metric, arguments.results
    scores = leaderboard.read_scores(output / "scores", output / "predictions", list(candidates))
    side_by_side = {task: shared_draws.Pairs(output / "scores", task) for task in {c.task for c in candidates.values()}}
    frame = leaderboard.ranked(leaderboard.table(scores, metric), side_by_side, metric)
    with whole(output / "experiment.yaml") as partial:
        partial.write_text(
            yaml.safe_dump(experiment.model_dump(by_alias=True, exclude_none=True), sort_keys=False, allow_unicode=True)
        )
    result_tables.write(frame, output, "leaderboard")
    with whole(output / "leaderboard.txt") as partial:
        partial.write_text(leaderboard.text(frame, metric, experiment.name))


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--experiment", type=Path, nargs="+", required=True, help="experiment file")
    parser.add_argument("--override", type=json.loads, default={}, help="values that replace the file's, as JSON")
    parser.add_argument(
        "--results", type=Path, required=True, help="folder with scores/ and predictions/; the leaderboard goes there"
    )
    script.run(main, parser.parse_args())
