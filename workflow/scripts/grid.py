"""Print all candidates of an experiment and their states: done, stale (would be rerun) or missing."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from mllm.core import script
from mllm.core.counting import counted
from mllm.core.errors import Failure


def main(arguments: argparse.Namespace) -> None:
    from mllm.experiment import grid, load

    experiment = load.load(*arguments.experiment, override=arguments.override)
    built = grid.build(experiment)
    plans = planned(arguments)
    rows = [("state", "candidate", "kind", "what")]
    for candidate in built.candidates.values():
        path = f"results/{experiment.name}/predictions/{candidate.name}.parquet"
        state = "missing" if not Path(path).exists() else "stale" if plans.get(path) else "done"
        rows.append((state, candidate.name, candidate.kind, candidate.describe()))
    states = [row[0] for row in rows[1:]]
    rows += [("same", d.name, "merge", f"= {d.same_as}  ({d.why})") for d in built.duplicates]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip())
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("done", "stale", "missing"))
    number = len(built.duplicates)
    twice = f"; {number} duplicate point{'s are' if number > 1 else ' is'} not run" if number else ""
    print(
        f"\n{experiment.name}: {counted(len(states), 'candidate')}, {counted(len(built.of_kind('merge')), 'merge')} among them: {counts}{twice}"
    )


def planned(arguments: argparse.Namespace) -> dict[str, bool]:
    """Ask Snakemake which files it would remake: only it knows all inputs, parameters and code."""
    command = [sys.executable, "-m", "snakemake", "--summary", "--configfile", *map(str, arguments.experiment)]
    if arguments.override:
        command += ["--config", *(f"{k}={json.dumps(v)}" for k, v in arguments.override.items())]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"snakemake --summary failed:\n{done.stderr}")
    lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    header = lines[0]
    return {row[0]: row[header.index("plan")] != "no update" for row in lines[1:]}


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--experiment", type=Path, nargs="+", required=True, help="experiment file")
    parser.add_argument("--override", type=json.loads, default={}, help="values that replace the file's, as JSON")
    script.run(main, parser.parse_args())
