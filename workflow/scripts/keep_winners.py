"""Make the validation winner of each method once more, and keep it: merging is cheap, disks are small."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from mllm import cli


def main(arguments: argparse.Namespace) -> None:
    import polars as pl

    winners = pl.read_parquet(arguments.leaderboard).filter(pl.col("winner")).select("candidate", "task").rows()
    script = Path(__file__).with_name("merge.py")
    with cli.whole(arguments.output) as folder:
        folder.mkdir()
        for name, task in cli.progress(winners, "keeping winners"):
            recipe = cli.read_json(arguments.merges / name / "merge.json")["recipe"]
            command = [
                sys.executable,
                script,
                "--recipe",
                json.dumps(recipe),
                "--models",
                arguments.models,
                "--base",
                arguments.bases[task],
                "--output",
                folder / name,
            ]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--leaderboard", type=Path, required=True, help="leaderboard.parquet")
    parser.add_argument("--merges", type=Path, required=True, help="folder with <merge>/merge.json")
    parser.add_argument("--models", type=Path, required=True, help="folder with the model folders base and <member>")
    parser.add_argument("--bases", type=json.loads, required=True, help="task -> name of its base, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="folder to write, one model folder per winner")
    cli.run(main, parser.parse_args())
