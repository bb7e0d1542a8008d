"""Whose runs work in this folder, whether they still live, and what the killed ones left."""

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
TOKEN = "MLLM_RUN"  # environment variable by which a run's jobs are known


def note_owner(folder: Path, local: bool) -> None:
    """Write down who runs here, until this process ends; to be called by a run that holds the lock.

    Args:
        local: its jobs are processes of this machine; those of a killed run are ended first, since the same jobs start now.
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

    Only a process of this machine can be known to be dead; another machine's lock is left to the user.
    """
    notes = list((folder / NOTES).glob("*.json"))
    held = [f.stat().st_mtime for f in (folder / "locks").glob("*")]
    gone = dead(folder)
    # A lock newer than all notes is a run's that has not come to write its own yet.
    if held and gone and len(gone) == len(notes) and max(held) <= max(n.stat().st_mtime for n in gone):
        shutil.rmtree(folder / "locks")
        print(f"{who(read_json(gone[-1]))} was killed; its lock is removed.", file=sys.stderr)


def who_works_here(folder: Path) -> str:
    """One line about the runs that hold this folder's lock."""
    gone = dead(folder)
    others = [read_json(note) for note in (folder / NOTES).glob("*.json") if note not in gone]
    if not others:
        return "Another run has just begun in this folder. Wait for its end."
    here = [who(o) for o in others if o["host"] == socket.gethostname()]
    if here:
        return f"{', '.join(here)} is at work in this folder. Wait for its end."
    return f"{', '.join(map(who, others))} holds this folder. If it is dead: snakemake --unlock"


def who(owner: dict[str, Any]) -> str:
    return f"{owner['user']}'s run of {owner['since']} (process {owner['pid']} on {owner['host']})"


def dead(folder: Path) -> list[Path]:
    """Notes of runs on this machine whose process is gone, the oldest first."""
    found = []
    for note in (folder / NOTES).glob("*.json"):
        owner = read_json(note)
        if owner["host"] == socket.gethostname() and born(owner["pid"]) != owner["born"]:
            found.append(note)
    return sorted(found, key=lambda note: note.stat().st_mtime)


def end_jobs(token: str) -> None:
    """Kill what a killed run left at work on this machine: two jobs would write the same files.

    Jobs in Slurm's hands are spared: the next run takes them over.
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
    """A living process's start, in the kernel's ticks: with the number, it names a process for good."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
