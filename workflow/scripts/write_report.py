"""Write the report: one page that needs no network, its figures, and the main table for papers."""

import argparse
import json
from pathlib import Path

from mllm.core import script
from mllm.core.files import whole


def main(arguments: argparse.Namespace) -> None:
    from mllm.experiment import read
    from mllm.reporting import page
    from mllm.reporting.report import Report

    experiment = read.read(*arguments.experiment, override=arguments.override)
    with whole(arguments.output) as folder:
        page.write(Report(arguments.results, experiment, arguments.taken), folder)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--experiment", type=Path, nargs="+", required=True, help="experiment file")
    parser.add_argument("--override", type=json.loads, default={}, help="values that replace the file's, as JSON")
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder")
    parser.add_argument("--taken", type=json.loads, default={}, help="what the jobs took, by rule, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    script.run(main, parser.parse_args())
