"""Slurm's queue: this user's jobs in it, and which of them an earlier run left there."""

import json
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

FAILED = {
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "was cancelled",
    "DEADLINE": "missed its deadline",
    "FAILED": "failed",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "ran out of memory",
    "PREEMPTED": "was preempted",
    "TIMEOUT": "ran out of time",
    "VANISHED": "is unknown to Slurm and left no result",
}
FORMAT = "%i|%j|%T|%r|%N|%k"  # id, name, state, reason, nodes, comment


def queue() -> list[dict[str, str]] | None:
    """This user's jobs that Slurm remembers; None where it does not answer."""
    try:
        done = subprocess.run(
            ["squeue", "--me", "--noheader", "--states=all", f"--format={FORMAT}"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return None
    if done.returncode:
        return None
    names = ("slurm_id", "name", "state", "reason", "nodes", "comment")
    return [dict(zip(names, line.split("|", 5), strict=True)) for line in done.stdout.splitlines() if line]


def answer(pause: float = 5) -> list[dict[str, str]]:
    """The queue, however long Slurm takes to answer."""
    while (rows := queue()) is None:
        time.sleep(pause)
    return rows


def cancel(ids: list[str]) -> None:
    """Cancel jobs and wait until they are gone, half a minute at most."""
    subprocess.run(["scancel", *ids], capture_output=True, timeout=60)
    for _ in range(60):
        if not set(ids) & {r["slurm_id"] for r in answer() if alive(r["state"])}:
            return
        time.sleep(0.5)


def alive(state: str) -> bool:
    """Whether a job in this state is still to end."""
    return state not in (*FAILED, "COMPLETED")


def find_orphans(folder: Path, rows: list[dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Record -> Slurm job, for jobs whose end no Snakemake saw.

    Looked up by the run's name and the comment, which Slurm keeps from the submission on: the job's number may not
    have been written down when Snakemake was killed.
    """
    by_name = defaultdict(list)
    for row in rows:
        by_name[row["name"], row["comment"]].append(row)
    found = {}
    for path in sorted(folder.glob("*/*.json")):
        record = read(path)
        if not record:
            continue
        known = by_name.get((record["run"], record["comment"]))
        ended = sorted(path.parent.glob(f"{path.stem}.*.usage"), key=lambda p: p.stat().st_mtime)
        if known:
            found[str(path)] = {**record, **max(known, key=lambda r: int(r["slurm_id"]))}
        elif ended:  # too long ago for Slurm
            status = (read(ended[-1]) or {}).get("status")
            state = "COMPLETED" if status == 0 else "FAILED"
            found[str(path)] = {**record, "slurm_id": ended[-1].stem.rsplit(".", 1)[1], "state": state}
    return found


def read(path: Path) -> dict[str, Any] | None:
    """A record or usage file; None where there is none, or none that can be read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return dict(value)
