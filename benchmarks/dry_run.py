"""Time dry runs of grids of 100 to 5,000 merges beside Snakemake's own start-up; prints a table.

`make bench` runs it. Figures with their machine are in benchmarks/README.md. With other checkouts of the project, it compares
1,000 merges there and here instead, in turns:

    git worktree add ../before COMMIT
    .venv/bin/python benchmarks/dry_run.py ../before
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
REPEATS, TURNS = 3, 5


def main(others: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if others:
            compare([*others, ROOT], Path(folder))
        else:
            table(Path(folder))


def table(folder: Path) -> None:
    """Print the seconds of each size of grid."""
    print(f"{'dry run of':<28}{'jobs':>8}{'seconds (best of ' + str(REPEATS) + ')':>24}")
    empty = folder / "empty.smk"
    empty.write_text("rule all:\n    output: 'never'\n    shell: 'true'\n")
    report("one empty rule", seconds(["-s", str(empty)]))
    for merges in (100, 1000, 2000, 5000):
        path = grid(ROOT, merges, folder / f"{merges}.yaml")
        report(f"{merges} merges", seconds(["--configfile", str(path)]))
        if merges == 1000:
            report("… with --profile slurm", seconds(["--profile", "slurm", "--configfile", str(path)]))


def compare(checkouts: list[Path], folder: Path) -> None:
    """Print the processor seconds of 1,000 merges in several checkouts, in turns."""
    used: dict[Path, list[float]] = {at: [] for at in checkouts}
    files = {at: grid(at, 1000, folder / f"{i}.yaml").resolve() for i, at in enumerate(checkouts)}
    for _ in range(TURNS):
        for at in checkouts:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            dry_run(["--configfile", str(files[at])], at)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used[at].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"1,000 merges, processor seconds, {TURNS} turns")
    for at, found in used.items():
        print(f"{at!s:<40} best {min(found):.2f}  all {' '.join(f'{s:.2f}' for s in found)}")


def grid(at: Path, merges: int, path: Path) -> Path:
    """Write the demonstration of a checkout with so many merges."""
    demo = yaml.safe_load((at / "config/demo.yaml").read_text())
    seeds = list(range(merges))
    entry = {"method": "dare_linear", "members": ["pain", "depression"], "density": 0.5, "seed": seeds}
    path.write_text(yaml.safe_dump({**demo, "name": "dry-run-benchmark", "merges": [entry]}))
    return path


def dry_run(arguments: list[str], at: Path = ROOT) -> str:
    command = [sys.executable, "-m", "snakemake", "-n", *arguments]
    return subprocess.run(command, cwd=at, capture_output=True, text=True, check=True).stdout


def seconds(arguments: list[str]) -> tuple[float, int]:
    """(best wall-clock seconds, number of jobs)"""
    best, jobs = float("inf"), 0
    for _ in range(REPEATS):
        begin = time.perf_counter()
        printed = dry_run(arguments)
        best = min(best, time.perf_counter() - begin)
        jobs = next(int(line.split()[1]) for line in printed.splitlines() if line.startswith("total"))
    return best, jobs


def report(what: str, measured: tuple[float, int]) -> None:
    print(f"{what:<28}{measured[1]:>8}{measured[0]:>24.2f}", flush=True)


if __name__ == "__main__":
    main([Path(folder).resolve() for folder in sys.argv[1:]])
