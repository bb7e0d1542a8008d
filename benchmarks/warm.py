"""Compare cold with warm starts: wall-clock and processor seconds, and whether all results are the same.

    .venv/bin/python benchmarks/warm.py demo        # the demonstration
    .venv/bin/python benchmarks/warm.py points      # 60 merges of a 22.7M-parameter BERT and their predictions

Each run uses a fresh copy of the project. Processor seconds include Snakemake and all processes that it started, also
the warm process: this process becomes the parent of processes that lose theirs.
"""

import argparse
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import points

CORES = 2
PR_SET_CHILD_SUBREAPER = 36


def run(at: Path, cold: bool, *arguments: str, config: str = points.CONFIG) -> tuple[float, float]:
    """Run a copy's workflow; return wall-clock and processor seconds."""
    before, begin = processor_seconds(), time.perf_counter()
    points.snakemake(at, *arguments, "--cores", str(CORES), config=config, MLLM_COLD="1" if cold else "")
    seconds = time.perf_counter() - begin
    while True:  # the warm process ends with its run, and is counted when it has ended
        try:
            os.wait()
        except ChildProcessError:
            return seconds, processor_seconds() - before


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def demo(scratch: Path, turns: int) -> None:
    """Time the demonstration, cold and warm in turn."""
    measured: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
    found = {}
    for turn in range(turns):
        for start in measured:
            at = points.copy(scratch / f"{start}-{turn}")
            measured[start].append(run(at, start == "cold", config="config/demo.yaml"))
            found[start] = points.digests(at / "results/demo")
            wall, processor = measured[start][-1]
            print(f"demonstration, {start}: {wall:.1f} s wall, {processor:.1f} s processor", flush=True)
            print(by_rule(at / "results/demo/benchmarks"), flush=True)
    wall, processor = (min(m[i] for m in measured["warm"]) / min(m[i] for m in measured["cold"]) for i in (0, 1))
    print(f"warm / cold, best of {turns}: {wall:.2f} wall, {processor:.2f} processor (aims 0.5, 0.4)")
    compare(found["cold"], found["warm"])


def grid(scratch: Path, number: int, cold: int, size: str) -> None:
    """Time merges and predictions: seconds per point beyond their arithmetic; some of the points also cold."""
    made = points.prepare(scratch / "made", number, size)
    files = points.predictions(made)
    merging, predicting = arithmetic(made)
    found = {}
    for start, wanted in (("cold", files[:: max(1, number // cold)]), ("warm", files)):
        at = Path(shutil.copytree(made, scratch / f"points-{start}", symlinks=True))
        wall, processor = (s / len(wanted) for s in run(at, start == "cold", *wanted))
        found[start] = points.digests(at / points.RESULTS)
        beyond, idle = (s - merging - predicting for s in (processor, CORES * wall))
        print(
            f"{len(wanted)} points, {start}: a point takes {wall:.2f} s on {CORES} cores and {processor:.2f} processor s, of"
            f" which merging {merging:.2f} and predicting {predicting:.2f}; beyond that {beyond:.2f} processor s"
            f" ({idle:.2f} with what the cores wait)",
            flush=True,
        )
        print(by_rule(at / points.RESULTS / "benchmarks"), flush=True)
    compare(found["cold"], {name: found["warm"].get(name, "") for name in found["cold"]})


def arithmetic(made: Path) -> tuple[float, float]:
    """Return processor seconds of a merge's and a prediction's arithmetic while all cores do the same, as in the runs."""
    code = "import json, pathlib, sys, points; print(json.dumps(points.arithmetic(pathlib.Path(sys.argv[1]))))"
    command = [sys.executable, "-c", code, str(made)]
    at_once = [
        subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True) for _ in range(CORES)
    ]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in at_once]
    return sum(merge for merge, _ in found) / CORES, sum(predict for _, predict in found) / CORES


def by_rule(folder: Path) -> str:
    """Return seconds and processor seconds of each rule's jobs, from their benchmark files."""
    lines = []
    for place in sorted({f.relative_to(folder).parts[0].removesuffix(".tsv") for f in folder.rglob("*.tsv")}):
        rows = [f.read_text().splitlines() for f in [*folder.glob(f"{place}/*.tsv"), *folder.glob(f"{place}.tsv")]]
        jobs = [dict(zip(header.split("\t"), values.split("\t"), strict=True)) for header, values in rows]
        wall, processor = (sum(float(job[k]) for job in jobs) for k in ("s", "cpu_time"))
        lines.append(f"    {place:<20}{len(jobs):>4} jobs{wall:>8.1f} s{processor:>8.1f} processor s")
    return "\n".join(lines)


def compare(cold: dict[str, str], warm: dict[str, str]) -> None:
    different = sorted(name for name in {*cold, *warm} if cold.get(name) != warm.get(name))
    print(f"{len(cold)} results, {len(different)} different {' '.join(different)}")


def main(arguments: argparse.Namespace) -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as scratch:
        if "demo" in arguments.parts:
            demo(Path(scratch), arguments.turns)
        if "points" in arguments.parts:
            grid(Path(scratch), arguments.number, arguments.cold, arguments.size)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["demo", "points"], choices=["demo", "points"])
    parser.add_argument("--turns", type=int, default=2, help="runs of the demonstration, of each kind")
    parser.add_argument("--number", type=int, default=60, help="merges")
    parser.add_argument("--cold", type=int, default=12, help="number of merges that also start cold")
    parser.add_argument("--size", default="minilm", choices=list(points.SIZES))
    main(parser.parse_args())
