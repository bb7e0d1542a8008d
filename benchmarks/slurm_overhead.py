"""Time jobs on Slurm: trivial jobs, and grid points one by one or in groups, on the four nodes of tests/slurm.

    .venv/bin/python benchmarks/slurm_overhead.py jobs      # 60 trivial jobs: ours, unchanged plugin, sbatch, no Slurm
    .venv/bin/python benchmarks/slurm_overhead.py points    # 60 merges of a 22.7M-parameter BERT and their predictions

Points are one Slurm job each with a cold start (of 60 points, every fifth only: ``--cold``), or warm groups of eight.
The script prints the time per point. It also counts the files that each way opens per point in environment and project,
since a cluster's shared disk has them. Run it as root, where Slurm is installed.
"""

import argparse
import contextlib
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

import points
from filelock import FileLock

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
sys.path.insert(0, {str(points.ROOT / "workflow/scripts")!r})
from mllm.execution import slurm_executor
slurm_executor.install("results/bench")
"""
SLURM = [
    "--executor", "slurm", "--jobs", "100", "--slurm-status-command", "squeue", "--default-resources",
    "slurm_partition=low", "--max-jobs-per-timespan", "100/1s",
]  # fmt: skip
AT_ONCE = 4  # Slurm jobs: this machine has two cores
GROUPS = re.compile(r"groups:\n(?:  - .*\n)+group-components:\n(?:  - .*\n)+")


def main(arguments: argparse.Namespace) -> None:
    if not shutil.which("slurmctld") or os.geteuid() != 0:
        print("no Slurm here (or not root): nothing measured")
        return
    lock = FileLock(Path(tempfile.gettempdir(), "mllm-test-slurm.lock"))  # the tests' clusters have the same ports
    with lock, tempfile.TemporaryDirectory() as folder:
        cluster = Path(folder, "cluster")
        subprocess.run([points.ROOT / "tests/slurm/start.sh", cluster], check=True)
        try:
            if "jobs" in arguments.parts:
                trivial_jobs(Path(folder))
            if "points" in arguments.parts:
                grid(Path(folder), arguments.number, arguments.cold, arguments.size)
        finally:
            subprocess.run([points.ROOT / "tests/slurm/stop.sh", cluster], check=False)


def trivial_jobs(folder: Path) -> None:
    """Time jobs that write one line: ours, the unchanged plugin, sbatch by hand, and without Slurm."""
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


def grid(folder: Path, number: int, cold: int, size: str) -> None:
    """Time merges and predictions of a grid: some as one Slurm job each, and all in groups; experts exist before."""
    made = points.prepare(folder / "made", number, size)
    on_the_test_site(made)
    targets, found, taken = points.predictions(made), {}, {}
    print(f"merges and predictions, {AT_ONCE} jobs at once       points   seconds   a point   files opened per point")
    ways = {"one Slurm job each, cold": targets[:: max(1, number // cold)], "groups of 8 points, warm": targets}
    for name, wanted in ways.items():
        start = "1" if name.startswith("one") else ""
        at = folder / name.replace(" ", "-").replace(",", "")
        shutil.copytree(made, at, symlinks=True)
        profile = at / "profiles/slurm/config.yaml"
        if name.startswith("one"):
            profile.write_text(GROUPS.sub("", profile.read_text()))
        stop, kept = threading.Event(), folder / f"records-{at.name}"
        keeper = threading.Thread(target=keep_records, args=(at / points.RESULTS / "slurm", kept, stop))
        keeper.start()
        begin = time.perf_counter()
        points.snakemake(at, *wanted, "--profile", "slurm", "--jobs", str(AT_ONCE), MLLM_COLD=start, MLLM_ALLOW_CPU="1")
        seconds = time.perf_counter() - begin
        taken[name] = seconds / len(wanted)
        stop.set()
        keeper.join()
        found[name] = points.digests(at / points.RESULTS)
        opens = opened(at, kept, {**os.environ, "MLLM_COLD": start, "MLLM_ALLOW_CPU": "1"})
        print(f"{name:<45}{len(wanted):>7}{seconds:>10.1f}{taken[name]:>10.2f}{opens:>25.0f}", flush=True)
    alone, grouped = taken.values()
    print(f"grouped and warm / alone and cold, a point: {grouped / alone:.2f} (aim 0.35)")
    one, other = found.values()
    print(f"{len(one)} results, {sum(one[f] != other.get(f) for f in one)} different")


def on_the_test_site(at: Path) -> None:
    """Put the test cluster into a copy's profile."""
    profile = at / "profiles/slurm/config.yaml"
    text = profile.read_text()
    start, end = text.index("# ── The site"), text.index("# ── End of the site")
    profile.write_text(text[:start] + (points.ROOT / "tests/slurm/site.yaml").read_text() + text[end:])


def keep_records(records: Path, kept: Path, stop: threading.Event) -> None:
    """Copy records while they exist: they are deleted when their jobs end."""
    kept.mkdir()
    while not stop.wait(0.05):
        for path in records.glob("*/*.json"):
            target = kept / f"{path.parent.name}-{path.name}"
            if not target.exists():
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(path, target)


def opened(at: Path, kept: Path, environment: dict[str, str]) -> float:
    """Return the number of files that a point's job steps open in environment and project (strace; NaN without it)."""
    if not shutil.which("strace"):
        return float("nan")
    chosen = sorted(kept.glob("group-*.json"))[:1]
    if not chosen:
        first = min(kept.glob("predict-*.json"))
        chosen = [kept / f"merge-{first.name.removeprefix('predict-')}", first]
    number = sum(member["rule"] == "predict" for path in chosen for member in json.loads(path.read_text())["members"])
    shared = tuple(f"<{folder}/" for folder in (Path(sys.prefix).resolve(), sys.base_prefix, at))
    count = 0
    for path in chosen:
        record = json.loads(path.read_text())
        target = at / points.RESULTS / "slurm/bench" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
        for member in record["members"]:  # otherwise it would count as finished
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
        subprocess.run(["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-e", "trace=openat,open", "-o", trace, *step],
                       cwd=at, env={**environment, "SLURM_JOB_ID": "1"}, check=True, capture_output=True)  # fmt: skip
        with trace.open(errors="replace") as lines:
            count += sum(any(folder in line.rpartition(" = ")[2] for folder in shared) for line in lines)
    return count / number


def snakemake(at: Path, head: str, arguments: list[str]) -> None:
    (at / "Snakefile").write_text(head + WORKFLOW)
    subprocess.run([sys.executable, "-m", "snakemake", *arguments], cwd=at, check=True, capture_output=True)


def by_hand(at: Path) -> None:
    """Submit sixty scripts one after the other, and ask squeue every 0.5 s until all are finished."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["jobs", "points"], choices=["jobs", "points"])
    parser.add_argument("--number", type=int, default=60, help="merges")
    parser.add_argument("--cold", type=int, default=12, help="number of merges that are one Slurm job each")
    parser.add_argument("--size", default="minilm", choices=list(points.SIZES))
    main(parser.parse_args())
