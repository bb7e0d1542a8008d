"""Time 60 trivial jobs on a local real Slurm: ours, the plugin as it comes, sbatch by hand, and without Slurm.

Then 60 grid points, each a merge of a tiny model and its prediction: one Slurm job each against groups of eight points, and
the files that each way opens per point in the environment and the project, which lie on a cluster's shared disk.
`make bench` runs it as root where Slurm is installed (tests/slurm/start.sh); figures stand in benchmarks/README.md.
`benchmarks/slurm_overhead.py 12` does 12 points, and no trivial jobs.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
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


POINTS = """
name: points
data: {{source: synthetic, rows: 500, conditions: 3}}
split: {{mode: official-clean, valid: 0.2}}
tasks: [{{name: sentiment, label: sentiment}}]
models:
  - {{name: tiny, family: classifier, source: scratch, architecture: gpt2, width: 32, layers: 1, heads: 2, vocabulary: 600,
     max_length: 48, pretrain: {{steps: 5, batch_size: 16, learning_rate: 2.0e-3}}}}
base: tiny
experts: [{{name: shard, parts: 2, steps: 5, batch_size: 16, learning_rate: 1.0e-3}}]
merges: [{{method: task_arithmetic, members: [shard-*], lambda: {lambdas}}}]
compare: {{metric: macro_f1, margin: 0.01}}
"""
GROUPS = re.compile(r"groups:\n(?:  - .*\n)+group-components:\n(?:  - .*\n)+")


def main() -> None:
    if not shutil.which("slurmctld") or os.geteuid() != 0:
        print("no Slurm here (or not root): nothing measured")
        return
    with tempfile.TemporaryDirectory() as folder:
        cluster = Path(folder, "cluster")
        subprocess.run([ROOT / "tests/slurm/start.sh", cluster], check=True)
        try:
            if len(sys.argv) > 1:
                points(Path(folder), int(sys.argv[1]))
                return
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
            points(Path(folder), JOBS)
        finally:
            subprocess.run([ROOT / "tests/slurm/stop.sh", cluster], check=False)


def points(folder: Path, number: int) -> None:
    """Merges and predictions of a grid: one Slurm job each, and groups; experts are made before."""
    made = project(folder / "made", number)
    local = ["--profile", "profiles/local", "--configfile", "config/points.yaml", "experts"]
    subprocess.run([sys.executable, "-m", "snakemake", *local], cwd=made, check=True, capture_output=True)
    print(f"{number} merges and their predictions     seconds   files opened per point")
    for name, cold in (
        ("one Slurm job each, cold", "1"),
        ("groups of 8 points, cold", "1"),
        ("groups of 8 points, warm", ""),
    ):
        at = folder / name.replace(" ", "-").replace(",", "")
        shutil.copytree(made, at, symlinks=True)
        profile = at / "profiles/slurm/config.yaml"
        if name.startswith("one"):
            profile.write_text(GROUPS.sub("", profile.read_text()))
        targets = [f"results/points/predictions/{merge}.parquet" for merge in merges(at)]
        assert len(targets) == number, targets
        stop, kept = threading.Event(), folder / f"records-{at.name}"
        keeper = threading.Thread(target=keep_records, args=(at / "results/points/slurm", kept, stop))
        keeper.start()
        environment = {**os.environ, "MLLM_COLD": cold, "MLLM_ALLOW_CPU": "1"}
        command = [
            sys.executable,
            "-m",
            "snakemake",
            *targets,
            "--profile",
            "slurm",
            "--configfile",
            "config/points.yaml",
        ]
        begin = time.perf_counter()
        done = subprocess.run(command, cwd=at, env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begin
        stop.set()
        keeper.join()
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        print(f"{name:<32}{seconds:>12.1f}{opened(at, kept, environment):>24.0f}", flush=True)


def project(at: Path, number: int) -> Path:
    """The project in a folder of its own, for the test cluster, with an experiment of some merges."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, at / name, follow_symlinks=False)
    profile = at / "profiles/slurm/config.yaml"
    text = profile.read_text()
    start, end = text.index("# ── The site"), text.index("# ── End of the site")
    profile.write_text(text[:start] + (ROOT / "tests/slurm/site.yaml").read_text() + text[end:])
    lambdas = [round(0.1 + i / 100, 2) for i in range(number)]
    (at / "config/points.yaml").write_text(POINTS.format(lambdas=lambdas))
    return at


def merges(at: Path) -> list[str]:
    """Names of the experiment's merges."""
    command = [sys.executable, "-m", "snakemake", "-n", "merges", "--cores", "1", "--configfile", "config/points.yaml"]
    out = subprocess.run(command, cwd=at, check=True, capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"^merge +(\S+):", out, re.MULTILINE)))


def keep_records(records: Path, kept: Path, stop: threading.Event) -> None:
    """Copy records while they are there: they go when their jobs end."""
    kept.mkdir()
    while not stop.wait(0.05):
        for path in records.glob("*/*.json"):
            target = kept / f"{path.parent.name}-{path.name}"
            if not target.exists():
                shutil.copyfile(path, target)


def opened(at: Path, kept: Path, environment: dict[str, str]) -> float:
    """Files that a point's job steps open in the environment and the project, counted with strace; NaN without it."""
    if not shutil.which("strace"):
        return float("nan")
    groups = sorted(kept.glob("group-*.json"))[:1]
    chosen = groups or [min(kept.glob("merge-*.json")), min(kept.glob("predict-*.json"))]
    number = sum(member["rule"] == "predict" for path in chosen for member in json.loads(path.read_text())["members"])
    shared = tuple(f"<{folder}/" for folder in (Path(sys.prefix).resolve(), sys.base_prefix, at))
    count = 0
    for path in chosen:
        record = json.loads(path.read_text())
        target = at / "results/points/slurm/bench" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
        for member in record["members"]:  # or it would be seen as finished
            for output in member["outputs"]:
                if (at / output).is_file():
                    (at / output).unlink()
        trace = at / "trace.txt"
        step = [
            sys.executable,
            "-I",
            str(at / "workflow/scripts/mllm/execution/jobstep.py"),
            str(target),
            record["key"],
        ]
        subprocess.run(["strace", "-f", "-qq", "-y", "-e", "trace=openat,open", "-o", trace, *step],
                       cwd=at, env={**environment, "SLURM_JOB_ID": "1"}, check=True, capture_output=True)  # fmt: skip
        for line in trace.open(errors="replace"):
            count += any(folder in line.rpartition(" = ")[2] for folder in shared)
    return count / number


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
