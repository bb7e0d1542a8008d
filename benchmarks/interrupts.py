"""Interrupt the demonstration repeatedly, resume it by the same command without options, and compare the bytes.

Signals take turns: Ctrl-C (SIGINT to all processes), SIGTERM and SIGKILL to Snakemake only, SIGKILL to all processes,
as in a power cut. A moment is a random number of finished jobs and some random seconds, so that interrupts hit all
stages on any machine. The script prints one line per interrupt, and figures at the end as JSON.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "snakemake", "--configfile", "config/demo.yaml"]
COMPARED = (
    "models/*/*.safetensors",
    "predictions/*.parquet",
    "merges/*/*",
    "comparisons.csv",
    "selection.csv",
    "agreement.csv",
)
FINISHED = re.compile(r"^\[\d+/\d+\] (.*?), [\d.]+ (?:s|min|h)\b", re.M)
WAYS: list[tuple[str, int, Callable[[int, int], None]]] = [
    ("Ctrl-C", signal.SIGINT, os.killpg), ("SIGTERM", signal.SIGTERM, os.kill), ("SIGKILL", signal.SIGKILL, os.kill),
    ("SIGKILL to all", signal.SIGKILL, os.killpg),
]  # fmt: skip


def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="mllm-interrupts-") as folder:
        whole, broken = (copy(Path(folder, name)) for name in ("whole", "broken"))
        begin = time.monotonic()
        said, most = run(whole, ["-j", "2"], None)
        usual, total = time.monotonic() - begin, len(FINISHED.findall(said))
        print(f"undisturbed: {usual:.0f} s, {total} jobs, at most {most} at once", flush=True)
        rng, ended, peak = random.Random(arguments.seed), Counter(FINISHED.findall("")), 0
        for number in range(arguments.interrupts):
            name, sent, how = WAYS[number % len(WAYS)]
            # One in each stretch of the run: some jobs into it, and a moment more.
            reached = round(total * (number + rng.random()) / arguments.interrupts)
            jobs, seconds = max(0, reached - ended.total()), rng.uniform(0, 0.7)
            said, most = run(broken, [], Interrupt(jobs, seconds, sent, how))
            ended.update(FINISHED.findall(said))
            peak = max(peak, most)
            check(said, name, number)
            print(
                f"{name} {seconds:.1f} s after {jobs} more: {ended.total()} jobs finished in all, at most {most} at once",
                flush=True,
            )
        said, most = run(broken, [], None)
        ended.update(FINISHED.findall(said))
        differ = [name for name, digest in digests(whole).items() if digests(broken).get(name) != digest]
        print(json.dumps({
            "interrupts": arguments.interrupts, "files": len(digests(whole)), "files_that_differ": differ,
            "jobs_finished": ended.total(), "jobs_finished_twice": [j for j, n in ended.items() if n > 1],
            "most_jobs_at_once": max(peak, most),
        }, indent=2))  # fmt: skip


def copy(target: Path) -> Path:
    """Copy the project's files without results."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    return target


class Interrupt(NamedTuple):
    """A signal, some seconds after a number of jobs finished, and how it is sent."""

    jobs: int
    seconds: float
    signal: int
    send: Callable[[int, int], None]


def run(folder: Path, options: list[str], interrupt: Interrupt | None) -> tuple[str, int]:
    """Run the demonstration until its end or an interrupt; return its output, and the most jobs at once."""
    output = folder / "said.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [*COMMAND, *options], cwd=folder, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    reached, most = 0.0, 0
    while process.poll() is None:
        if interrupt and not reached and len(FINISHED.findall(output.read_text())) >= interrupt.jobs:
            reached = time.monotonic()
        if interrupt and reached and time.monotonic() - reached > interrupt.seconds:
            interrupt.send(process.pid, interrupt.signal)
            process.wait()
            break
        most = max(most, jobs_at_work(process.pid))
        time.sleep(0.05)
    said = output.read_text()
    if interrupt is None and process.returncode:
        sys.exit(f"it failed:\n{said[-4000:]}")
    return said, most


def jobs_at_work(pid: int) -> int:
    """Return the number of workflow scripts among a run's processes, without the processes that scripts start."""
    found = 0
    try:
        for process in psutil.Process(pid).children(recursive=True):
            try:
                found += is_script(process) and not is_script(process.parent())
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return found


def is_script(process: psutil.Process | None) -> bool:
    words = process.cmdline() if process else []
    return (
        process is not None
        and not process.name().endswith("sh")
        and any("workflow/scripts/" in w and w.endswith(".py") for w in words)
    )


def check(said: str, name: str, number: int) -> None:
    """Check that an interrupt that Snakemake could see ends in one line, without failures.

    Before its first line, Snakemake sees no interrupt.
    """
    bad = [word for word in ("FAILED", "Traceback", "IncompleteFiles", "cannot be locked") if word in said]
    silent = "SIGKILL" in name or len(said.splitlines()) < 2
    if bad or not (silent or "Interrupted; give the same command" in said or "verdict" in said):
        sys.exit(f"interrupt {number} ({name}): found {bad}, in:\n{said[-4000:]}")


def digests(folder: Path) -> dict[str, str]:
    results = folder / "results/demo"
    files = sorted(f for pattern in COMPARED for f in results.glob(pattern) if f.is_file())
    return {f.relative_to(results).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interrupts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=5, help="seed of the moments")
    main(parser.parse_args())
