"""Run the demonstration with other seeds, of the generator and of everything else random, and print its answers.

    .venv/bin/python benchmarks/demo_seeds.py               # seeds 1 to 10
    .venv/bin/python benchmarks/demo_seeds.py --seeds 1 2

Each seed is a complete run, in a copy of the project. The table has the verdict's answer for the selected merge and
each rival: after correction, for these trained experts.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import points
import polars as pl

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow/scripts"))

from mllm.evaluation import comparison_table  # noqa: E402

EXPERTS = ("pain", "depression", "acne")


def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        at = points.copy(Path(scratch) / "project")
        answers = {}
        for seed in arguments.seeds:
            begin = time.perf_counter()
            points.snakemake(
                at, "--cores", "2", "--config", f"seed={seed}", f"name=demo-{seed}", config="config/demo.yaml"
            )
            print(f"seed {seed}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
            answers[seed] = claims(at / f"results/demo-{seed}")
    print(table(answers))


def claims(results: Path) -> dict[str, comparison_table.Comparison]:
    """Return rival -> the selected merge's claim against it; the best of the experts is called *best expert*."""
    board = pl.read_parquet(results / "leaderboard.parquet")  # sorted by validation
    chosen = board.filter(pl.col("kind") == "merge")["candidate"][0]
    found = comparison_table.rows(pl.read_parquet(results / "comparisons.parquet"))
    return {
        "best expert" if row.against in EXPERTS else row.against: row
        for row in found
        if row.claim and row.candidate == chosen
    }


def table(answers: dict[int, dict[str, comparison_table.Comparison]]) -> str:
    """Return a Markdown table: a row for each seed, a column for each rival, and each answer's frequency at the end."""
    rivals = sorted(next(iter(answers.values())), key=lambda rival: (rival != "larger-on-all", rival != "best expert"))
    lines = ["| seed | chosen merge | " + " | ".join(rivals) + " |", "| ---: | --- |" + " --- |" * len(rivals)]
    for seed, rows in answers.items():
        cells = [
            f"{rows[rival].answer}: {rows[rival].difference:+.3f} ({rows[rival].low:+.3f} to {rows[rival].high:+.3f})"
            for rival in rivals
        ]
        lines.append(f"| {seed} | {next(iter(rows.values())).candidate} | " + " | ".join(cells) + " |")
    counts = [Counter(str(rows[rival].answer) for rows in answers.values()) for rival in rivals]
    words = [", ".join(f"{count} {answer.lower()}" for answer, count in c.most_common()) for c in counts]
    return "\n".join([*lines, "| **all** | | " + " | ".join(words) + " |"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 11)))
    main(parser.parse_args())
