"""Whose run holds the lock of this folder, and whether that run still lives."""

import getpass
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

from mllm.core.files import read_json, write_json

OWNER = "mllm-run.json"


def note_owner(folder: Path) -> None:
    """Write down who runs here; to be called by a run that holds the lock."""
    write_json(folder / OWNER, {
        "host": socket.gethostname(), "pid": os.getpid(), "born": born(os.getpid()), "user": getpass.getuser(),
        "since": time.strftime("%Y-%m-%d %H:%M"),
    })  # fmt: skip


def look_at_lock(folder: Path) -> None:
    """Remove the lock of a run that was killed; say whose run a living lock belongs to.

    Only a process of this machine can be known to be dead; another machine's lock is left to the user.
    """
    locks, note = folder / "locks", folder / OWNER
    held = [f.stat().st_mtime for f in locks.glob("*")]
    # A lock newer than the note is a run's that has not come to write its own yet.
    if "--mode" in sys.argv or not held or not note.exists() or max(held) > note.stat().st_mtime:
        return
    owner: dict[str, Any] = read_json(note)
    who = f"{owner['user']}'s run of {owner['since']} (process {owner['pid']} on {owner['host']})"
    if owner["host"] != socket.gethostname():
        print(f"{who} holds this folder. If it is dead, give: snakemake --unlock", file=sys.stderr)
    elif born(owner["pid"]) == owner["born"]:
        print(f"{who} is at work in this folder.", file=sys.stderr)
    else:
        shutil.rmtree(locks)
        print(f"{who} was killed; its lock is removed.", file=sys.stderr)


def born(pid: int) -> int | None:
    """A living process's start, in the kernel's ticks: with the number, it names a process for good."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
