"""Read Slurm's queue: this user's jobs, and those that an earlier run left there."""

import json
import os
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from mllm.core.counting import counted

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
ORPHANS = "MLLM_ORPHANS"  # what to do with an earlier run's jobs: wait (take them over) or cancel
FORMAT = "%i|%j|%T|%r|%N|%k"  # id, name, state, reason, nodes, comment


def queue() -> list[dict[str, str]] | None:
    """Return this user's jobs that Slurm remembers; None if Slurm does not answer."""
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
    """Return the queue, however long Slurm takes to answer."""
    while (rows := queue()) is None:
        time.sleep(pause)
    return rows


def cancel(ids: list[str]) -> None:
    """Cancel jobs, and wait until they are gone, for at most half a minute."""
    subprocess.run(["scancel", *ids], capture_output=True, timeout=60)
    for _ in range(60):
        if not set(ids) & {r["slurm_id"] for r in answer() if alive(r["state"])}:
            return
        time.sleep(0.5)


def alive(state: str) -> bool:
    """Tell whether a job in this state has not ended yet."""
    return state not in (*FAILED, "COMPLETED")


def find_orphans(folder: Path, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return records of allocations whose end no Snakemake saw, each with its Slurm job's number and state.

    They are found by the run's name and the comment, which Slurm keeps from the submission on. When Snakemake was
    killed, the job's number may not have been written yet.
    """
    by_name = defaultdict(list)
    for row in rows:
        by_name[row["name"], row["comment"]].append(row)
    found = []
    for path in sorted(folder.glob("*/*.json")):
        record = read(path)
        if not record or "members" not in record:
            continue
        known = by_name.get((record["run"], record["comment"]))
        ended = usage_files(path)
        if known:
            found.append({**record, "record": str(path), **max(known, key=lambda r: int(r["slurm_id"]))})
        elif ended:  # too long ago for Slurm
            slurm_id, file = ended[0]
            status = (read(file) or {}).get("status")
            state = "COMPLETED" if status == 0 else "FAILED"
            found.append({**record, "record": str(path), "slurm_id": slurm_id, "state": state})
    return found


def take_over(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Return an earlier run's allocations and a message about them; cancel them under ``MLLM_ORPHANS=cancel``."""
    orphans = find_orphans(folder, answer())
    left = [o["slurm_id"] for o in orphans if alive(o["state"])]
    if not left:
        return orphans, ""
    if os.environ.get(ORPHANS, "wait") != "cancel":
        return orphans, (
            f"Still in the queue: {counted(len(left), 'job')} of an earlier run. This run takes over those that it needs, and does"
            f" not submit them again ({ORPHANS}=cancel cancels them instead)."
        )
    cancel(left)
    # Look again, so that cancelled jobs are not taken over.
    said = f"Cancelled {counted(len(left), 'job')} of an earlier run that were still in the queue."
    return find_orphans(folder, answer()), said


def usage_files(record: Path) -> list[tuple[str, Path]]:
    """Return the usage files that Slurm jobs wrote beside a record, the newest first: (Slurm's number, file)."""
    found = {f.name[len(record.stem) + 1 : -len(".usage")]: f for f in record.parent.glob(f"{record.stem}.*.usage")}
    return [(i, found[i]) for i in sorted(filter(str.isdecimal, found), key=int, reverse=True)]


def read(path: Path) -> dict[str, Any] | None:
    """Read a record or usage file; return None if it is missing or unreadable."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return dict(value)
