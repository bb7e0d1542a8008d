"""Write the report: one page that needs no network, its figures, the main table for papers."""

import argparse
import json
from pathlib import Path

from mllm import cli


def main(arguments: argparse.Namespace) -> None:
    from mllm import config, report

    experiment = config.load(*arguments.experiment, override=arguments.override)
    with cli.whole(arguments.output) as folder:
        report.write(report.Report(arguments.results, experiment), folder)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--experiment", type=Path, nargs="+", required=True, help="experiment file")
    parser.add_argument("--override", type=json.loads, default={}, help="values that replace the file's, as JSON")
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    cli.run(main, parser.parse_args())
