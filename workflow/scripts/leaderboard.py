"""Gather all scores into one leaderboard, and compare each method's winner with what it must beat."""

import argparse
import json
from pathlib import Path

from mllm import cli


def main(arguments: argparse.Namespace) -> None:
    import yaml

    from mllm import comparison, config, grid, leaderboard

    experiment = config.load(*arguments.experiment, override=arguments.override)
    names = list(grid.build(experiment).candidates)
    metric, margin = experiment.compare.metric, experiment.compare.margin
    frame = leaderboard.table(
        leaderboard.read_scores(arguments.results / "scores", arguments.results / "predictions", names), metric
    )
    compared = comparison.compare(frame, arguments.results, metric, margin, experiment.seed)
    leak = leaderboard.leak_line(cli.read_json(arguments.results / "data/split.json"))
    text = leaderboard.text(frame, metric, experiment.name, leak) + "\n" + comparison.words(compared, margin)
    output = arguments.results
    with cli.whole(output / "experiment.yaml") as partial:
        partial.write_text(
            yaml.safe_dump(experiment.model_dump(by_alias=True, exclude_none=True), sort_keys=False, allow_unicode=True)
        )
    with cli.whole(output / "comparisons.csv") as partial:
        compared.write_csv(partial)
    with cli.whole(output / "leaderboard.parquet") as partial:
        frame.write_parquet(partial)
    with cli.whole(output / "leaderboard.txt") as partial:
        partial.write_text(text)
    with cli.whole(output / "leaderboard.csv") as partial:
        frame.write_csv(partial)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--experiment", type=Path, nargs="+", required=True, help="experiment file")
    parser.add_argument("--override", type=json.loads, default={}, help="values that replace the file's, as JSON")
    parser.add_argument(
        "--results", type=Path, required=True, help="folder with scores/ and predictions/; the leaderboard goes there"
    )
    cli.run(main, parser.parse_args())
