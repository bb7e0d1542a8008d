"""The command ``mllm``: short names for the most used targets. Run it in the project's root.

Each subcommand prints and runs one Snakemake command; all arguments after the experiment file go to Snakemake.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

TARGETS = {
    "run": ([], "run the experiment; --profile slurm on a cluster"),
    "dry-run": (["--dry-run"], "print what would run, and why"),
    "plan": (["plan"], "print what the experiment can show, before any training"),
    "grid": (["grid"], "print every point of the grid and its state"),
    "export": (["export"], "make each method's winner as a complete model folder"),
}
"""Subcommand -> (Snakemake's target or option, description)."""


def main() -> None:
    """Translate the command line, print the Snakemake command, and run it."""
    arguments, more = _parser().parse_known_args()
    if not Path("Snakefile").exists():
        sys.exit(f"{Path.cwd()}: no Snakefile found. Fix: run mllm in the project's root folder")
    command = _command(arguments, more)
    print("+", shlex.join(["python", *command[1:]] if command[0] == sys.executable else command), file=sys.stderr)
    try:
        sys.exit(subprocess.run(command).returncode)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mllm", description="Merge of Large Language Models", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, description) in TARGETS.items():
        added = commands.add_parser(name, help=description, allow_abbrev=False)
        added.add_argument("experiment", type=Path, help="experiment file")
    compared = commands.add_parser("compare", help="one table over several finished experiments", allow_abbrev=False)
    compared.add_argument("results", type=Path, nargs="+", help="folders under results/")
    commands.add_parser("doctor", help="check this machine and cluster", allow_abbrev=False)
    return parser


def _command(arguments: argparse.Namespace, more: list[str]) -> list[str]:
    if arguments.command == "doctor":
        return [sys.executable, "profiles/doctor.py", *more]
    if arguments.command == "compare":
        return [sys.executable, "workflow/scripts/compare_experiments.py", *map(str, arguments.results), *more]
    target, _ = TARGETS[arguments.command]
    # Targets come before options: Snakemake reads words after an option as its values.
    return [sys.executable, "-m", "snakemake", *target, "--configfile", str(arguments.experiment), *more]
