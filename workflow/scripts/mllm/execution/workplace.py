"""Make the folder in which a group's commands run: weights that only they read stay on the node's own disk.

This module imports the standard library only, since ``jobstep`` uses it before the environment exists.
"""

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mllm.core.files import remove

Fields = dict[str, Any]  # a member, as its record tells it


@contextlib.contextmanager
def workplace(local: list[str], records: Path) -> Iterator[Path]:
    """Yield the folder that commands run in: the present one, or one on the node's own disk with the same contents.

    The latter has its own folders for ``local`` outputs; everything else links to the present folder. So weights that
    only this allocation reads never cross the network. The folder is deleted at the end; the next job deletes those of
    killed jobs.
    """
    here = Path.cwd()
    if not local:
        yield here
        return
    base = Path(os.environ.get("MLLM_NODE_CACHE") or tempfile.gettempdir())
    base.mkdir(parents=True, exist_ok=True)
    sweep(base)
    top = Path(
        tempfile.mkdtemp(prefix=f"mllm-job-{os.getuid()}-{socket.gethostname()}-{os.getpid()}.{born()}-", dir=base)
    )
    for folder in ("checkpoints", "logs", "benchmarks", "predictions"):  # made here, not on the node's disk
        (records.parent / folder).mkdir(exist_ok=True)
    try:
        for path in local:
            open_folder(here, top, Path(path).parent)
        yield top
    finally:
        shutil.rmtree(top, ignore_errors=True)


def open_folder(here: Path, top: Path, folder: Path) -> None:
    """Make ``folder`` a real folder below ``top``; link the other entries of each folder on its path."""
    (here / folder).mkdir(parents=True, exist_ok=True)
    for part in [*reversed(folder.parents), folder]:
        if (top / part).is_symlink():
            (top / part).unlink()
        (top / part).mkdir(exist_ok=True)
        if part != folder:
            for entry in (here / part).iterdir():
                if not (top / part / entry.name).exists():
                    (top / part / entry.name).symlink_to(entry)


def sweep(base: Path) -> None:
    """Delete the folders that killed jobs left on this node."""
    for old in base.glob(f"mllm-job-{os.getuid()}-{socket.gethostname()}-*"):
        owner = old.name.rsplit("-", 2)[-2]
        if born(owner.partition(".")[0]) != owner.partition(".")[2]:
            shutil.rmtree(old, ignore_errors=True)


def born(pid: int | str = "self") -> str:
    """Return a living process's start in the kernel's ticks; empty if the process is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def bring_home(member: Fields, root: Path) -> None:
    """Copy outputs that other jobs read from the node to the shared disk, completely or not at all."""
    for output in member["outputs"]:
        source, target = root / output, Path(output)
        if output in member["local"] or not source.exists() or source.resolve() == target.resolve():
            continue
        partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, partial)
        partial.replace(target)


def forget_weights(members: list[Fields], todo: list[int], ended: dict[int, int], root: Path) -> None:
    """Delete weights on the node's disk that no member still reads: it needs room for one model at a time only."""
    for i in ended:
        if members[i]["local"] and all(j in ended for j in todo if i in members[j]["needs"]):
            for output in members[i]["local"]:
                remove(root / output)
