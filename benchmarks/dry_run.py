"""Time dry runs of grids of 100 to 5,000 merges, and Snakemake's own start; print a table.

`make bench` runs it. benchmarks/README.md has the figures with their machine.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 3


def main() -> None:
    print(f"{'dry run of':<28}{'jobs':>8}{'seconds (best of ' + str(REPEATS) + ')':>24}")
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "empty.smk")
        empty.write_text("rule all:\n    output: 'never'\n    shell: 'true'\n")
        report("one empty rule", seconds(["-s", str(empty)]))
        demo = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
        for merges in (100, 1000, 2000, 5000):
            grid = {**demo, "name": "dry-run-benchmark"}
            seeds = list(range(merges))
            grid["merges"] = [
                {"method": "dare_linear", "members": ["pain", "depression"], "density": 0.5, "seed": seeds}
            ]
            path = Path(folder, f"{merges}.yaml")
            path.write_text(yaml.safe_dump(grid))
            report(f"{merges} merges", seconds(["--configfile", str(path)]))
            if merges == 1000:
                report("… with --profile slurm", seconds(["--profile", "slurm", "--configfile", str(path)]))


def seconds(arguments: list[str]) -> tuple[float, int]:
    """Return the best wall-clock seconds, and the number of jobs."""
    best, jobs = float("inf"), 0
    for _ in range(REPEATS):
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        best = min(best, time.perf_counter() - begin)
        jobs = next(int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("total"))
    return best, jobs


def report(what: str, measured: tuple[float, int]) -> None:
    print(f"{what:<28}{measured[1]:>8}{measured[0]:>24.2f}", flush=True)


if __name__ == "__main__":
    main()
