"""The demonstration with cold and with warm starts: wall-clock and processor seconds, and whether all results are the same.

    .venv/bin/python benchmarks/warm.py

Each run is a fresh copy of the project. Processor seconds are those of Snakemake and of all that it started, the warm
process included: this process becomes the parent of whatever loses its own.
"""

import argparse
import ctypes
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = (
    "predictions/*.parquet",
    "models/*/*.safetensors",
    "merges/*/mergekit.yaml",
    "merges/*/merge.json",
    "scores/*.json",
)


def copy(target: Path) -> None:
    """The files that git knows, and the environment."""
    target.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "x", "-C", str(target)], input=archive, check=True)
    (target / ".venv").symlink_to((ROOT / ".venv").resolve())


def run(folder: Path, config: str, cold: bool) -> tuple[float, float]:
    """Run an experiment; returns wall-clock and processor seconds."""
    environment = (
        {**os.environ, "MLLM_COLD": "1"} if cold else {k: v for k, v in os.environ.items() if k != "MLLM_COLD"}
    )
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/local", "--configfile", config]
    before, begin = processor_seconds(), time.perf_counter()
    with (folder / "out.txt").open("w") as out:
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=out, stderr=subprocess.STDOUT)
    seconds = time.perf_counter() - begin
    while True:  # the warm process ends with its run, and is counted when it has ended
        try:
            os.wait()
        except ChildProcessError:
            return seconds, processor_seconds() - before


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def digests(results: Path) -> dict[str, str]:
    """Path -> digest of each result that must not depend on how jobs start."""
    files = sorted(f for pattern in RESULTS for f in results.glob(pattern))
    return {str(f.relative_to(results)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def main(arguments: argparse.Namespace) -> None:
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    with tempfile.TemporaryDirectory() as scratch:
        measured, found = {}, {}
        for start in ("cold", "warm"):
            folder = Path(scratch, start)
            copy(folder)
            measured[start] = run(folder, arguments.config, start == "cold")
            (results,) = (f for f in (folder / "results").iterdir() if f.name != "downloads")
            found[start] = digests(results)
            print(f"{start}: {measured[start][0]:.1f} s wall, {measured[start][1]:.1f} s processor", flush=True)
        wall, processor = (measured["warm"][i] / measured["cold"][i] for i in (0, 1))
        print(f"warm / cold: {wall:.2f} wall, {processor:.2f} processor")
        different = sorted(f for f in {*found["cold"], *found["warm"]} if found["cold"].get(f) != found["warm"].get(f))
        print(f"{len(found['cold'])} results, {len(different)} different {' '.join(different)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="config/demo.yaml", help="experiment to run")
    main(parser.parse_args())
