"""Note who runs in this folder, tell whether the run still lives, and clean up after killed runs."""

import atexit
import contextlib
import getpass
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from mllm.core.files import read_json, write_json

NOTES = "mllm-runs"  # one note for each run, in Snakemake's folder
TOKEN = "MLLM_RUN"  # environment variable that identifies a run's jobs


def note_owner(folder: Path, local: bool) -> None:
    """Note who runs here, until this process ends; the caller must hold the lock.

    Args:
        local: whether jobs are processes of this machine. Those of a killed run are ended first: the same jobs start
            now.
    """
    for note in dead(folder):
        end_jobs(read_json(note)["token"])
        note.unlink(missing_ok=True)
    host, pid = socket.gethostname(), os.getpid()
    token = f"{host}-{pid}-{born(pid)}"
    if local:
        os.environ[TOKEN] = token
    note = folder / NOTES / f"{host}-{pid}.json"
    write_json(note, {
        "host": host, "pid": pid, "born": born(pid), "user": getpass.getuser(), "since": time.strftime("%Y-%m-%d %H:%M"),
        "token": token,
    })  # fmt: skip
    atexit.register(note.unlink, missing_ok=True)


def look_at_lock(folder: Path) -> None:
    """Remove the lock of a run that was killed.

    Only processes of this machine can be checked; the user decides about another machine's lock.
    """
    notes = list((folder / NOTES).glob("*.json"))
    held = [f.stat().st_mtime for f in (folder / "locks").glob("*")]
    gone = dead(folder)
    # A lock newer than all notes belongs to a run that has not written its note yet.
    if held and gone and len(gone) == len(notes) and max(held) <= max(n.stat().st_mtime for n in gone):
        shutil.rmtree(folder / "locks")
        print(f"{who(read_json(gone[-1]))} was killed; its lock is removed.", file=sys.stderr)


def who_works_here(folder: Path) -> str:
    """Return one line about the runs that hold this folder's lock."""
    gone = dead(folder)
    others = [read_json(note) for note in (folder / NOTES).glob("*.json") if note not in gone]
    if not others:
        return "Another run has just started in this folder. Fix: wait until it ends."
    here = [who(o) for o in others if o["host"] == socket.gethostname()]
    if here:
        return f"{', '.join(here)} uses this folder. Fix: wait until it ends."
    return f"{', '.join(map(who, others))} holds this folder's lock. Fix: wait, or if it is dead, snakemake --unlock"


def who(owner: dict[str, Any]) -> str:
    return f"{owner['user']}'s run of {owner['since']} (process {owner['pid']} on {owner['host']})"


def dead(folder: Path) -> list[Path]:
    """Return the notes of runs on this machine whose process is dead, the oldest first."""
    found = []
    for note in (folder / NOTES).glob("*.json"):
        owner = read_json(note)
        if owner["host"] == socket.gethostname() and born(owner["pid"]) != owner["born"]:
            found.append(note)
    return sorted(found, key=lambda note: note.stat().st_mtime)


def end_jobs(token: str) -> None:
    """Kill the jobs that a killed run left running on this machine: else two jobs would write the same files.

    Slurm's jobs are spared: the next run takes them over.
    """
    wanted = f"{TOKEN}={token}".encode()
    left = True
    while left:
        left = False
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "environ").read_bytes().split(b"\0")
                if wanted in words and not any(w.startswith(b"SLURM_JOB_ID=") for w in words):
                    os.kill(int(folder.name), signal.SIGKILL)
                    left = True
        time.sleep(0.05 if left else 0)


def born(pid: int) -> int | None:
    """Return a living process's start in the kernel's ticks: with its number, it identifies the process uniquely."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
