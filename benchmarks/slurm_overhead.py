"""Time 60 trivial jobs on a local real Slurm: ours, the plugin as it comes, sbatch by hand, and without Slurm.

`make bench` runs it as root where Slurm is installed (tests/slurm/start.sh); figures stand in benchmarks/README.md.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JOBS = 60
REPEATS = 3
WORKFLOW = f"""
rule all:
    input: expand("out/{{i}}", i=range({JOBS}))

rule candidate:
    output: "out/{{i}}"
    resources: mem_mb=1000, runtime=5
    shell: "echo {{wildcards.i}} > {{output}}"
"""
OURS = f"""
import sys
sys.path.insert(0, {str(ROOT / "workflow/scripts")!r})
from mllm.execution import slurm_executor
slurm_executor.install("results/bench")
"""
SLURM = [
    "--executor", "slurm", "--jobs", "100", "--slurm-status-command", "squeue", "--default-resources",
    "slurm_partition=low", "--max-jobs-per-timespan", "100/1s",
]  # fmt: skip


def main() -> None:
    if not shutil.which("slurmctld") or os.geteuid() != 0:
        print("no Slurm here (or not root): nothing measured")
        return
    with tempfile.TemporaryDirectory() as folder:
        cluster = Path(folder, "cluster")
        subprocess.run([ROOT / "tests/slurm/start.sh", cluster], check=True)
        try:
            ways = {
                "Snakemake, no Slurm": lambda at: snakemake(at, "", ["--cores", "2"]),
                "sbatch scripts by hand": by_hand,
                "snakemake --profile slurm": lambda at: snakemake(at, OURS, SLURM),
                "the plugin as it comes": lambda at: snakemake(
                    at, "", [*SLURM, "--slurm-init-seconds-before-status-checks", "10"]
                ),
            }
            print(f"{JOBS} trivial jobs             seconds, each of {REPEATS} runs")
            for name, way in ways.items():
                seconds = []
                for i in range(REPEATS):
                    at = Path(folder, f"{name.replace(' ', '-')}-{i}")
                    at.mkdir()
                    begin = time.perf_counter()
                    way(at)
                    seconds.append(time.perf_counter() - begin)
                    assert len(list((at / "out").iterdir())) == JOBS
                print(f"{name:<28}" + "".join(f"{s:>8.1f}" for s in sorted(seconds)), flush=True)
        finally:
            subprocess.run([ROOT / "tests/slurm/stop.sh", cluster], check=False)


def snakemake(at: Path, head: str, arguments: list[str]) -> None:
    (at / "Snakefile").write_text(head + WORKFLOW)
    subprocess.run([sys.executable, "-m", "snakemake", *arguments], cwd=at, check=True, capture_output=True)


def by_hand(at: Path) -> None:
    """Sixty scripts, submitted one after the other, and squeue asked every half second until all are done."""
    (at / "out").mkdir()
    for i in range(JOBS):
        script = at / f"{i}.sh"
        script.write_text(f"#!/bin/sh\necho {i} > out/{i}\n")
        subprocess.run(
            ["sbatch", "--partition=low", "--mem=1000", "--time=5", "--output=/dev/null", script],
            cwd=at, check=True, capture_output=True,
        )  # fmt: skip
    while subprocess.run(["squeue", "--me", "-h"], capture_output=True, text=True, check=True).stdout.strip():
        time.sleep(0.5)


if __name__ == "__main__":
    main()
